"""Figures that look like those of the reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from search.report.palette import INK, MUTED, RULE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Where = Literal["best", "upper left", "lower right"]
"""Places of a legend, in matplotlib's words."""

GONE = "#D55E00"
"""What is removed."""
KEPT = "#0072B2"
"""What stays."""
THIRD = "#009E73"
"""What is neither."""


def canvas(title: str, told: str, width: float = 12.0, height: float = 5.4) -> Figure:
    """Make an empty figure with a title.

    Args:
        title: What is seen, in one sentence.
        told: What was run.
        width: Inches.
        height: Inches.

    Returns:
        The figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # The upper part is left to the title and what was run, which have a line each.
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.04, hspace=0.06, rect=(0, 0, 1, 1 - 0.72 / height))
    figure = Figure(figsize=(width, height), dpi=100, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    left = 0.16 / width
    figure.text(left, 1 - 0.15 / height, title, fontsize=14.5, fontweight="bold", color=INK, va="top")
    figure.text(left, 1 - 0.5 / height, told, fontsize=10.5, color=MUTED, va="top")
    return figure


def panels(figure: Figure) -> tuple[Axes, Axes, Axes]:
    """Divide a figure.

    Args:
        figure: Which one.

    Returns:
        A large part on the left, and two small ones on the right, above each other, that share what goes to the right.
    """
    grid = figure.add_gridspec(2, 2, width_ratios=(1.6, 1))
    large, above = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1])
    below = figure.add_subplot(grid[1, 1], sharex=above)
    above.tick_params(labelbottom=False)
    return large, above, below


def label_axes(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Name the axes, and draw a quiet grid.

    Args:
        axes: Which ones.
        x: What goes to the right, with its unit.
        y: What goes up, with its unit.
        title: What this part shows.
    """
    axes.set_xlabel(x, color=INK, fontsize=11)
    axes.set_ylabel(y, color=INK, fontsize=11)
    axes.set_title(title, loc="left", fontsize=12, color=INK, pad=8)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=10, length=0, pad=5, which="both")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)


def draw_mark(axes: Axes, step: float, name: str, *, height: float = 0.97, right: bool = True) -> None:
    """Draw a vertical line where something happens.

    Args:
        axes: Where to draw.
        step: When.
        name: What.
        height: Of the name, as a share of the axes.
        right: Whether the name stands on the right of the line.
    """
    axes.axvline(step, color=MUTED, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
    axes.annotate(
        name,
        (step, height),
        xycoords=("data", "axes fraction"),
        xytext=(5 if right else -5, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="top",
        fontsize=10,
        color=MUTED,
    )


def draw_legend(axes: Axes, where: Where = "best") -> None:
    """Draw the legend.

    Args:
        axes: Of which.
        where: Where.
    """
    axes.legend(loc=where, frameon=False, fontsize=10, labelcolor=INK)


def draw_legend_below(axes: Axes, columns: int = 3) -> None:
    """Draw the legend in one line below, where there is no room between lines.

    Args:
        axes: Of which.
        columns: How many entries stand beside each other.
    """
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.48, -0.12),
        ncols=columns,
        frameon=False,
        fontsize=10,
        labelcolor=INK,
        handlelength=1.4,
        handletextpad=0.5,
        columnspacing=1.3,
    )
