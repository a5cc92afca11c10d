"""Tasks by name: ours, those of installed packages, and ``package.module:Class``.

Needs no torch until one is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from methods.contract.named import kind_of, load_named
from spaces import InputError

if TYPE_CHECKING:
    from methods.contract.task import Task

GROUP = "paretoprune.tasks"
"""Entry points of packages that bring tasks."""

TASKS: Mapping[str, str] = MappingProxyType({
    "classification": "methods.contract.classification:Classification",
    "regression": "search.tasks.regression:Regression",
    "segmentation": "search.tasks.segmentation:Segmentation",
})
"""Where the class of each of our tasks is."""

METRICS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "classification": ("accuracy",),
    "regression": ("r2", "mse", "mae"),
    "segmentation": ("mean_iou", "pixel_accuracy"),
})
"""What each of our tasks measures, the quality first, for configurations that are read without torch."""


def load_task(name: str, options: Mapping[str, Any] | None = None) -> Task:
    """Build a task.

    Args:
        name: A name in :data:`TASKS` or of an entry point, or ``package.module:Class`` (an instance is accepted too).
        options: Arguments of the class by name.

    Returns:
        The task.

    Raises:
        InputError: If there is no such task, it does not take these options, or its metrics have no proper names.
    """
    from methods.contract.task import Task, check_metrics

    found = load_named("task", name, TASKS, GROUP, _explain_wrong_task)
    given = dict(options or {})
    if isinstance(found, Task) and given:
        raise InputError(f"task {name!r} is an object already, it takes no options ({', '.join(given)})")
    task = found if isinstance(found, Task) else _build(found, name, given)
    check_metrics(task)
    return task


def metric_names(name: str) -> tuple[str, ...]:
    """Name the metrics of a task, its quality first.

    Args:
        name: Name of the task, as for :func:`load_task`.

    Returns:
        Names; a task that is not one of ours is imported.
    """
    if name in METRICS:
        return METRICS[name]
    return tuple(metric.name for metric in load_task(name).metrics)


def _explain_wrong_task(found: Any) -> str | None:
    """Say what is wrong with something that was named as a task."""
    from methods.contract.task import Task

    if isinstance(found, Task) or (isinstance(found, type) and issubclass(found, Task)):
        return None
    return f"is {kind_of(found)}, not a subclass of methods.contract.task.Task"


def _build(kind: type[Task], name: str, options: Mapping[str, Any]) -> Task:
    try:
        return kind(**options)
    except TypeError as error:  # abstract, or another constructor
        raise InputError(f"task {name!r} cannot be built with {dict(options) or 'no options'}: {error}") from error
