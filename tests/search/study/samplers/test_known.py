"""The exact-cost sampler on a problem that is not about pruning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
import optuna
import pytest

from search.study.samplers.adapter import optuna_sampler
from search.study.samplers.base import Aim, Axis
from search.study.samplers.exact import ExactCostSampler
from search.study.samplers.known import KnownCosts
from search.study.space import METHOD
from spaces import Categorical, Integer, Real, Space, Value
from spaces.dialects import suggest

OWN = Space({"units": Integer(1, 64), "rate": Real(0.0, 1.0)})
SPACE = Space({METHOD: Categorical(("mlp",))}) | OWN.add_prefix("mlp")


def cost(method: str, point: Mapping[str, Value]) -> float:
    return float(point["units"])


def error(point: Mapping[str, Value]) -> float:
    """Falls with units, and has its least at a rate of 0.3."""
    units, rate = float(point["units"]), float(point["rate"])
    return 0.4 / math.sqrt(units) + (rate - 0.3) ** 2


def make_aim(costs: KnownCosts) -> Aim:
    axes = (
        Axis("error", False, True, ideal=0.0, worst=1.0),
        Axis("flops", False, False, ideal=0.0, worst=1.0, dense=float(costs.dense.flops)),
    )
    return Aim(axes, drop=1.0)


def search(seed: int, trials: int) -> list[dict[str, Value]]:
    costs = KnownCosts(cost, least=1.0, whole=64.0)
    sampler = optuna_sampler(partial(ExactCostSampler, costs=costs), SPACE, make_aim(costs), costs, seed)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    points = []
    for _ in range(trials):
        trial = study.ask()
        point = SPACE.split(suggest(SPACE, trial), METHOD)[1]
        points.append(point)
        study.tell(trial, [error(point), float(costs("mlp", point).flops)])
    return points


def test_known_costs_are_shares_of_the_whole() -> None:
    costs = KnownCosts(cost, least=1.0, whole=64.0)
    shares = costs.cost_each("mlp", [{"units": units, "rate": 0.5} for units in (1, 8, 64)])
    assert shares == pytest.approx([0.05, math.sqrt(0.05), 1.0])
    assert costs("mlp", {"units": 1, "rate": 0.5}).flops == 50_000
    assert costs.target("mlp") is None and costs.names == ()


def test_the_search_learns_what_matters_and_repeats_nothing() -> None:
    points = search(seed=0, trials=30)
    assert len({tuple(sorted(point.items())) for point in points}) == 30
    late = [abs(float(point["rate"]) - 0.3) for point in points[15:]]
    assert np.median(late) < 0.15, "a uniform draw is 0.27 away in the median"
    assert len({point["units"] for point in points}) > 8, "the whole range of costs is searched"
    assert search(seed=0, trials=12) == points[:12]
