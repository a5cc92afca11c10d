"""Small vector pictures for pages: they need no library to be seen, and follow the page from light to dark.

A picture is text: marks are placed by a :class:`Canvas`, colours are classes of :data:`STYLE`, and what the pointer
tells stands in each mark's ``<title>``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from search.report.palette import COLOURS, COLOURS_ON_DARK

Point = tuple[float, float]
Ticks = Sequence[tuple[float, str]]

_LIGHT = {"ink": "#22272E", "muted": "#6B7280", "rule": "#E5E7EB", "page": "#FFFFFF", "card": "#F8FAFC"}
_DARK = {"ink": "#E6EDF3", "muted": "#9AA5B1", "rule": "#30363D", "page": "#0D1117", "card": "#161B22"}


def _variables(named: dict[str, str], colours: Sequence[str]) -> str:
    every = named | {f"m{place}": colour for place, colour in enumerate(colours)}
    return "".join(f"--{name}:{colour};" for name, colour in every.items())


STYLE = "".join([
    f".pp{{{_variables(_LIGHT, COLOURS)}color-scheme:light dark;color:var(--ink);background:var(--page);",
    "font:14px/1.45 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}",
    f"@media(prefers-color-scheme:dark){{.pp{{{_variables(_DARK, COLOURS_ON_DARK)}}}}}",
    ".pp svg{display:block;max-width:100%;height:auto}.pp svg text{fill:var(--ink);font-size:12px}",
    ".pp svg .s{fill:var(--muted)}.pp svg .e{text-anchor:end}.pp svg .c{text-anchor:middle}",
    ".pp .r{stroke:var(--rule);stroke-width:1}.pp .a{stroke:var(--muted);stroke-width:1}",
    ".pp .d{stroke:var(--ink);stroke-width:1;stroke-dasharray:2 4;fill:none}",
    ".pp .st{fill:none;stroke:var(--muted);stroke-width:2}.pp .ar{fill:var(--ink);opacity:.06}",
    ".pp .k{fill:var(--ink)}.pp .n{fill:none}.pp .g{fill:var(--muted)}.pp .b{fill:var(--rule)}",
    ".pp .o{stroke:var(--page);stroke-width:1.5}.pp .f{opacity:.4}",
    *(f".pp .m{p}{{fill:var(--m{p})}}" for p in range(len(COLOURS))),
    *(f".pp .l{p}{{fill:none;stroke:var(--m{p});stroke-width:2}}" for p in range(len(COLOURS))),
])
"""Colours and lines of all pictures, for light and dark pages; everything lies within an element of class ``pp``."""


@dataclass(frozen=True)
class Scale:
    """One direction of a picture.

    Attributes:
        low: Value at the left or lower end.
        high: Value at the right or upper end.
        ticks: Value and text of each tick.
        title: What is shown.
    """

    low: float
    high: float
    ticks: Ticks = ()
    title: str = ""


@dataclass
class Canvas:
    """A picture in the making, with a frame of two scales.

    Attributes:
        across: The horizontal scale.
        up: The vertical scale.
        width: Width in pixels, margins included.
        height: Height in pixels, margins included.
        left: Left margin.
        right: Right margin.
        top: Upper margin.
        bottom: Lower margin.
        marks: What was drawn so far.
    """

    across: Scale
    up: Scale
    width: int = 760
    height: int = 430
    left: int = 70
    right: int = 20
    top: int = 20
    bottom: int = 52
    marks: list[str] = field(default_factory=list)

    def x(self, value: float) -> float:
        """Turn a value into pixels from the left.

        Args:
            value: A value of the horizontal scale.

        Returns:
            Pixels.
        """
        room = self.width - self.left - self.right
        return round(self.left + room * (value - self.across.low) / ((self.across.high - self.across.low) or 1.0), 1)

    def y(self, value: float) -> float:
        """Turn a value into pixels from the top.

        Args:
            value: A value of the vertical scale.

        Returns:
            Pixels.
        """
        room = self.height - self.top - self.bottom
        return round(self.top + room * (self.up.high - value) / ((self.up.high - self.up.low) or 1.0), 1)

    def frame(self, second: Ticks = (), second_title: str = "") -> None:
        """Draw grid, ticks and titles.

        Args:
            second: Ticks of a second horizontal scale above.
            second_title: What that shows.
        """
        bottom, right = self.height - self.bottom, self.width - self.right
        for value, text in self.across.ticks:
            x = self.x(value)
            self.marks.append(f'<path class="r" d="M{x} {self.top}V{bottom}"/>')
            self.text(x, bottom + 18, text, "c")
        for value, text in self.up.ticks:
            y = self.y(value)
            self.marks.append(f'<path class="r" d="M{self.left} {y}H{right}"/>')
            self.text(self.left - 8, y + 4, text, "e")
        for value, text in second:
            self.text(self.x(value), self.top - 7, text, "c s")
        self.marks.append(f'<path class="a n" d="M{self.left} {self.top}V{bottom}H{right}"/>')
        if self.across.title:
            self.text((self.left + right) / 2, self.height - 8, self.across.title, "c")
        if second_title:
            self.text((self.left + right) / 2, self.top - 24, second_title, "c s")
        if self.up.title:
            middle = (self.top + bottom) / 2
            turned = f'transform="rotate(-90 14 {middle})"'
            self.marks.append(f'<text x="14" y="{middle}" class="c" {turned}>{escape(self.up.title)}</text>')

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        """Write a text at a place in pixels.

        Args:
            x: Pixels from the left.
            y: Pixels from the top, of the base line.
            text: The text.
            kind: Classes of :data:`STYLE`.
        """
        self.marks.append(f'<text x="{round(x, 1)}" y="{round(y, 1)}" class="{kind}">{escape(text)}</text>')

    def line(self, points: Iterable[Point], kind: str, tip: str = "") -> None:
        """Join points, in values.

        Args:
            points: The points.
            kind: Classes of :data:`STYLE`.
            tip: What the pointer tells.
        """
        places = [f"{self.x(x)} {self.y(y)}" for x, y in points]
        if places:
            self.marks.append(f'<path class="{kind}" d="M{"L".join(places)}">{_title(tip)}</path>')

    def stairs(self, points: Sequence[Point]) -> None:
        """Draw the boundary of a front: steps from corner to corner, with the area below.

        Args:
            points: The corners from left to right, in values.
        """
        if not points:
            return
        bottom, right = self.height - self.bottom, self.width - self.right
        steps = "".join(f"H{self.x(x)}V{self.y(y)}" for x, y in points[1:])
        first = f"{self.x(points[0][0])}"
        risen = f"M{first} {bottom}V{self.y(points[0][1])}{steps}H{right}"
        self.marks.append(f'<path class="ar" d="{risen}V{bottom}Z"/><path class="st" d="{risen}"/>')

    def mark(self, x: float, y: float, shape: str, size: float, kind: str, tip: str = "", fill: str = "") -> None:
        """Draw a mark, in values.

        Args:
            x: Value on the horizontal scale.
            y: Value on the vertical scale.
            shape: Name of a shape of the palette, or ``"star"``.
            size: Half its width in pixels.
            kind: Classes of :data:`STYLE`.
            tip: What the pointer tells.
            fill: A colour that is none of the style's.
        """
        colour = f' style="fill:{fill}"' if fill else ""
        body = shape_path(shape, self.x(x), self.y(y), size)
        self.marks.append(f'<path class="{kind}"{colour} d="{body}">{_title(tip)}</path>')

    def render(self, label: str) -> str:
        """Finish the picture.

        Args:
            label: What it shows, for those who hear a page.

        Returns:
            One ``<svg>`` element.
        """
        box = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        return f'<svg {box} role="img" aria-label="{escape(label, quote=True)}">{"".join(self.marks)}</svg>'


def _title(tip: str) -> str:
    return f"<title>{escape(tip)}</title>" if tip else ""


_CORNERS: dict[str, Sequence[Point]] = {
    "square": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    "triangle-up": ((0, -1.1), (1.05, 0.8), (-1.05, 0.8)),
    "triangle-down": ((0, 1.1), (1.05, -0.8), (-1.05, -0.8)),
    "diamond": ((0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)),
    "cross": (
        (-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4),
        (0.4, 1.1), (-0.4, 1.1), (-0.4, 0.4), (-1.1, 0.4), (-1.1, -0.4), (-0.4, -0.4),
    ),
    "x": (
        (0, -0.5), (0.6, -1.1), (1.1, -0.6), (0.5, 0), (1.1, 0.6), (0.6, 1.1),
        (0, 0.5), (-0.6, 1.1), (-1.1, 0.6), (-0.5, 0), (-1.1, -0.6), (-0.6, -1.1),
    ),
    "pentagon": ((0, -1.1), (1.05, -0.34), (0.65, 0.89), (-0.65, 0.89), (-1.05, -0.34)),
    "hexagon": ((0, -1.1), (0.95, -0.55), (0.95, 0.55), (0, 1.1), (-0.95, 0.55), (-0.95, -0.55)),
    "star": (
        (0, -1.3), (0.31, -0.42), (1.24, -0.4), (0.5, 0.16), (0.76, 1.05),
        (0, 0.52), (-0.76, 1.05), (-0.5, 0.16), (-1.24, -0.4), (-0.31, -0.42),
    ),
}  # fmt: skip


def shape_path(shape: str, x: float, y: float, size: float) -> str:
    """Write a shape as an SVG path.

    Args:
        shape: Its name; a circle if it is none of those known.
        x: Middle, pixels from the left.
        y: Middle, pixels from the top.
        size: Half its width in pixels.

    Returns:
        The path's data.
    """
    if shape not in _CORNERS:
        r = round(size, 1)
        return f"M{round(x - r, 1)} {y}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z"
    places = (f"{round(x + size * dx, 1)} {round(y + size * dy, 1)}" for dx, dy in _CORNERS[shape])
    return f"M{'L'.join(places)}Z"
