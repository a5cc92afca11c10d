"""Metrics of the task: how good a network is at what it is for."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from methods.contract.data import Split
    from methods.contract.task import Task


def measure_quality(model: nn.Module, split: Split, task: Task, device: str | None = None) -> dict[str, float]:
    """Measure the metrics of the task on a split.

    Args:
        model: The network; not changed.
        split: The data.
        task: What the network is for.
        device: Where to measure; by default where both are.

    Returns:
        Value by name of the metric; the quality objective of the task comes first. Nothing where a loop of the user's
        own has no test data.
    """
    from methods.training.evaluation import evaluate

    if device is not None:
        model, split = copy.deepcopy(model).to(device), split.to(device)  # a network itself would be moved
    return dict(evaluate(model, split, task=task).metrics)
