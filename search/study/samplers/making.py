"""Makes the sampler that a study names: ours, Optuna's, or somebody else's by the port."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from optuna.samplers import BaseSampler

from methods.contract.named import kind_of, load_named
from search.study.cost import PointCosts
from search.study.samplers.adapter import LimitedSampler, PortSampler
from search.study.samplers.base import Aim, Sampler, Tried
from search.study.samplers.choice import SAMPLERS, STOCK, resolve_sampler
from search.study.samplers.exact import ExactCostSampler
from search.study.samplers.stock import make_stock_sampler
from spaces import InputError, Space

EXACT = "exact"
"""The sampler that is handed the costs of many points at once."""

GROUP = "paretoprune.samplers"
"""Entry points under which other packages list theirs."""

Maker = Callable[[int], BaseSampler]
"""Makes the sampler of one question, given its seed."""


def sampler_maker(
    name: str, space: Space, aim: Aim, costs: PointCosts, seed: int, trials: int, earlier: Sequence[Tried] = ()
) -> Maker:
    """Prepare the sampler of a study.

    Args:
        name: Its name, or ``package.module:Name``.
        space: The whole space.
        aim: What is searched for.
        costs: Costs of points.
        seed: Seed of the study.
        trials: How many trials the study was begun with.
        earlier: Trials of earlier studies of the same problem; samplers of Optuna's are not told of them.

    Returns:
        What makes the sampler of each question. A sampler of Optuna's is made for every question; one of the port
        lives as long as the sweep, and is told everything again when the sweep is resumed.
    """
    chosen = resolve_sampler(name, space)
    if chosen in STOCK:

        def make_stock(question: int) -> BaseSampler:
            inner = make_stock_sampler(chosen, question, trials)
            return LimitedSampler(inner, space, aim, costs, costs.dense) if aim.limits.hard else inner

        return make_stock
    made = ExactCostSampler(aim, seed, costs) if chosen == EXACT else make_sampler(chosen, aim, seed)
    port = PortSampler(made, space, aim, costs, earlier)
    return lambda question: port


def make_sampler(name: str, aim: Aim, seed: int) -> Sampler:
    """Make somebody else's sampler.

    Args:
        name: Its name, or ``package.module:Name``.
        aim: What is searched for.
        seed: Seed of the study.

    Returns:
        The sampler.

    Raises:
        InputError: If there is none of that name, it is no sampler, or it cannot be made so.
    """
    kind = load_named("sampler", name, SAMPLERS, GROUP, _explain_unfit)
    try:
        made: Sampler = kind(aim, seed)
    except Exception as error:  # anything may go wrong in somebody else's class
        raise InputError(f"sampler {name!r} cannot be made as Name(aim, seed): {error}") from error
    return made


def _explain_unfit(found: Any) -> str | None:
    """Say what is wrong with an object that should be the class of a sampler."""
    if not callable(found):
        return f"is {kind_of(found)}, not a class of samplers"
    if inspect.isclass(found) and not all(callable(getattr(found, act, None)) for act in ("observe", "propose")):
        return "has no observe and propose, as search.study.samplers.base.Sampler has"
    return None
