"""Which sampler fits a space. Needs neither optuna nor numpy, so that a bad choice is refused at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from spaces import InputError, Space

STOCK = ("tpe", "gp", "nsga2", "random", "defaults")
"""Optuna's samplers; with ``"defaults"`` all points are given and nothing is asked."""

SAMPLERS: Mapping[str, str] = MappingProxyType({"exact": "search.study.samplers.exact:ExactCostSampler"})
"""Our samplers of the port, and where each is."""

NAMES = ("auto", *SAMPLERS, *STOCK)
"""Names that a study's sampler can have, beside ``package.module:Name`` and those of installed packages."""


def resolve_sampler(sampler: str, space: Space) -> str:
    """Choose the sampler of a study, and refuse one that would only look as if it searched.

    A Gaussian process over all parameters, and a genetic algorithm that crosses parameters, learn only of parameters
    that every trial has. Where methods compete each has its own, and both fall back to random search: NSGA-II asks
    the very points of the random sampler then, trial for trial.

    Args:
        sampler: What the user wants; ``"auto"`` is the exact-cost sampler.
        space: The whole space.

    Returns:
        Never ``"auto"``.

    Raises:
        InputError: If the sampler would be random search on this space.
    """
    if sampler == "auto":
        return "exact"
    own = [name for name in space if _is_varied(space, name) and not _is_always_active(space, name)]
    if sampler in ("gp", "nsga2") and own:
        raise InputError(
            f"sampler = {sampler!r} would be random search here: it learns only of parameters that every trial has, "
            f"and {len(own)} parameters of this study (such as {own[0]!r}) belong to one method or setting alone; give "
            "sampler = 'auto', or one method with a fixed sparsity.mode"
        )
    return sampler


def _is_varied(space: Space, name: str) -> bool:
    """Whether a parameter has more than one value."""
    return space[name].only is None


def _is_always_active(space: Space, name: str) -> bool:
    """Whether a parameter is active in every point: all its ancestors have a single choice."""
    condition = space.condition(name)
    while condition is not None:
        if space[condition.parameter].only is None:
            return False
        condition = space.condition(condition.parameter)
    return True
