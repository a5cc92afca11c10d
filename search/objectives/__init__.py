"""What a search optimises: one file per objective, one line in :data:`OBJECTIVES`.

An objective of somebody else's is named as ``package.module:NAME``, or by its name where a package lists it in the
entry-point group :data:`GROUP`. The metrics of the task of a study are objectives under their own names. Importing
this package does not import torch; only measuring does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from methods.contract.named import is_reference, kind_of, list_known_names, load_named
from search.objectives.accuracy import ACCURACY
from search.objectives.base import Measure, MeasureContext, Objective
from search.objectives.flops import FLOPS
from search.objectives.latency import LATENCY
from search.objectives.parameters import PARAMS
from search.objectives.predicted_damage import PREDICTED_DAMAGE
from search.objectives.seconds import SECONDS
from spaces import InputError, explain_unknown_name

if TYPE_CHECKING:
    from methods.contract.method import Method
    from methods.contract.task import Task
    from search.records.outcome import DenseRow

__all__ = [
    "OBJECTIVES",
    "Measure",
    "MeasureContext",
    "Objective",
    "check_objectives",
    "load_objectives",
    "require_reports",
    "list_shown_objectives",
    "task_objectives",
]

OBJECTIVES: Mapping[str, Objective] = MappingProxyType({
    "accuracy": ACCURACY,
    "flops": FLOPS,
    "latency": LATENCY,
    "params": PARAMS,
    "predicted_damage": PREDICTED_DAMAGE,
    "seconds": SECONDS,
})


GROUP = "paretoprune.objectives"
"""Entry points of packages that bring objectives."""


def load_objectives(names: str | Sequence[str | Objective], task: Task | None = None) -> tuple[Objective, ...]:
    """Look up the objectives of a study.

    Args:
        names: Names in :data:`OBJECTIVES`, of metrics of the task, of entry points, or ``package.module:NAME``; as a
            list or as one text with commas. What is an objective already stays.
        task: What the networks are for; classification by default.

    Returns:
        The objectives in the order given.

    Raises:
        InputError: If a name is given twice, if there are fewer than two, or if none of them tells a good network
            from a small one (the smallest network would always win).

    Example:
        >>> [objective.direction for objective in load_objectives("accuracy,flops")]
        ['maximise', 'minimise']
    """
    listed = names.split(",") if isinstance(names, str) else list(names)
    known = task_objectives(task)
    stripped = [name.strip() if isinstance(name, str) else name for name in listed]
    chosen = tuple(_objective(name, known) if isinstance(name, str) else name for name in stripped if name)
    wanted = [objective.name for objective in chosen]
    for name in wanted:
        if wanted.count(name) > 1:
            raise InputError(f"objective {name!r} is given twice; each counts once")
    given = ", ".join(wanted) or "none"
    if len(wanted) < 2:
        raise InputError(f"a front needs at least two objectives, given: {given} (example: accuracy,flops)")
    if not any(objective.quality for objective in chosen):
        best = ", ".join(name for name, objective in known.items() if objective.quality)
        raise InputError(
            f"with {given} alone the smallest network always wins; add one that tells good networks from small ones "
            f"({best})"
        )
    return chosen


def require_reports(objectives: Sequence[Objective], methods: Mapping[str, type[Method]]) -> None:
    """Make sure that every method of a study reports the objectives that only methods can know.

    Args:
        objectives: What is searched for.
        methods: The competing methods by name.

    Raises:
        InputError: If a method does not report one; names those of ours that do.
    """
    for objective in objectives:
        if objective.reported_by is None:
            continue
        silent = [name for name, method in methods.items() if not objective.reported_by(method)]
        if silent:
            from methods import METHODS, load_method

            able = ", ".join(name for name in METHODS if objective.reported_by(load_method(name)))
            raise InputError(
                f"objective {objective.name!r} is known to some methods only ({able}), not to {', '.join(silent)}"
            )


def check_objectives(names: Sequence[str], metrics: Sequence[str] | None) -> None:
    """Refuse names of objectives that no study of a task can have, without loading the task.

    Args:
        names: Names of objectives.
        metrics: Names of the task's metrics; ``None`` for a task of the user's own, whose metrics are not known yet.

    Raises:
        InputError: If a name is unknown.
    """
    if metrics == ("accuracy",):
        load_objectives(names)
    elif metrics is not None:
        known = [*metrics, *(name for name in OBJECTIVES if name != "accuracy"), *list_known_names({}, GROUP)]
        for name in names:
            if not is_reference(name) and name not in known:
                raise InputError(explain_unknown_name("objective", name, [*known, "package.module:NAME"]))


def list_shown_objectives(
    objectives: Sequence[Objective], metrics: Sequence[Objective], dense: DenseRow
) -> dict[str, Objective]:
    """List what is known of every network of a study, in the order in which it is told.

    Args:
        objectives: What the study searches for.
        metrics: Descriptions of the metrics of its task.
        dense: Its dense network.

    Returns:
        By name: qualities, then the usual costs (latency where it was measured), then other objectives.
    """
    qualities = [objective for objective in objectives if objective.quality]
    qualities += [metric for metric in (*metrics, ACCURACY) if metric.name in dense.metrics]
    costs = [FLOPS, PARAMS, SECONDS, *([] if dense.latency is None else [LATENCY])]
    found: dict[str, Objective] = {}
    for objective in (*qualities, *costs, *objectives):
        found.setdefault(objective.name, objective)
    return found


def task_objectives(task: Task | None = None) -> dict[str, Objective]:
    """List the objectives that networks of a task can be searched by.

    Args:
        task: What the networks are for; classification by default.

    Returns:
        The metrics of the task, and ours that do not depend on it, by name.
    """
    if task is None or task.name == "classification":
        return dict(OBJECTIVES)
    metrics = {metric.name: Objective.from_metric(metric) for metric in task.metrics}
    return metrics | {name: each for name, each in OBJECTIVES.items() if name not in metrics and name != "accuracy"}


def _objective(name: str, known: Mapping[str, Objective]) -> Objective:
    if name in known:
        return known[name]
    if not is_reference(name) and name not in list_known_names({}, GROUP):
        raise InputError(
            explain_unknown_name("objective", name, [*known, *list_known_names({}, GROUP), "package.module:NAME"])
        )
    found: Objective = load_named("objective", name, {}, GROUP, _explain_wrong_kind)
    return found


def _explain_wrong_kind(found: object) -> str | None:
    return None if isinstance(found, Objective) else f"is {kind_of(found)}, not an Objective"
