"""Labels of one part of the data beside those of another."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from methods.contract.task import Task
from spaces import InputError


def check_labels(targets: Any, outputs: int, where: str, task: Task) -> None:
    """Refuse classes that the training part does not have.

    Args:
        targets: Targets of another part.
        outputs: Classes of the training part.
        where: Which part, for messages.
        task: What the data are for; only tasks with classes are looked at.

    Raises:
        InputError: If a label is too large.
    """
    if not (task.stratified or task.spatial) or not isinstance(targets, Tensor) or targets.is_floating_point():
        return
    counting = targets[targets != task.fill] if task.spatial else targets
    if counting.numel() and int(counting.max()) >= outputs:
        raise InputError(f"{where} has label {int(counting.max())}, the training part has {outputs} classes")
