from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.contract.method import Problem
from methods.contract.recipe import Recipe
from search.study.cost import PointCosts
from search.study.limits import move_within_limits
from search.study.points import spread_points
from search.study.samplers import exact
from search.study.samplers.adapter import optuna_sampler
from search.study.samplers.base import Aim, Axis, Limits, PointCost, Tried
from search.study.samplers.exact import ExactCostSampler
from search.study.samplers.improvement import expected_improvement
from search.study.samplers.making import sampler_maker
from search.study.samplers.repair import repair_point
from search.study.space import METHOD, select_own_space, study_space
from spaces import InputError, Space, Value
from spaces.dialects import suggest
from tests.methods import cases

METHODS = ("magnitude", "random", "spp")


def make_problem() -> Problem:
    train = validation = cases.blobs(cases.IMAGE, 32)
    model = cases.seeded(cases.make_zero_pad_net)
    example = torch.zeros(1, *cases.IMAGE)
    generator = torch.Generator().manual_seed(0)
    return Problem(model, example, train, validation, Recipe(), 4, generator, analyses=cases.Remembered())


COSTS = PointCosts(make_problem())
SPACE = study_space(METHODS, COSTS.groups, "any", {})


def make_aim(limits: Limits | None = None) -> Aim:
    accuracy = Axis("accuracy", True, True, 1.0, 0.0, 0.98, 400)
    flops = Axis("flops", False, False, 0.0, COSTS.dense.flops, COSTS.dense.flops)
    return Aim((accuracy, flops), limits or Limits())


def flops_of(method: str, point: Mapping[str, Value]) -> float:
    cost = COSTS(method, point)
    return COSTS.dense.flops / 2 if cost is None else cost.flops


def answer(method: str, point: Mapping[str, Value]) -> dict[str, float]:
    """A truth in which one method is better than the others, and cheap networks are worse."""
    saved = -np.log2(flops_of(method, point) / COSTS.dense.flops)
    return {
        "accuracy": 0.98 - 0.002 * np.exp(saved * (0.6 if method == "spp" else 0.9)),
        "flops": flops_of(method, point),
    }


def search(space: Space, trials: int, seed: int, limits: Limits | None = None, resume_at: int = -1) -> list[Tried]:
    sampler = ExactCostSampler(make_aim(limits), seed, COSTS)
    history: list[Tried] = []
    for number in range(trials):
        if number == resume_at:  # a new process knows nothing but the trials
            sampler = ExactCostSampler(make_aim(limits), seed, COSTS)
        point = space.check(sampler.propose(history, space, COSTS, 1)[0])
        method, own = space.split(point, METHOD)
        history.append(Tried(number, method, own, "complete", answer(method, own)))
    return history


def test_the_same_seed_asks_the_same_points_and_a_resumed_sweep_goes_on_alike() -> None:
    first = search(SPACE, 18, 3)
    assert search(SPACE, 18, 3) == first
    assert search(SPACE, 18, 3, resume_at=11) == first
    assert search(SPACE, 6, 4) != first[:6]


def test_nothing_is_asked_twice_and_the_better_method_is_preferred() -> None:
    tried = search(SPACE, 24, 0)
    points = [(trial.method, tuple(sorted(trial.point.items()))) for trial in tried]
    assert len(set(points)) == len(points)
    late = [trial.method for trial in tried[12:]]
    assert late.count("spp") > len(late) / 2


def test_a_space_with_few_points_ends_instead_of_repeating() -> None:
    fixed = {"sparsity.mode": "uniform", "sparsity.ratio": 0.5}
    space = study_space(("magnitude",), COSTS.groups, "any", {"magnitude": fixed})
    sampler = ExactCostSampler(make_aim(), 0, COSTS)
    first = sampler.propose([], space, COSTS, 5)
    assert len(first) == 1


def test_what_runs_is_believed_so_that_many_workers_ask_different_points() -> None:
    told = search(SPACE, 12, 1)
    sampler = ExactCostSampler(make_aim(), 1, COSTS)
    points = sampler.propose(told, SPACE, COSTS, 6)
    assert len({tuple(sorted(point.items())) for point in points}) == 6
    savings = sorted(flops_of(*SPACE.split(point, METHOD)) for point in points)
    assert savings[-1] > 1.2 * savings[0], "they look at different parts of the front"


