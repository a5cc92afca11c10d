"""One colour and one shape per method: either alone tells methods apart, also to the colour-blind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from methods import METHODS

# Okabe and Ito (2008); wine stands for their yellow, which is lost on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255")
COLOURS_ON_DARK = ("#56A8E0", "#FF8A3D", "#2FCB9B", "#E3A0C6", "#F5B83D", "#8FD0F7", "#E5E7EB", "#D977A8")
"""The same colours, bright enough for a dark page."""
# Matplotlib's marker beside the name of the shape. One more than there are colours: 72 pairs before one repeats.
_SHAPES = (
    ("o", "circle"),
    ("s", "square"),
    ("^", "triangle-up"),
    ("D", "diamond"),
    ("v", "triangle-down"),
    ("P", "cross"),
    ("X", "x"),
    ("p", "pentagon"),
    ("h", "hexagon"),
)

INK = "#22272E"
"""Titles and labels."""
MUTED = "#6B7280"
"""Texts of second rank."""
RULE = "#E5E7EB"
"""Grid lines."""
DENSE = "#22272E"
"""The dense network."""


@dataclass(frozen=True)
class Style:
    """How a method looks.

    Attributes:
        colour: Colour as ``#RRGGBB``.
        marker: Marker in matplotlib's words.
        symbol: The same shape by name, for pictures that are drawn here.
        place: Number of the colour in the palette: pages have it twice, for light and for dark.
    """

    colour: str
    marker: str
    symbol: str
    place: int


def shade_hex(share: float) -> str:
    """Choose a colour between good and poor, told apart also by the colour-blind and on light and dark.

    Args:
        share: 0 for the best, 1 for the worst.

    Returns:
        A colour as ``#RRGGBB``.

    Example:
        >>> shade_hex(0.0), shade_hex(0.5), shade_hex(1.0)
        ('#7e57e0', '#268c96', '#fdd625')
    """
    ends = ((38, 140, 150), (253, 214, 37)) if share > 0.5 else ((126, 87, 224), (38, 140, 150))
    part = 2 * share - 1 if share > 0.5 else 2 * share
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(*ends, strict=True))


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """Give each method its look; a method of ours looks the same in the pictures of all studies.

    Args:
        methods: Names; order and repetitions do not matter.

    Returns:
        A style per name, in alphabetical order.
    """
    names = sorted(set(methods))
    ours = sorted(METHODS)
    places = {name: place for place, name in enumerate([*ours, *(name for name in names if name not in METHODS)])}
    return {name: _style(places[name]) for name in names}


def _style(place: int) -> Style:
    return Style(COLOURS[place % len(COLOURS)], *_SHAPES[place % len(_SHAPES)], place % len(COLOURS))
