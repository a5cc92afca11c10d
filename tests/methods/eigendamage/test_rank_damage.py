"""Numbers of directions by measured damage: what a rank stands for, what is measured, and what a budget is spent on."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import inf

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from methods.contract.method import Problem
from methods.eigendamage.allotment import Round
from methods.eigendamage.eigenspace import Eigenspace
from methods.eigendamage.method import EigenDamage
from methods.eigendamage.rank_damage import Ranks, choose_by_damage
from methods.network.cost import count
from methods.training.damage import BATCH, BATCHES
from methods.training.evaluation import recalibrate
from spaces import InputError
from spaces.budget import Curve
from tests.methods.eigendamage.test_method import SHARED, problem_for


def method(flops: float, **settings: object) -> EigenDamage:
    return EigenDamage.model_validate({"sparsity": {"mode": "damage", "flops": flops}, **settings})


def open_space(problem: Problem, given: EigenDamage) -> tuple[Eigenspace, dict[str, Ranks]]:
    job = given._plan(problem)
    return given._eigenspace(problem, job, problem.model, Round(), 0), given._ranks(problem, job)


def test_a_rank_is_the_same_share_of_both_sides() -> None:
    both = Ranks(columns=8, rows=16, turns=(True, True))
    assert both.full == 16
    assert [both.count(rank) for rank in (1, 4, 5, 16)] == [(1, 1), (2, 4), (2, 5), (8, 16)]
    assert Ranks(3, 16, (False, True)).count(4) == (3, 4), "of the network's inputs none may go"
    assert Ranks(16, 10, (True, False)).full == 16 and Ranks(16, 10, (True, False)).count(4) == (4, 10)


def test_a_rank_keeps_to_limits() -> None:
    assert Ranks(8, 16, (True, True), least=(2, 3)).count(1) == (2, 3)
    assert Ranks(8, 16, (True, True), step=4).count(11) == (4, 8)
    assert Ranks(8, 16, (True, True), step=4, least=(1, 5)).count(1) == (4, 8)
    assert Ranks(8, 16, (True, True), most=(3, inf)).count(12) == (3, 12), "earlier rounds have left no more"


def test_what_is_measured_is_the_rise_of_the_loss_with_one_layer_rewritten() -> None:
    problem, given = problem_for("wide", analyses=SHARED), method(0.5)
    space, ranks = open_space(problem, given)
    curves = given._curves(problem, given._plan(problem), space)
    assert list(curves) == list(ranks)
    name, rises = "6", []
    for rank, _ in curves[name][:-1]:
        whole = [number for shape in space.shapes.values() for number in (shape.columns, shape.rows)]
        place = 2 * list(space.shapes).index(name)
        whole[place : place + 2] = replace(ranks[name], least=(1, 1)).count(rank)
        alone = space.rewrite(space.describe_choice(whole), 10, torch.Generator()).model
        if changed := describe_changed(problem, alone):
            assert changed == [name]
            recalibrate(alone, problem.train, BATCHES, BATCH, seed=1)
            rises.append(max(0.0, loss(problem, alone) - loss(problem, problem.model)))
        else:
            rises.append(0.0)
    assert rises[0] > 0.001
    assert [harm for _, harm in curves[name][:-1]] == pytest.approx(np.minimum.accumulate(rises), abs=1e-5)
    for curve in curves.values():
        damages = [harm for _, harm in curve]
        assert damages == sorted(damages, reverse=True) and damages[-1] == 0.0


def describe_changed(problem: Problem, other: torch.nn.Module) -> list[str]:
    return [
        name
        for name, module in problem.model.named_modules()
        if hasattr(module, "weight") and type(other.get_submodule(name)) is not type(module)
    ]


def loss(problem: Problem, model: torch.nn.Module) -> float:
    with torch.no_grad():
        batches = list(itertools.islice(problem.train.epoch(BATCH, 0), BATCHES))
        return float(torch.stack([F.cross_entropy(model.eval()(x), y) for x, y in batches]).mean())


def test_the_budget_is_spent_where_damage_is_least() -> None:
    """Against all choices of a coarse grid, with curves that were made up."""
    problem, given = problem_for("wide", analyses=SHARED), method(0.4)
    space, ranks = open_space(problem, given)
    draw = np.random.default_rng(3)
    curves: dict[str, Curve] = {}
    for name, each in ranks.items():
        falls = np.sort(draw.exponential(size=4))[::-1]
        grid = [max(1, each.full * part // 4) for part in (1, 2, 3)]
        curves[name] = [*zip(grid, falls[:3].tolist(), strict=True), (each.full, 0.0)]
    job = given._plan(problem)
    choice = choose_by_damage(given.sparsity, space, job, ranks, curves, Round())  # type: ignore[arg-type]
    assert space.flops(choice) <= 0.4 * job.dense
    chosen = dict(zip(space.shapes, zip(choice[::2], choice[1::2], strict=True), strict=True))

    def total(numbers: dict[str, tuple[int, int]]) -> float:
        harm = 0.0
        for name, each in ranks.items():
            side = 1 if each.turns[1] else 0
            places, damages = zip(*curves[name], strict=True)
            harm += float(np.interp(numbers[name][side], places, damages))
        return harm

    best = inf
    for grid_choice in itertools.product(*([rank for rank, _ in curve] for curve in curves.values())):
        numbers = {n: (s.columns, s.rows) for n, s in space.shapes.items()}
        numbers |= {name: ranks[name].count(rank) for name, rank in zip(ranks, grid_choice, strict=True)}
        if space.flops([n for pair in numbers.values() for n in pair]) <= 0.4 * job.dense:
            best = min(best, total(numbers))
    assert total(chosen) <= 1.02 * best


def test_a_layer_that_does_no_damage_goes_first() -> None:
    problem = problem_for("wide", analyses=SHARED)
    space, ranks = open_space(problem, method(0.5))
    curves: dict[str, Curve] = {name: [(1, 1.0), (each.full, 0.0)] for name, each in ranks.items()}
    curves["1.0"] = [(1, 0.0), (ranks["1.0"].full, 0.0)]
    saved = 0.9 * space.shapes["1.0"].dense.flops / problem.cost.dense
    given = method(1 - saved)
    choice = choose_by_damage(given.sparsity, space, given._plan(problem), ranks, curves, Round())  # type: ignore[arg-type]
    kept = dict(zip(space.shapes, zip(choice[::2], choice[1::2], strict=True), strict=True))
    assert kept["1.0"] <= (6, 8)
    assert all(kept[name] == each.count(each.full) for name, each in ranks.items() if name != "1.0")


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_target_is_met_and_known_before(rounds: int) -> None:
    given = method(0.35, rounds=rounds, round_to=4)
    problem = problem_for("wide", steps=4, analyses=SHARED)
    pruned = given.prune(problem)
    left = count(pruned.model, problem.example)
    assert 0.33 < pruned.extra["flops_share"] <= 0.35
    assert left.flops == round(pruned.extra["flops_share"] * problem.cost.dense)
    if rounds == 1:
        seen = given.preview(problem)
        assert (seen.flops, seen.params) == (left.flops, left.params)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(InputError, match="selection 'global' lets predicted damages compete"):
        EigenDamage.from_point({"sparsity.mode": "damage", "sparsity.flops": 0.5, "selection": "global"})
    with pytest.raises(InputError, match=r"cannot be reached; .* the smallest share is 0\.\d+"):
        method(0.01).check(problem_for("wide", analyses=SHARED))
    blocks = EigenDamage.from_point({"sparsity.mode": "damage", "sparsity.flops": 0.5, "sparsity.blocks": True})
    with pytest.raises(InputError, match="keeps every residual block"):
        blocks.prune(problem_for("wide", steps=2, analyses=SHARED))
