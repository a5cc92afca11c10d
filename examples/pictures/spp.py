"""SPP: the probability with which every channel of one layer is left out, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from methods.spp.probabilities import Probabilities
from methods.training.evaluation import evaluate
from search.report.palette import INK

from .canvas import canvas, draw_legend_below, label_axes, panels
from .digits import Digits, digits
from .tracks import Tracks, draw_accuracy, draw_costs, draw_units, make_tracks, watch_hook

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAYER = "layer2.0.conv1"


def watch(data: Digits, flops: float) -> Tracks:
    """Run a trial, and note the probabilities after every step.

    Args:
        data: Network, data and budget.
        flops: Share of the dense FLOPs that is left.

    Returns:
        Probabilities; 1 for removed units, 0 for the others where a layer is done.
    """
    probabilities: list[Tensor] = []
    removed: list[Tensor] = []

    def look(hook: Probabilities) -> None:
        probabilities.append(hook.probability.clone())
        removed.append(hook.standing.removed.clone())

    with watch_hook(Probabilities, look):
        outcome = data.trial("spp", {"sparsity.mode": "flops", "sparsity.flops": flops}).outcome
    return make_tracks(data, probabilities, removed, outcome)


def draw(directory: Path, overrides: Sequence[str] = (), flops: float = 0.25) -> Figure:
    """Draw the probabilities of one layer, and the course of the trial.

    Args:
        directory: The run store.
        overrides: Changes of the configuration.
        flops: Share of the dense FLOPs that is left.

    Returns:
        The figure.
    """
    data = digits("spp", directory, 40, overrides)
    found, row = watch(data, flops), data.row(LAYER)
    probabilities, removed = found.group(row, data.plan.groups[row].channels)
    figure = canvas(
        "spp: weak channels are left out ever more often, until for good; some come back in time",
        f"{data.describe(flops)}; all parameters at their defaults",
    )
    axes, *small = panels(figure)
    draw_units(axes, 100 * probabilities, removed, 100)
    axes.axhline(100, color=INK, linewidth=1.4, label="certain: removed for good")
    axes.set_xlim(0, found.steps)
    axes.set_ylim(0, 104)
    label_axes(
        axes, "optimiser step", "probability of being left out of a step, %", f"Each line is a channel of {LAYER}"
    )
    draw_legend_below(axes)
    costs, accuracy = small
    draw_costs(costs, found)
    draw_accuracy(accuracy, found, evaluate(data.setting.model, data.setting.validation).accuracy)
    return figure
