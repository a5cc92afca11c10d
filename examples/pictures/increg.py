"""IncReg: the penalty of every channel of one layer, and what is left of the channel, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.increg.penalties import Penalties
from search.report.palette import INK
from spaces import Value

from .canvas import GONE, canvas, draw_legend_below, draw_mark, label_axes, panels
from .digits import Digits, digits
from .tracks import FAINT, Tracks, draw_costs, draw_units, make_tracks, watch_hook

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAYER = "layer2.0.conv1"
CEILING = 2.5
"""The authors' ``penalty_max``, in units of weight decay."""


def watch(data: Digits, flops: float) -> tuple[Tracks, Tensor]:
    """Run a trial, and note penalties and norms after every step.

    Args:
        data: Network, data and budget.
        flops: Share of the dense FLOPs that is left.

    Returns:
        Penalties, in units of weight decay (0 for removed units and where a layer is done); and L1 norms of the
        filters of all units, ``[steps, groups, widest]``.
    """
    penalties: list[Tensor] = []
    removed: list[Tensor] = []
    norms: list[Tensor] = []

    def look(hook: Penalties) -> None:
        penalties.append(hook.standing.penalty.clone())
        removed.append(hook.standing.removed.clone())
        norms.append(hook.units.table.l1())

    with watch_hook(Penalties, look):
        point: dict[str, Value] = {"sparsity.mode": "flops", "sparsity.flops": flops, "penalty_max": CEILING}
        outcome = data.trial("increg", point).outcome
    return make_tracks(data, penalties, removed, outcome), torch.stack(norms)


def draw_norms(axes: Axes, norms: Tensor, removed: Tensor) -> None:
    """Draw what is left of every channel that goes, up to the step in which it does.

    Args:
        axes: Where to draw.
        norms: L1 norms, ``[steps, units]``.
        removed: Which channels are gone, ``[steps, units]``.
    """
    steps, ends = torch.arange(1, len(norms) + 1), removed.long().argmax(0).tolist()
    for unit in removed[-1].nonzero().flatten().tolist():
        end = ends[unit]  # the step that takes it away leaves zero
        left = 100 * norms[:end, unit] / norms[0, unit]
        axes.plot(steps[:end], left, color=GONE, linewidth=FAINT, alpha=0.75)
        axes.scatter([end], [left[-1]], s=22, color=GONE, zorder=4)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    label_axes(axes, "", "L1 norm left, %", "What is left of the channels that go")
    draw_mark(axes, len(norms), "")


def draw(directory: Path, overrides: Sequence[str] = (), flops: float = 0.25) -> Figure:
    """Draw the penalties of one layer, what they leave of the channels, and the course of the trial.

    Args:
        directory: The run store.
        overrides: Changes of the configuration.
        flops: Share of the dense FLOPs that is left.

    Returns:
        The figure.
    """
    data = digits("increg", directory, 40, overrides)
    (found, norms), row = watch(data, flops), data.row(LAYER)
    units = data.plan.groups[row].channels
    penalties, removed = found.group(row, units)
    accuracy = 100 * found.outcome.metrics["accuracy"]
    figure = canvas(
        "increg: growing penalties squeeze weak channels to almost nothing before they go",
        f"{data.describe(flops)}, {accuracy:.1f} % on validation; all parameters at their defaults",
    )
    axes, *small = panels(figure)
    draw_units(axes, penalties, removed, CEILING)
    axes.axhline(CEILING, color=INK, linewidth=1.4, label="ceiling: removed for good")
    axes.set_xlim(0, found.steps)
    axes.set_ylim(-0.01 * CEILING, 1.04 * CEILING)
    label_axes(axes, "optimiser step", "penalty, in units of weight decay", f"Each line is a channel of {LAYER}")
    draw_legend_below(axes)
    left_over, costs = small
    draw_norms(left_over, norms[:, row, :units], removed)
    draw_costs(costs, found, "optimiser step")
    return figure
