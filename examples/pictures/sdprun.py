"""SDprun: the threshold that rises through the lengths of the channels of one layer, and the valley they stay in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from methods.sdprun.dual_averaging import GroupDualAveraging
from search.records.outcome import Outcome
from search.report.palette import INK, MUTED
from search.report.valley import barrier

from .canvas import GONE, KEPT, THIRD, canvas, draw_legend, label_axes
from .digits import Digits, digits
from .tracks import FAINT, STRONG

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAYER = "layer2.0.conv1"


@dataclass(frozen=True)
class Shrinking:
    """What group dual averaging knows of the units of one layer.

    Attributes:
        ratios: Threshold at which each unit would vanish: its length before it is shrunk, in units of ``kappa``, after
            each step up to the cut, ``[steps, units]``.
        factors: What shrinking leaves of it, ``[steps, units]``.
        kept: Units that are left in the end.
        outcome: Of the trial.
    """

    ratios: Tensor
    factors: Tensor
    kept: frozenset[int]
    outcome: Outcome

    @property
    def thresholds(self) -> Tensor:
        """What is taken from every unit that is not zero, in units of ``kappa``, ``[steps]``."""
        taken = (1 - self.factors) * self.ratios
        return taken.masked_fill(self.factors == 0, torch.nan).nanmedian(1).values


def watch(data: Digits, row: int, flops: float, valley: bool = True) -> Shrinking:
    """Run a trial, and note ratios and factors after every step.

    Args:
        data: Network, data and budget.
        row: Of the channel group.
        flops: Share of the dense FLOPs that is left.
        valley: Whether the way from the network without pruning is measured.

    Returns:
        What was seen before the zeros were taken away; the valley is in the outcome's profiles.
    """
    ratios: list[Tensor] = []
    factors: list[Tensor] = []
    units = data.plan.groups[row].channels

    def look(optimizer: Optimizer, *_: Any) -> None:
        if isinstance(optimizer, GroupDualAveraging):
            ratios.append(optimizer.ratios()[row, :units])
            factors.append(optimizer.factors[row, :units].clone())

    handle = register_optimizer_step_post_hook(look)
    try:
        finished = data.trial("sdprun", {"steer": "flops", "target_flops": flops, "valley_check": valley})
    finally:
        handle.remove()
    # What follows is the smaller network, and the twin that is trained without pruning, for the valley.
    until, kept = int(finished.outcome.extra["cut_step"]), finished.kept[data.plan.groups[row].name]
    return Shrinking(torch.stack(ratios[:until]), torch.stack(factors[:until]), frozenset(kept), finished.outcome)


def draw_ratios(axes: Axes, found: Shrinking) -> None:
    """Draw the threshold among the lengths; what lies below it is zero in the network.

    Args:
        axes: Where to draw.
        found: What was seen.
    """
    steps = torch.arange(1, len(found.ratios) + 1)
    zero = found.factors == 0
    for unit in range(found.ratios.shape[1]):
        kept = unit in found.kept
        colour, layer = (KEPT, 3) if kept else (GONE, 2)
        for below, alpha in ((False, 0.9), (True, 0.25)):
            part = found.ratios[:, unit].masked_fill(zero[:, unit] != below, torch.nan)
            axes.plot(steps, part, color=colour, linewidth=FAINT, alpha=alpha, zorder=layer)
    for colour, count, fate in ((KEPT, len(found.kept), "stay"), (GONE, zero.shape[1] - len(found.kept), "vanish")):
        axes.plot([], [], color=colour, linewidth=STRONG, label=f"{count} channels that {fate}")
    axes.plot(
        steps,
        found.thresholds,
        color=INK,
        linewidth=2.2,
        label="threshold: the network is shown what lies above",
        zorder=4,
    )
    axes.set_xlim(0, len(steps))
    axes.set_ylim(0, 1.3 * float(found.ratios.max()))
    label_axes(axes, "optimiser step", "length of a channel, in units of kappa", f"Each line is a channel of {LAYER}")
    draw_legend(axes, "upper left")


def draw_valley(axes: Axes, outcome: Outcome) -> None:
    """Draw the training loss on the ways from the network that was trained without pruning.

    Args:
        axes: Where to draw.
        outcome: Of the trial.
    """
    ways = (("line", "straight line", MUTED, (0, (4, 2))), ("curve", "trained Bézier curve", THIRD, "solid"))
    for name, told, colour, dashes in ways:
        points = outcome.profiles[name]
        x, y = [position for position, _ in points], [loss for _, loss in points]
        label = f"{told}: barrier {barrier(points):.2g}" if barrier(points) > 0 else f"{told}: no barrier"
        axes.plot(x, y, color=colour, linestyle=dashes, linewidth=STRONG, label=label, clip_on=False)
    line = outcome.profiles["line"]
    axes.scatter([0, 1], [line[0][1], line[-1][1]], s=70, color=INK, edgecolors="white", zorder=4, clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xticks([0, 0.5, 1], ["not pruned", "half way", "pruned"], ha="center")
    axes.yaxis.set_major_formatter("{x:g}")
    label_axes(axes, "way between the networks", "training loss (cross-entropy)", "Both networks in one valley?")
    draw_legend(axes)


def draw(directory: Path, overrides: Sequence[str] = (), flops: float = 0.25) -> Figure:
    """Draw the threshold rising through the lengths of the channels of one layer, and the valley.

    Args:
        directory: The run store.
        overrides: Changes of the configuration.
        flops: Share of the dense FLOPs that is left.

    Returns:
        The figure.
    """
    data = digits("sdprun", directory, 40, overrides)
    found = watch(data, data.row(LAYER), flops)
    accuracy = 100 * found.outcome.metrics["accuracy"]
    figure = canvas(
        "sdprun: a rising threshold is taken from the length of every channel; those that it overtakes vanish",
        f"{data.describe(flops)}, {accuracy:.1f} % on validation; all parameters at their defaults",
    )
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1.45, 1)})
    draw_ratios(left, found)
    draw_valley(right, found.outcome)
    return figure
