"""What a method that prunes while it trains knows of every unit, step by step: watched in a real trial, and drawn."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from unittest.mock import patch

import torch
from torch import Tensor

from methods.training.trainer import Hook
from search.records.outcome import Outcome
from search.report.palette import INK

from .canvas import GONE, KEPT, draw_legend, draw_mark, label_axes
from .digits import Digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

H = TypeVar("H", bound=Hook)

FAINT, STRONG = 1.1, 1.9
"""Widths of lines."""


@contextmanager
def watch_hook(kind: type[H], look: Callable[[H], None]) -> Generator[None]:
    """Look at a hook after every step of training.

    A trial makes its hooks by itself, so it is their class that is told, for a while, to call us.

    Args:
        kind: Class of the hook.
        look: Called with the hook.

    Yields:
        Nothing.
    """
    after = kind.after_step

    def after_step(hook: H, step: int) -> None:
        after(hook, step)
        look(hook)

    with patch.object(kind, "after_step", after_step):
        yield


@dataclass(frozen=True)
class Tracks:
    """Numbers of all units over the steps of pruning, and what became of the network.

    Attributes:
        values: One number per unit, after each step, ``[steps, groups, widest]``.
        removed: Which units are gone, ``[steps, groups, widest]``.
        flops: Share of the dense FLOPs if the network were cut after each step, ``[steps]``.
        outcome: Of the trial.
    """

    values: Tensor
    removed: Tensor
    flops: tuple[float, ...]
    outcome: Outcome

    @property
    def steps(self) -> int:
        """How many steps pruning took."""
        return len(self.values)

    def group(self, row: int, units: int) -> tuple[Tensor, Tensor]:
        """Take out one channel group.

        Args:
            row: Its row.
            units: How many units it has.

        Returns:
            Values and what is removed, ``[steps, units]``.
        """
        return self.values[:, row, :units], self.removed[:, row, :units]


def make_tracks(data: Digits, values: list[Tensor], removed: list[Tensor], outcome: Outcome) -> Tracks:
    """Put together what was seen.

    Args:
        data: Network and costs.
        values: After each step, ``[groups, widest]``.
        removed: After each step, ``[groups, widest]``.
        outcome: Of the trial.

    Returns:
        The tracks.
    """
    gone = torch.stack(removed)
    return Tracks(torch.stack(values), gone, tuple(_share(data, now) for now in gone), outcome)


def _share(data: Digits, removed: Tensor) -> float:
    """Count the FLOPs without some units."""
    groups = zip(data.plan.groups, removed.sum(1).tolist(), strict=True)
    widths = {group.name: group.channels - gone for group, gone in groups}
    return data.plan.cost.flops(widths) / data.plan.cost.dense


def draw_units(axes: Axes, values: Tensor, removed: Tensor, ceiling: float) -> None:
    """Draw a line for each unit: until it is removed, or to the end.

    Args:
        axes: Where to draw.
        values: ``[steps, units]``.
        removed: ``[steps, units]``.
        ceiling: Where units are removed.
    """
    steps, ends = torch.arange(1, len(values) + 1), removed.long().argmax(0)
    for kept in (False, True):  # survivors above
        for unit in (removed[-1] != kept).nonzero().flatten().tolist():
            if kept:
                axes.plot(steps, values[:, unit], color=KEPT, linewidth=FAINT, alpha=0.85, zorder=3)
                continue
            end = int(ends[unit])
            line = [*values[:end, unit].tolist(), ceiling]
            axes.plot(steps[: end + 1], line, color=GONE, linewidth=FAINT, alpha=0.75, zorder=2)
            axes.scatter([end + 1], [ceiling], s=22, color=GONE, zorder=4, clip_on=False)
    gone = int(removed[-1].sum())
    axes.plot([], [], color=GONE, linewidth=STRONG, marker="o", markersize=5, label=f"{gone} channels that are removed")
    axes.plot([], [], color=KEPT, linewidth=STRONG, label=f"{removed.shape[1] - gone} channels that stay")


def draw_costs(axes: Axes, found: Tracks, x: str = "") -> None:
    """Draw the FLOPs that a cut would leave, over the whole trial.

    Args:
        axes: Where to draw.
        found: What was seen.
        x: What goes to the right.
    """
    total = int(found.outcome.history[-1]["step"])
    steps = [0, *range(1, found.steps + 1), total]
    shares = [100.0, *(100 * share for share in found.flops), 100 * found.flops[-1]]
    axes.step(steps, shares, where="post", color=KEPT, linewidth=STRONG)
    axes.set_ylim(0, 105)
    axes.set_xlim(0, total)
    label_axes(axes, x, "FLOPs if cut now, %", "What the network would cost")
    draw_mark(axes, found.steps, "cut; fine-tuning")
    axes.annotate(
        f"{shares[-1]:.1f} %", (total, shares[-1]), xytext=(-4, 8), textcoords="offset points", ha="right", color=KEPT,
        fontsize=11, fontweight="bold",
    )  # fmt: skip


def draw_accuracy(axes: Axes, found: Tracks, dense: float) -> None:
    """Draw the accuracy after every epoch, over the whole trial.

    Args:
        axes: Where to draw.
        found: What was seen.
        dense: Accuracy of the dense network, 0..1.
    """
    history = found.outcome.history
    steps, shares = [record["step"] for record in history], [100 * record["accuracy"] for record in history]
    axes.plot(steps, shares, color=KEPT, linewidth=STRONG, label=f"this trial: {shares[-1]:.1f} % at the end")
    axes.axhline(100 * dense, color=INK, linewidth=1, linestyle=(0, (2, 3)), label=f"dense: {100 * dense:.1f} %")
    axes.set_xlim(0, steps[-1])
    label_axes(axes, "optimiser step", "validation accuracy, %", "What it is worth")
    draw_mark(axes, found.steps, "")
    draw_legend(axes, "lower right")
