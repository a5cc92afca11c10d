"""The way between two networks as a picture: training loss along a line and along a curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from search.report.palette import INK, MUTED, RULE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]
"""Positions on the way, from 0 to 1, with the training loss there."""

_WAYS = {
    "line": ("straight line", "#0072B2", (0, (4, 2))),
    "curve": ("trained Bézier curve", "#D55E00", "solid"),
}
_STEEP = 30.0  # from this quotient of largest and smallest loss on, the axis is logarithmic
_TINY = 1e-6  # what is drawn of a loss of zero on a logarithmic axis


def valley_figure(profiles: Mapping[str, Points], title: str, ends: tuple[str, str]) -> Figure:
    """Draw the training loss on the ways between two networks.

    Both networks are marked, and a dotted line lies at the larger of their losses: what rises above it is a
    barrier. The legend says how high it is.

    Args:
        profiles: Points of the ways, ``line`` and ``curve``; at least one of them, each with two points or more.
        title: What is compared.
        ends: What the networks are called, where a way begins and where it ends.

    Returns:
        The figure, 10 x 6 inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from search.report.inline import InlineFigure

    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12)
    figure = InlineFigure(figsize=(10, 6), dpi=100, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    drawn = {name: list(profiles[name]) for name in _WAYS if name in profiles}
    losses = [loss for points in drawn.values() for _, loss in points]
    logarithmic = max(losses) > _STEEP * max(min(losses), _TINY)
    _frame(axes, ends, logarithmic)
    for name, points in drawn.items():
        _draw_way(axes, name, points)
    _draw_ends(axes, next(iter(drawn.values())))
    if not logarithmic:
        axes.set_ylim(0, 1.12 * max([*losses, _TINY]))
    axes.legend(loc="best", frameon=False, fontsize=10, labelcolor=INK)
    # Names are no formulas: a dollar sign in them is a dollar sign.
    axes.set_title(title, loc="left", fontsize=14, fontweight="bold", color=INK, pad=12, parse_math=False)
    return figure


def barrier(points: Points) -> float:
    """Return how far the largest loss lies above the larger end.

    Args:
        points: The way.

    Returns:
        The height; 0 if nothing rises.
    """
    losses = [loss for _, loss in points]
    return max(losses) - max(losses[0], losses[-1])


def _frame(axes: Axes, ends: tuple[str, str], logarithmic: bool) -> None:
    if logarithmic:
        axes.set_yscale("log")
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], [f"0\n{ends[0]}", "0.25", "0.5", "0.75", f"1\n{ends[1]}"])
    for label in axes.get_xticklabels():
        label.set_parse_math(False)
    axes.set_xlabel("position on the way", color=INK, fontsize=11, labelpad=4)
    axes.set_ylabel("training loss", color=INK, fontsize=11, labelpad=8)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=10, length=0, pad=6, which="both")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)


def _draw_way(axes: Axes, name: str, points: Points) -> None:
    label, colour, dashes = _WAYS[name]
    x = [position for position, _ in points]
    y = [max(loss, _TINY) for _, loss in points]
    rise = barrier(points)
    told = f"{label}: barrier {rise:.2g}" if rise > 0 else f"{label}: no barrier"
    axes.plot(x, y, color=colour, linestyle=dashes, linewidth=2, label=told, zorder=3)


def _draw_ends(axes: Axes, points: Points) -> None:
    first, last = points[0], points[-1]
    level = max(first[1], last[1], _TINY)
    axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (2, 3)), label="larger end", zorder=2)
    x, y = [first[0], last[0]], [max(first[1], _TINY), max(last[1], _TINY)]
    axes.scatter(x, y, s=80, color=INK, edgecolors="white", linewidths=1.2, zorder=4)
