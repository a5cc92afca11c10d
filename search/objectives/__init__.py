"""What a search optimises: one file per objective, one line in :data:`OBJECTIVES`.

Importing this package does not import torch; only measuring does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from search.objectives.accuracy import ACCURACY
from search.objectives.base import Measure, Objective
from search.objectives.flops import FLOPS
from search.objectives.latency import LATENCY
from search.objectives.parameters import PARAMS
from search.objectives.seconds import SECONDS
from spaces import InputError, unknown

__all__ = ["OBJECTIVES", "Measure", "Objective", "load_objectives"]

OBJECTIVES: Mapping[str, Objective] = MappingProxyType({
    "accuracy": ACCURACY,
    "flops": FLOPS,
    "latency": LATENCY,
    "params": PARAMS,
    "seconds": SECONDS,
})


def load_objectives(names: str | Sequence[str]) -> tuple[Objective, ...]:
    """Look up the objectives of a study.

    Args:
        names: Names in :data:`OBJECTIVES`, as a list or as one text with commas.

    Returns:
        The objectives in the order given.

    Raises:
        InputError: If a name is given twice, if there are fewer than two, or if none of them is maximised
            (the smallest network would always win).

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
    if not any(objective.maximise for objective in chosen):
        best = ", ".join(name for name, objective in OBJECTIVES.items() if objective.maximise)
        raise InputError(f"with {given} alone the smallest network always wins; add one that is maximised ({best})")
    return chosen


def _objective(name: str) -> Objective:
    if name not in OBJECTIVES:
        raise InputError(unknown("objective", name, OBJECTIVES))
    return OBJECTIVES[name]