def test_what_came_out_beyond_a_limit_does_not_cover_the_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of some methods only training tells the cost; where their networks break a limit, others are still wanted."""
    told = search(SPACE, 6, 1)
    point: dict[str, Value] = {"sparsity.mode": "flops", "sparsity.flops": 0.1, "sparsity.tilt": 0.0}
    metrics = answer("random", point) | {"params": float(COSTS.dense.params)}
    history = [*told, Tried(6, "random", point, "complete", metrics)]
    fronts: list[int] = []

    def count_members(*given: Any) -> Any:
        fronts.append(len(given[3]))
        return expected_improvement(*given)

    monkeypatch.setattr(exact, "expected_improvement", count_members)
    for limits, members in ((Limits(), 7), (Limits(max_params=int(0.9 * COSTS.dense.params)), 6)):
        assert ExactCostSampler(make_aim(limits), 1, COSTS).propose(history, SPACE, COSTS, 1)
        assert set(fronts) == {members}
        fronts.clear()


@pytest.mark.parametrize("sampler", ["exact", "random", "tpe"])
def test_no_trial_lies_outside_the_band(sampler: str) -> None:
    limits = Limits(COSTS.dense.flops // 5, COSTS.dense.flops // 2, int(0.7 * COSTS.dense.params))
    make = sampler_maker(sampler, SPACE, make_aim(limits), COSTS, 5, 14)
    study = optuna.create_study(directions=["maximize", "minimize"])
    for point in move_within_limits(spread_points(SPACE, METHODS, 30, 0), SPACE, limits, COSTS, COSTS.dense):
        study.enqueue_trial(point)
    for number in range(14):
        study.sampler = make(number)
        trial = study.ask()
        method, own = SPACE.split(suggest(SPACE, trial), METHOD)
        cost = COSTS(method, own)
        assert cost is not None and limits.is_met_by(cost.flops, cost.params), (sampler, method, own)
        study.tell(trial, list(answer(method, own).values()))


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 9999), low=st.floats(0.02, 0.5), width=st.floats(0.15, 0.5))
def test_a_repaired_point_is_inside_and_differs_by_its_level_alone(seed: int, low: float, width: float) -> None:
    limits = Limits(int(low * COSTS.dense.flops), int(min(1.0, low + width) * COSTS.dense.flops))
    method, point = SPACE.split(SPACE.sample(seed), METHOD)
    moved = repair_point(method, select_own_space(SPACE, method), point, COSTS, limits, COSTS.dense)
    if moved is None:
        return  # the other parameters leave no level inside, as wide offsets may
    cost = COSTS(method, moved)
    assert cost is not None and limits.is_met_by(cost.flops, cost.params)
    assert sum(moved[name] != value for name, value in point.items()) <= 1


def test_most_points_can_be_repaired() -> None:
    limits = Limits(int(0.2 * COSTS.dense.flops), int(0.4 * COSTS.dense.flops))
    points = [SPACE.split(SPACE.sample(seed), METHOD) for seed in range(12)]
    moved = [
        repair_point(m, select_own_space(SPACE, m), p, COSTS, limits, COSTS.dense)
        for m, p in points
        if "sparsity.energy" not in p
    ]
    assert sum(each is not None for each in moved) > 0.9 * len(moved)


def test_a_stock_optuna_study_can_use_it() -> None:
    sampler = optuna_sampler(lambda aim, seed: ExactCostSampler(aim, seed, COSTS), SPACE, make_aim(), COSTS)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        method, own = SPACE.split(suggest(SPACE, trial), METHOD)
        found = answer(method, own)
        return found["accuracy"], found["flops"]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study.optimize(objective, n_trials=14)
    assert len(study.best_trials) > 3


def test_a_sampler_of_somebody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    make = sampler_maker("tests.search.study.samplers.mine:Halving", SPACE, make_aim(), COSTS, 7, 10)
    study = optuna.create_study(directions=["maximize", "minimize"])
    asked = []
    for _ in range(4):
        study.sampler = make(0)
        trial = study.ask()
        method, own = SPACE.split(suggest(SPACE, trial), METHOD)
        asked.append(own["sparsity.flops"])
        study.tell(trial, list(answer(method, own).values()))
    assert asked == pytest.approx([0.8, 0.4, 0.2, 0.1])
    with pytest.raises(InputError, match="has no observe and propose"):
        sampler_maker("tests.search.study.samplers.mine:NoSampler", SPACE, make_aim(), COSTS, 7, 10)
    with pytest.raises(InputError, match="there is no module 'minee'"):
        sampler_maker("minee:Halving", SPACE, make_aim(), COSTS, 7, 10)


def test_three_objectives() -> None:
    params = Axis("params", False, False, 0.0, COSTS.dense.params, COSTS.dense.params)
    three = Aim((*make_aim().axes, params))
    sampler = ExactCostSampler(three, 0, COSTS)
    history: list[Tried] = []
    for number in range(14):
        method, own = SPACE.split(sampler.propose(history, SPACE, COSTS, 1)[0], METHOD)
        cost = COSTS(method, own)
        metrics = answer(method, own) | {"params": float(COSTS.dense.params if cost is None else cost.params)}
        history.append(Tried(number, method, own, "complete", metrics))
    assert len({trial.metrics["params"] for trial in history}) > 5


def test_limits_hold_exactly_for_methods_that_train_or_rewrite_where_their_cost_is_determined() -> None:
    costs = PointCosts(replace(make_problem(), steps=10))
    dense = costs.dense
    limits = Limits(int(0.3 * dense.flops), int(0.6 * dense.flops), int(0.8 * dense.params))
    space = study_space(["sdprun", "pivoting"], costs.groups, "any", {"pivoting": {"min_side": 2}})
    asked: list[tuple[str, dict[str, Value]]] = []
    for share in (0.2, 0.35, 0.59, 0.85):
        asked.append(("sdprun", {"target_flops": share}))
    for ratio in (0.1, 0.3, 0.6):
        asked.append(("pivoting", {"sparsity.mode": "uniform", "sparsity.ratio": ratio}))
    for method, point in asked:
        own = select_own_space(space, method)
        given = {name: value for name, value in (own.defaults() or {}).items() if not name.startswith("sparsity.")}
        repaired = repair_point(method, own, {**given, **point}, costs, limits, dense)
        assert repaired is not None, (method, point)
        cost = costs(method, repaired)
        assert cost is not None and limits.is_met_by(cost.flops, cost.params), (method, point)


def test_a_point_that_is_impossible_as_it_stands_is_counted_once_it_asks_for_enough() -> None:
    """What asks for less than its tilt can leave has no cost; raised to the least that is allowed, it has one."""
    dense = COSTS.dense

    def cost(method: str, point: Mapping[str, Value]) -> PointCost | None:
        asked = float(point["sparsity.flops"])
        reached = int(0.95 * asked * dense.flops)  # the nearest widths below
        return None if asked < 0.1 else PointCost(reached, dense.params // 2)

    space = select_own_space(SPACE, "random").narrow({"sparsity.mode": "flops"})
    limits = Limits(dense.flops // 5, dense.flops // 2)
    point = {**(space.defaults() or {}), "sparsity.flops": 0.06}
    moved = repair_point("random", space, point, cost, limits, dense)
    assert moved is not None
    found = cost("random", moved)
    assert found is not None and limits.is_met_by(found.flops, found.params), "0.2 asked alone would reach 0.19"


def test_what_has_one_value_is_not_asked_of_optuna() -> None:
    """TPE answers "not a number" for a range of one value, which Optuna itself never asks for."""
    single = SPACE.narrow({"magnitude.sparsity.mode": "flops", "magnitude.sparsity.tilt": {"low": 0.1, "high": 0.1}})
    limits = Limits(COSTS.dense.flops // 5, COSTS.dense.flops // 2)
    make = sampler_maker("tpe", single, make_aim(limits), COSTS, 5, 20)
    study = optuna.create_study(directions=["maximize", "minimize"])
    for number in range(16):
        study.sampler = make(number)
        trial = study.ask()
        method, own = single.split(suggest(single, trial), METHOD)
        assert own.get("sparsity.tilt", 0.1) == 0.1 or method != "magnitude"
        study.tell(trial, list(answer(method, own).values()))
