"""What a search optimises: one file per objective, one line in :data:`OBJECTIVES`.

Importing this package does not import torch; only measuring does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from search.objectives.accuracy import ACCURACY
from search.objectives.base import Measure, MeasureContext, Objective
from search.objectives.flops import FLOPS
from search.objectives.latency import LATENCY
from search.objectives.parameters import PARAMS
from search.objectives.predicted_damage import PREDICTED_DAMAGE
from search.objectives.seconds import SECONDS
from spaces import InputError, unknown_name

if TYPE_CHECKING:
    from methods.contract.method import Method

__all__ = ["OBJECTIVES", "Measure", "MeasureContext", "Objective", "load_objectives", "require_reports"]

OBJECTIVES: Mapping[str, Objective] = MappingProxyType({
    "accuracy": ACCURACY,
    "flops": FLOPS,
    "latency": LATENCY,
    "params": PARAMS,
    "predicted_damage": PREDICTED_DAMAGE,
    "seconds": SECONDS,
})


def load_objectives(names: str | Sequence[str]) -> tuple[Objective, ...]:
    """Look up the objectives of a study.

    Args:
        names: Names in :data:`OBJECTIVES`, as a list or as one text with commas.

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
    wanted = [name.strip() for name in listed if name.strip()]
    chosen = tuple(_objective(name) for name in wanted)
    for name in wanted:
        if wanted.count(name) > 1:
            raise InputError(f"objective {name!r} is given twice; each counts once")
    given = ", ".join(wanted) or "none"
    if len(wanted) < 2:
        raise InputError(f"a front needs at least two objectives, given: {given} (example: accuracy,flops)")
    if not any(objective.quality for objective in chosen):
        best = ", ".join(name for name, objective in OBJECTIVES.items() if objective.quality)
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


def _objective(name: str) -> Objective:
    if name not in OBJECTIVES:
        raise InputError(unknown_name("objective", name, OBJECTIVES))
    return OBJECTIVES[name]
