"""Pictures: a front as a still picture, what is left of each group of channels, and writing them to files.

Figures are made without pyplot's global state. Matplotlib is imported by the functions that draw.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.fronts.front import Front
from search.report.labels import label_front
from search.report.page import EMPTY, front_html
from search.report.palette import DENSE, INK, MUTED, RULE, Style, shade_hex, styles
from search.report.plane import Dot, Plane, planes
from search.report.progress import numbers
from search.store.files import replace_file
from spaces import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from search.fronts.confirmation import Confirmation
    from search.objectives import Objective
    from search.records.outcome import Outcome

__all__ = ["confirmation_figure", "front_figure", "front_html", "save", "save_front", "widths_figure"]

_STILL = (".png", ".svg", ".pdf")
_DPI = 160  # a figure of 10 x 6.5 inches becomes 1600 x 1040 pixels: sharp on any screen
_LONGEST = 60  # letters of a study's name that fit above a figure


def front_figure(front: Front) -> Figure:
    """Draw quality against cost: the front as stairs, the trials behind it, the dense network.

    Colour and shape tell the method. Members of the front carry the number of their trial (and of those that tie with
    it), and the knee is ringed. Of three objectives the third one is the colour of the first panel. Dominated trials
    far below the front are marked at the lower edge, and counted.

    Args:
        front: The front.

    Returns:
        The figure, 10 x 6.5 inches for each pair of objectives: one panel beside the other.
    """
    panels = planes(front)
    figure = _canvas(10 * len(panels), 6.5)
    looks = styles(outcome.method for outcome in front.outcomes)
    drawn = [(figure.add_subplot(1, len(panels), place + 1), shown) for place, shown in enumerate(panels)]
    for axes, shown in drawn:
        _panel(axes, shown, front, looks)
    _legend(figure, looks, ringed=any(_knee(shown, front) for shown in panels))
    _headline(figure, [axes for axes, _ in drawn], front)
    # Labels are placed in pixels, so the layout must be settled before and stay as it is after.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, shown in drawn:
        label_front(axes, shown, _knee(shown, front))
    return figure


def _panel(axes: Axes, shown: Plane, front: Front, looks: Mapping[str, Style]) -> None:
    """Draw one objective against another.

    Args:
        axes: Where to draw.
        shown: The picture's content.
        front: The front.
        looks: Style of each method.
    """
    _frame(axes, shown)
    _draw_stairs(axes, shown)
    _draw_dots(axes, shown, looks)
    _draw_dense(axes, shown)
    _draw_below(axes, shown, looks)
    for dot in _knee(shown, front):
        axes.scatter([dot.x], [dot.y], s=330, facecolors="none", edgecolors=INK, linewidths=1.6, zorder=4)
    if not shown.dots:
        axes.text(0.5, 0.4, EMPTY, transform=axes.transAxes, ha="center", color=MUTED, fontsize=12)


def _canvas(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from search.report.inline import InlineFigure

    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12)
    figure = InlineFigure(figsize=(width, height), dpi=100, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _frame(axes: Axes, shown: Plane) -> None:
    """Set up the axes: cost below (absolute above, where it is told as shares), quality on the left.

    Args:
        axes: Where to draw.
        shown: The picture's content.
    """
    axes.set_xlim(shown.across.low, shown.across.high)
    axes.set_ylim(shown.up.low, shown.up.high)
    axes.set_xlabel(shown.across.title, color=INK, fontsize=11, labelpad=8, parse_math=False)
    axes.set_ylabel(shown.up.title, color=INK, fontsize=11, labelpad=8, parse_math=False)
    for axis, ticks in ((axes.xaxis, shown.across.ticks(10)), (axes.yaxis, shown.up.ticks(8))):
        axis.set_ticks([place for place, _ in ticks], [text for _, text in ticks])
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=10, length=0, pad=6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)
    if absolute := shown.across.absolute_ticks(8):
        second = axes.secondary_xaxis("top")
        second.set_xlabel(shown.across.objective.title, color=MUTED, fontsize=9.5, labelpad=5)
        second.set_xticks([place for place, _ in absolute], [text for _, text in absolute])
        second.tick_params(colors=MUTED, labelsize=9, length=3, color=RULE)
        second.spines["top"].set_color(RULE)


def _draw_stairs(axes: Axes, shown: Plane) -> None:
    if not shown.stairs:
        return
    x = [dot.x for dot in shown.stairs] + [shown.across.high]
    y = [dot.y for dot in shown.stairs] + [shown.stairs[-1].y]
    axes.fill_between(x, y, shown.up.low, step="post", color=INK, alpha=0.05, linewidth=0, zorder=1)
    # The first riser starts at the lower edge: left of it nothing was found.
    axes.step([x[0], *x], [shown.up.low, *y], where="post", color=MUTED, linewidth=1.6, zorder=2)


def _draw_dots(axes: Axes, shown: Plane, looks: Mapping[str, Style]) -> None:
    large = 95 if len(shown.front) <= 12 else 60
    small, faint = (44, 0.38) if len(shown.dominated) <= 200 else (20, 0.25)
    for dots, size, alpha, layer in ((shown.dominated, small, faint, 3), (shown.front, large, 1.0, 5)):
        for method, look in looks.items():
            mine = [dot for dot in dots if dot.member.method == method]
            shades = [shade_hex(shown.shade(dot.member)) for dot in mine]
            axes.scatter(
                [dot.x for dot in mine],
                [dot.y for dot in mine],
                s=size,
                marker=look.marker,
                color=look.colour if shown.third is None else shades,
                alpha=alpha,
                edgecolors="white" if alpha == 1 else "none",
                linewidths=1.2,
                zorder=layer,
            )
    for dot in shown.front:
        for distance, tie in enumerate(dot.ties, 1):
            look, wider = looks[tie.method], large * (1 + 1.3 * distance)
            edge: dict[str, Any] = {"facecolors": "none", "edgecolors": look.colour, "linewidths": 1.6}
            axes.scatter([dot.x], [dot.y], s=wider, marker=look.marker, zorder=4.8, **edge)
    if shown.third is not None and shown.dots:
        _write_shades(axes, shown, shown.third)


def _write_shades(axes: Axes, shown: Plane, third: Objective) -> None:
    """Say which colour is which value of the third objective."""
    values = sorted((dot.member.metrics[third.name] for dot in shown.dots), reverse=third.maximise)
    for place in range(40):
        box = {"transform": axes.transAxes, "color": shade_hex(place / 39), "zorder": 6, "linewidth": 0}
        axes.add_patch(_rectangle((0.70 + 0.004 * place, 0.055), 0.0042, 0.02, box))
    words: dict[str, Any] = {"transform": axes.transAxes, "color": MUTED, "fontsize": 9, "va": "center", "zorder": 7}
    axes.text(0.695, 0.065, third.format(values[0]), ha="right", **words)
    axes.text(0.865, 0.065, third.format(values[-1]), ha="left", **words)
    axes.text(0.78, 0.1, third.title, ha="center", **words)


def _rectangle(corner: tuple[float, float], width: float, height: float, look: dict[str, Any]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, **look)


def _draw_dense(axes: Axes, shown: Plane) -> None:
    across, up = shown.dense
    if up is None:
        return
    axes.axhline(up, color=DENSE, linewidth=1, linestyle=(0, (2, 3)), zorder=1.5)
    if across is not None:
        star: dict[str, Any] = {
            "s": 300,
            "marker": "*",
            "color": DENSE,
            "edgecolors": "white",
            "linewidths": 1.2,
            "zorder": 6,
        }
        axes.scatter([across], [up], **star)
    # On the left, where the front is below it; a white halo keeps it legible on the line.
    axes.annotate(
        shown.dense_text,
        (0, up),
        xycoords=("axes fraction", "data"),
        xytext=(8, 5),
        textcoords="offset points",
        color=DENSE,
        fontsize=9.5,
        zorder=7,
    )


def _draw_below(axes: Axes, shown: Plane, looks: Mapping[str, Style]) -> None:
    if not shown.below:
        return
    for dot in shown.below:
        colour = looks[dot.member.method].colour
        edge = axes.get_xaxis_transform()
        axes.scatter([dot.x], [0.022], s=48, marker=11, color=colour, alpha=0.55, transform=edge, zorder=4)
    axes.annotate(
        f"▾ {shown.told_below}",
        (1, 0),
        xycoords="axes fraction",
        xytext=(-8, 16),
        textcoords="offset points",
        ha="right",
        color=MUTED,
        fontsize=9.5,
        zorder=7,
    )


def _knee(shown: Plane, front: Front) -> list[Dot]:
    # The knee, when there is one.
    knee = front.knee().trial if shown.front else None
    return [dot for dot in shown.front if dot.member.trial == knee]


def _legend(figure: Figure, looks: Mapping[str, Style], ringed: bool) -> None:
    from matplotlib.lines import Line2D

    def mark(label: str, **look: Any) -> Line2D:
        return Line2D([], [], label=label, **{"linestyle": "none", "markeredgewidth": 0, **look})

    marks = [mark(name, marker=look.marker, color=look.colour, markersize=9) for name, look in looks.items()]
    marks.append(mark("dominated", marker="o", color=MUTED, alpha=0.35, markersize=7))
    marks.append(mark("Pareto front", color=MUTED, linestyle="-", linewidth=1.8))
    if ringed:
        knee = {"markeredgecolor": INK, "markeredgewidth": 1.5, "markerfacecolor": "none"}
        marks.append(mark("knee", marker="o", markersize=12, **knee))
    marks.append(mark("dense network", marker="*", color=DENSE, markersize=14))
    figure.legend(
        handles=marks,
        loc="outside lower center",
        ncols=min(len(marks), 7),
        frameon=False,
        fontsize=10,
        labelcolor=INK,
        handletextpad=0.4,
        columnspacing=1.6,
    )


def _headline(figure: Figure, panels: Sequence[Axes], front: Front) -> None:
    name = front.study if len(front.study) <= _LONGEST else front.study[: _LONGEST - 1] + "…"
    # Names are no formulas: a dollar sign in them is a dollar sign.
    panels[0].set_title(name, loc="left", fontsize=17, fontweight="bold", color=INK, pad=16, parse_math=False)
    told = f"hypervolume {front.hypervolume():.4f}\n{len(front.members)} of {len(front.outcomes)} trials on the front"
    panels[-1].set_title(told, loc="right", fontsize=10, color=MUTED, pad=16, linespacing=1.4)


def confirmation_figure(confirmation: Confirmation) -> Figure:
    """Draw what fronts of further seeds reach: the band between all seeds and any of them, and the reruns themselves.

    Args:
        confirmation: A confirmed front; of several costs the first is drawn.

    Returns:
        The figure, 10 x 6.5 inches.

    Raises:
        InputError: If fewer than two seeds measured every objective.
    """
    bands = confirmation.attainment()
    if not bands:
        raise InputError("a band over seeds needs two seeds or more that measured every objective")
    front = confirmation.front
    quality = next(objective for objective in front.objectives if objective.quality)
    runs = [(each, run) for each in confirmation.members for run in each.complete.values()]
    known = [outcome for _, outcome in runs if not outcome.list_missing([quality.name, front.cost.name])]
    figure = _canvas(10, 6.5)
    axes = figure.add_subplot()
    values = [outcome.metrics[quality.name] for outcome in known]
    costs = [outcome.metrics[front.cost.name] for outcome in known]
    room, width = 0.08 * (max(values) - min(values) or 1.0), 0.08 * (max(costs) - min(costs) or 1.0)
    right = max(costs) + width
    floor, ceiling = min(values) - room, max(values) + room
    worst, better = (floor, max) if quality.maximise else (ceiling, min)

    def stairs(name: str) -> tuple[list[float], list[float]]:
        points = sorted((point[front.cost.name], point[quality.name]) for point in bands[name])
        # With a third objective a dearer point may be worse in quality: the stairs never turn back.
        x, y = [cost for cost, _ in points], list(accumulate((value for _, value in points), better))
        return [x[0], *x, right], [worst, *y, y[-1]]

    edges = {name: stairs(name) for name in bands}
    grid = sorted({*costs, *(cost for x, _ in edges.values() for cost in x)})
    low, high = ([_stair_at(edges[name], place, worst) for place in grid] for name in ("all", "any"))
    axes.fill_between(
        grid, low, high, step="post", color=INK, alpha=0.12, linewidth=0, label="between all and any seed"
    )
    axes.step(*edges["half"], where="post", color=INK, linewidth=1.8, label="half of the seeds")
    looks = styles(each.member.method for each in confirmation.members)
    for method, look in looks.items():
        mine = [run for each, run in runs if each.member.method == method and run in known]
        axes.scatter(
            [run.metrics[front.cost.name] for run in mine],
            [run.metrics[quality.name] for run in mine],
            s=36,
            color=look.colour,
            marker=look.marker,
            label=f"{method}, reruns",
            zorder=3,
        )
    axes.set_xlim(min(costs) - width, right)
    axes.set_ylim(floor, ceiling)
    axes.set_xlabel(front.cost.title, color=INK, fontsize=11, parse_math=False)
    axes.set_ylabel(quality.title, color=INK, fontsize=11, parse_math=False)
    axes.xaxis.set_major_formatter(lambda value, _: front.cost.format(value))
    axes.yaxis.set_major_formatter(lambda value, _: quality.format(value))
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, loc="best", fontsize=10)
    name = front.study if len(front.study) <= _LONGEST else f"{front.study[:_LONGEST]}..."
    axes.set_title(
        f"{name} over {confirmation.seeds} further seeds", loc="left", color=INK, fontsize=13, parse_math=False
    )
    return figure


def _stair_at(stairs: tuple[list[float], list[float]], place: float, before: float) -> float:
    """Read a staircase: the last step at or left of a place, and a value before the first."""
    found = before
    for x, y in zip(*stairs, strict=True):
        if x > place:
            break
        found = y
    return found


def widths_figure(outcome: Outcome, objectives: Sequence[Objective] = ()) -> Figure:
    """Draw what is left of each group of channels, the first layer on top.

    Args:
        outcome: A complete outcome.
        objectives: What its study searches for; accuracy and FLOPs are told where that is not known.

    Returns:
        The figure; its height grows with the number of groups.
    """
    names = list(outcome.widths)
    figure = _canvas(10, min(1.9 + 0.3 * len(names), 60))
    axes = figure.add_subplot()
    kept = [pair[0] for pair in outcome.widths.values()]
    whole = [pair[1] for pair in outcome.widths.values()]
    rows = range(len(names))
    axes.barh(rows, whole, height=0.72, color=RULE)
    axes.barh(rows, kept, height=0.72, color=styles(["kept"])["kept"].colour)
    largest = max(whole, default=1)
    for row in rows:
        share = f"{kept[row]} of {whole[row]}"
        axes.text(whole[row] + 0.012 * largest, row, share, va="center", fontsize=9.5, color=INK)
    axes.set_yticks(rows, names, fontsize=9.5, color=INK, parse_math=False)
    axes.set_xticks([])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.12 * largest)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    title = f"Trial {outcome.number} · {outcome.method}"
    axes.set_title(title, loc="left", fontsize=14, fontweight="bold", color=INK, pad=12, parse_math=False)
    told = ", ".join(f"{heading} {text}" for heading, text in numbers(outcome, None, objectives)) + " · "
    told += f"all {sum(whole)} channels kept" if kept == whole else f"{sum(kept)} of {sum(whole)} channels kept"
    axes.set_title(told, loc="right", fontsize=10, color=MUTED, pad=12)
    return figure


def save_front(front: Front, path: str | os.PathLike[str]) -> Path:
    """Write a picture of a front, in the form that the suffix says.

    Args:
        front: The front.
        path: Where to; ``.html`` is interactive, ``.png``, ``.svg`` and ``.pdf`` are still.

    Returns:
        The path.
    """
    suffix = _suffix(Path(path), (".html", *_STILL))
    return save(front_html(front), path) if suffix == ".html" else save_and_clear(front_figure(front), path)


def check_still(path: str | os.PathLike[str]) -> None:
    """Refuse a name under which no still picture can be written, before anything is computed for it.

    Args:
        path: Where to; any suffix but ``.png``, ``.svg`` and ``.pdf`` is an ``InputError``.
    """
    _suffix(Path(path), _STILL)


def save(picture: Figure | str, path: str | os.PathLike[str]) -> Path:
    """Write a picture so that the file is always whole: beside its place first, then moved there.

    Args:
        picture: A figure, or a page as text.
        path: Where to: ``.png``, ``.svg`` or ``.pdf`` for a figure, ``.html`` for a page. Any other suffix is
            an ``InputError``; folders are made as needed.

    Returns:
        The path.
    """
    target = Path(path)
    suffix = _suffix(target, (".html",) if isinstance(picture, str) else _STILL)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(target) as fresh:
        if isinstance(picture, str):
            fresh.write_text(picture, encoding="utf-8")
        else:
            _write_figure(picture, fresh, suffix.removeprefix("."))
    return target


def save_and_clear(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a picture that is needed no more, and give its memory back at once.

    A figure is a ring of objects, whose 5 MB wait for the collector, which in a large process seldom comes.

    Args:
        figure: The figure, empty afterwards.
        path: Where to, as for :func:`save`.

    Returns:
        The path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    saved = save(figure, path)
    figure.clear()
    FigureCanvasAgg(figure)  # in place of the one that holds the pixels
    return saved


def _write_figure(figure: Figure, path: Path, kind: str) -> None:
    import matplotlib

    # Neither dates nor random identifiers: the same figure gives the same file.
    unstamped: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "svg": {"Date": None},
        "pdf": {"CreationDate": None},
    }
    with matplotlib.rc_context({"svg.hashsalt": "paretoprune"}):
        figure.savefig(path, format=kind, dpi=_DPI, metadata=unstamped[kind])


def _suffix(path: Path, allowed: Sequence[str]) -> str:
    # The suffix in lower case, once it is known to be one that can be written.
    suffix = path.suffix.lower()
    if suffix not in allowed:
        raise InputError(f"cannot write a picture to {str(path)!r}: its name must end in {' or '.join(allowed)}")
    return suffix
