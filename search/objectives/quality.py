"""Metrics of the task: how good a network is at what it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from methods.contract.data import Split
    from methods.contract.task import Task


def measure_quality(model: nn.Module, split: Split, task: Task) -> dict[str, float]:
    """Measure the metrics of the task on a split.

    Args:
        model: The network.
        split: The data.
        task: What the network is for.

    Returns:
        Value by name of the metric; the quality objective of the task comes first. Nothing where a loop of the user's
        own has no test data.
    """
    from methods.training.evaluation import evaluate

    return dict(evaluate(model, split, task=task).metrics)
