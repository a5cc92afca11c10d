"""IncReg: its mathematics against hand-computed numbers, and its behaviour on problems with known answers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil, log
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Problem
from methods.channels import channel_groups, cut, masked
from methods.cost import CostModel, count
from methods.increg import IncReg, Penalties, Plan
from methods.ranking import (
    Increment,
    Standing,
    averaged,
    ceiling_for,
    exponential_increment,
    forced,
    jump_increment,
    linear_increment,
    ranks,
    updated,
    updates_to_finish,
)
from methods.training import Recipe, Trainer
from methods.units import Units
from spaces import InputError, LayerGroup
from tests.methods import cases

DOUBLE = torch.float64
HALF = {"mode": "uniform", "ratio": 0.5}


def row(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=DOUBLE)


def increments(shape: Increment, to_go: int, survivors: int, progress: float = 0.0) -> Tensor:
    rank = torch.arange(survivors, dtype=DOUBLE)[None]
    return shape(rank, row(to_go), row(survivors), row(progress))[0]


@dataclass
class Layers:
    """Layers whose scores are given, not learned: the bare bookkeeping."""

    to_remove: list[int]
    units: list[int]
    penalty_step: float = 0.01
    penalty_max: float = 1.0
    increment: Increment = linear_increment
    how: str = "mean"
    updates: int = 0

    def __post_init__(self) -> None:
        widest = max(self.units)
        self.valid = torch.arange(widest) < torch.tensor(self.units)[:, None]
        self.counts = torch.tensor(self.to_remove)[:, None]
        zeros = torch.zeros(len(self.units), widest, dtype=DOUBLE)
        self.standing = Standing(zeros, zeros.clone(), torch.zeros_like(self.valid))

    def update(self, score: Tensor) -> None:
        self.updates += 1
        self.standing = updated(
            self.standing,
            score,
            self.valid,
            self.counts,
            penalty_step=self.penalty_step,
            penalty_max=self.penalty_max,
            increment=self.increment,
            average=lambda history, rank: averaged(history, rank, self.updates, self.how, 0.9),
        )

    @property
    def removed(self) -> list[list[int]]:
        return [r.nonzero().flatten().tolist() for r in self.standing.removed]

    def finished(self) -> bool:
        return bool((self.standing.removed.sum(1, keepdim=True) == self.counts).all())


# --- the increments ------------------------------------------------------------------------------------------


@given(survivors=st.integers(2, 60), data=st.data())
@settings(max_examples=80, deadline=None)
def test_oracle_01_linear_increment(survivors: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, survivors))
    delta = increments(linear_increment, n, survivors)
    assert delta[0] == 1
    assert (delta > 0).sum() == n
    assert (delta.diff() < 0).all()
    bends = delta.diff().diff().abs() > 1e-12
    assert all(abs(index + 1 - n) == 0 for index in bends.nonzero().flatten().tolist())
    if n < survivors:
        assert delta[n] == 0
    if n < survivors - 1:
        assert delta[-1] == pytest.approx(-1, abs=1e-12)
        assert delta.sum().item() == pytest.approx((n + 1) / 2 - (survivors - n) / 2, abs=1e-10)


def test_oracle_01_edges() -> None:
    assert increments(linear_increment, 1, 2).tolist() == [1, 0]
    assert increments(linear_increment, 1, 4).tolist() == [1, 0, -0.5, -1]
    assert increments(linear_increment, 3, 4).tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert increments(linear_increment, 2, 2).tolist() == [1, 0.5]


@given(n=st.integers(1, 200), flatness=st.floats(0.1, 0.75))
@settings(max_examples=80, deadline=None)
def test_oracle_02_exponential_increment(n: int, flatness: float) -> None:
    shape = partial(exponential_increment, flatness=flatness)
    delta = increments(shape, n, n + 20)
    assert delta[0] == 1 and abs(delta[n]) < 1e-12
    assert (delta > 1e-12).sum() == n
    assert (delta[: n + 1].diff() < 0).all() and delta.isfinite().all()
    centre = -log(flatness) / (log(2 / flatness) / n)
    at = torch.linspace(0, 2 * centre, 9, dtype=DOUBLE)[None]
    values = shape(at, row(n), row(n), row(0))[0]
    assert values[4].item() == pytest.approx(flatness, abs=1e-12)
    torch.testing.assert_close(values + values.flip(0), torch.full_like(values, 2 * flatness), rtol=0, atol=1e-12)


def test_oracle_02_exponential_stays_finite_in_wide_layers() -> None:
    delta = increments(exponential_increment, 1, 4608)
    assert delta.isfinite().all() and (delta[2:] < 0).all()


@given(survivors=st.integers(2, 60), progress=st.floats(0, 1), data=st.data())
@settings(max_examples=80, deadline=None)
def test_oracle_02_jump_increment(survivors: int, progress: float, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, survivors - 1))
    delta = increments(jump_increment, n, survivors, progress)
    assert (delta[:n] > 0).all() and (delta[n:] < 0).all()
    assert delta[0] == 1 and delta[-1] == pytest.approx(-1)
    if n > 1:
        assert delta[n - 1].item() == pytest.approx(max(0.75 * progress, 0.05))
    assert (delta.diff() <= 0).all()


# --- one update -----------------------------------------------------------------------------------------------


def test_an_update_by_hand() -> None:
    layers = Layers([2], [5], penalty_step=0.3)
    score = row(3, 1, 5, 2, 4)
    layers.update(score)
    assert layers.standing.penalty[0].tolist() == pytest.approx([0, 0.3, 0, 0.15, 0])
    for _ in range(3):
        layers.update(score)
    assert layers.removed == [[1]]
    assert layers.standing.penalty[0].tolist() == pytest.approx([0, 0, 0, 0.6, 0])
    layers.update(score)  # one to go: the weakest survivor now rises by the full step
    assert layers.standing.penalty[0].tolist() == pytest.approx([0, 0, 0, 0.9, 0])
    # Removed units hold the lowest ranks: for the others nothing has changed.
    assert layers.standing.rank[0, [0, 2, 3, 4]].tolist() == pytest.approx([2, 4, 1, 3])
    layers.update(score)
    assert layers.removed == [[1, 3]] and layers.finished()
    assert not layers.standing.penalty.any()


def test_ranks_of_ties_and_of_the_dead() -> None:
    alive = torch.tensor([[True, False, True, True]])
    assert ranks(row(0, 0, 0, 0), alive)[0, [0, 2, 3]].tolist() == [0, 1, 2]


@pytest.mark.parametrize("shape", [linear_increment, exponential_increment, jump_increment])
def test_oracle_03_penalties_stay_positive_and_removal_is_final(shape: Increment) -> None:
    generator = torch.Generator().manual_seed(0)
    layers = Layers([3, 0, 7, 1, 10, 12], [8, 5, 12, 2, 11, 40], 0.05, increment=shape)
    before = layers.standing.removed
    bias = torch.rand(6, 40, generator=generator, dtype=DOUBLE)
    for _ in range(1500):
        layers.update(bias + torch.rand(6, 40, generator=generator, dtype=DOUBLE))
        standing = layers.standing
        assert (standing.penalty >= 0).all() and (standing.penalty < 1).all()
        assert (before <= standing.removed).all() and not (standing.removed & ~layers.valid).any()
        done = standing.removed.sum(1, keepdim=True) >= layers.counts
        assert not standing.penalty[(done | standing.removed).expand_as(standing.penalty)].any()
        assert (standing.removed.sum(1, keepdim=True) <= layers.counts).all()
        before = standing.removed
    assert layers.finished()


@pytest.mark.parametrize("shape", [linear_increment, exponential_increment, jump_increment])
def test_oracle_04_time_law_counts_the_updates(shape: Increment) -> None:
    for n, m, ratio in [(1, 2, 7.0), (5, 9, 12.3), (32, 64, 100.0), (20, 21, 3.7)]:
        layers = Layers([n], [m], penalty_step=1 / ratio, increment=shape)
        score = torch.rand(1, m, generator=torch.Generator().manual_seed(n), dtype=DOUBLE)
        first = 0
        while not layers.finished():
            layers.update(score)
            if not first and layers.removed[0]:
                first = layers.updates
        assert first == ceil(ratio)
        assert layers.updates == updates_to_finish(ratio, n, m, shape)


def test_oracle_04_time_law_in_closed_form() -> None:
    for n in (1, 32, 288, 461):
        harmonic = sum(1 / k for k in range(1, n + 1))
        assert 0 <= updates_to_finish(1e4, n, 2 * n, linear_increment) - 1e4 * harmonic <= 50 * harmonic + n
    for n, table in ((32, 4.81), (288, 7.47), (1152, 9.16)):
        assert updates_to_finish(1e4, n, 2 * n, exponential_increment) == pytest.approx(1e4 * table, rel=0.01)


@pytest.mark.parametrize("shape", [linear_increment, exponential_increment, jump_increment])
def test_time_law_is_inverted(shape: Increment) -> None:
    for n, updates in ((1, 5), (8, 40), (60, 100), (60, 3000)):
        ratio = ceiling_for(updates, n, 2 * n, shape)
        assert updates_to_finish(ratio, n, 2 * n, shape) <= updates
        assert updates_to_finish(ratio * 1.1, n, 2 * n, shape) > updates


@given(units=st.lists(st.integers(2, 12), min_size=1, max_size=4), ratio=st.floats(0, 0.99), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_oracle_05_exactly_the_weakest_go(units: list[int], ratio: float, seed: int) -> None:
    counts = [min(ceil(ratio * m - 1e-9), m - 1) for m in units]
    layers = Layers(counts, units, penalty_step=0.2)
    score = torch.rand(len(units), max(units), generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
    for _ in range(200):
        layers.update(score)
    assert layers.finished()
    for index, (count_, m) in enumerate(zip(counts, units, strict=True)):
        assert layers.removed[index] == sorted(score[index, :m].argsort()[:count_].tolist())


def test_oracle_08_what_was_weak_goes_free_again() -> None:
    layers = Layers([8], [16])
    score = torch.arange(16, dtype=DOUBLE)[None]
    for _ in range(40):
        layers.update(score)
    squeezed = layers.standing.penalty[0, :8].clone()
    assert (squeezed > 0).all() and not layers.standing.penalty[0, 8:].any()
    layers.how = "none"
    layers.update(-score)
    drops = squeezed - layers.standing.penalty[0, :8]
    assert drops.tolist() == pytest.approx([0.01 * (7 - unit) / 7 for unit in range(8)], abs=1e-12)
    for _ in range(500):
        layers.update(-score)
    assert layers.finished() and layers.removed == [list(range(8, 16))]


def test_oracle_09_averages_of_ranks() -> None:
    history = row(0, 0, 0)
    for count_, rank in enumerate([row(0, 1, 2), row(2, 1, 0)] * 10, 1):
        history = averaged(history, rank, count_, "mean", 0)
    assert history[0].tolist() == pytest.approx([1, 1, 1])
    constant = row(2, 0, 1)
    for how in ("mean", "ema", "none"):
        history = row(9, 9, 9)
        for count_ in range(1, 6):
            history = averaged(history, constant, count_, how, 0.9)
        assert history.tolist() == constant.tolist(), how
    assert averaged(row(1.0), row(3.0), 2, "ema", 0.75).item() == pytest.approx(1.5)
    assert averaged(row(1.0), row(3.0), 2, "none", 0.75).item() == 3


def test_oracle_09_averaging_withstands_jitter() -> None:
    n, m = 32, 64
    law = updates_to_finish(60.0, n, m, linear_increment)
    finish, wrong = {}, {}
    for how in ("mean", "none"):
        layers = Layers([n], [m], penalty_step=1 / 60, how=how)
        generator = torch.Generator().manual_seed(1)
        while not layers.finished() and layers.updates < 4 * law:
            jitter = torch.randn(1, m, generator=generator, dtype=DOUBLE)
            layers.update(torch.arange(m, dtype=DOUBLE) + 0.2 * m * jitter)
        finish[how], wrong[how] = layers.updates, [unit for unit in layers.removed[0] if unit >= n]
    assert finish["mean"] == pytest.approx(law, rel=0.05)
    assert len(wrong["mean"]) <= 2 and all(unit < n + 4 for unit in wrong["mean"])
    assert finish["none"] > 1.5 * law


def test_oracle_17_guard_removes_exactly_what_is_missing() -> None:
    layers = Layers([5, 3, 0], [9, 4, 6], penalty_step=0.2, how="none")
    score = torch.arange(9, dtype=DOUBLE).expand(3, 9)
    for step in range(30):
        layers.update(score if step % 2 else -score)  # a ranking that never settles
    standing = layers.standing
    after = forced(standing, layers.valid, layers.counts)
    assert after.removed.sum(1).tolist() == [5, 3, 0]
    assert (standing.removed <= after.removed).all() and not (after.removed & ~layers.valid).any()
    assert not after.penalty.any()


def test_guard_prefers_penalties_then_ranks() -> None:
    standing = Standing(row(0.1, 0.5, 0, 0), row(0, 3, 2, 1), torch.zeros(1, 4, dtype=torch.bool))
    valid = torch.ones(1, 4, dtype=torch.bool)
    for count_, expected in ((1, [1]), (2, [0, 1]), (3, [0, 1, 3])):
        after = forced(standing, valid, torch.tensor([[count_]]))
        assert after.removed[0].nonzero().flatten().tolist() == expected


# --- the hook on tiny networks --------------------------------------------------------------------------------


def toy(hidden: int = 32, seed: int = 0) -> nn.Module:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(10, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    return cases.seeded(build, seed).double()


def toy_hook(
    model: nn.Module, to_remove: int, coupled: bool = True, plan: Plan | None = None, **fields: Any
) -> Penalties:
    groups = channel_groups(model, torch.zeros(1, 10, dtype=DOUBLE))
    assert [group.name for group in groups] == ["0"]
    method = IncReg.model_validate({"sparsity": HALF, "penalty_max": 1.0, **fields})
    return Penalties(method, plan or Plan(0.02, 10**6, 0), Units(model, groups), {"0": to_remove}, coupled)


def injected(hook: Penalties, penalty: Tensor) -> None:
    """Set penalties that then stay as they are."""
    hook.interval = 10**9
    hook.load_state_dict({**hook.state_dict(), "penalty": penalty})


def fit(
    model: nn.Module,
    hook: Penalties | None,
    optimizer: torch.optim.Optimizer,
    steps: range,
    check: Callable[[int], None] | None = None,
) -> float:
    """Full-batch regression on a fixed teacher; the loop written out."""
    teacher = toy(16, seed=7)
    inputs = torch.randn(64, 10, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
    with torch.no_grad():
        targets = teacher(inputs)
    loss = torch.zeros(())
    for step in steps:
        optimizer.zero_grad()
        loss = F.mse_loss(model(inputs), targets)
        torch.autograd.backward(loss)
        if hook:
            hook.before_step(step, optimizer.param_groups[0]["lr"])
        optimizer.step()
        if hook:
            hook.after_step(step)
        if check:
            check(step)
    return loss.item()


@pytest.mark.parametrize("coupled", [True, False])
def test_oracle_06_quadratic_shrink(coupled: bool) -> None:
    """Minimum of h/2 (w-1)^2 + penalty/2 w^2 is h / (h + penalty)."""
    model = toy(3)
    hook = toy_hook(model, 1, coupled, penalty_max=10.0)
    injected(hook, torch.full((1, 3), 6.13, dtype=DOUBLE))
    curvature = torch.tensor([0.1, 1.0, 10.0], dtype=DOUBLE)[:, None]
    weight = model.get_parameter("0.weight")
    lr = 0.05
    hook._lr = lr
    hook.load_state_dict(hook.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9 if coupled else 0.0)
    for step in range(1, 2000):
        optimizer.zero_grad()
        loss = (curvature * (weight - 1) ** 2).sum() / 2 + 0 * model(torch.zeros(1, 10, dtype=DOUBLE)).sum()
        torch.autograd.backward(loss)
        hook.before_step(step, lr)
        optimizer.step()
        hook.after_step(step)
    if coupled:
        expected = curvature / (curvature + 6.13)
        assert expected.flatten().tolist() == pytest.approx([0.01605, 0.14025, 0.61996], abs=1e-5)
    else:  # fixed point of w <- (w - lr h (w - 1)) / (1 + lr penalty): the same minimum
        expected = lr * curvature / (1 + lr * 6.13 - 1 + lr * curvature)
    torch.testing.assert_close(weight.detach(), expected.expand_as(weight), rtol=1e-5, atol=0)


def test_oracle_07_and_15_weak_units_shrink_before_they_go() -> None:
    model = toy()
    hook = toy_hook(model, 16, plan=Plan(2e-3, 10**6, 0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    before = fit(model, None, optimizer, range(300))
    law = updates_to_finish(500.0, 16, 32, linear_increment)
    first = hook.units.l1()
    hook.load_state_dict({**hook.state_dict(), "first_l1": first})
    fit(model, hook, optimizer, range(400))
    order = hook.standing.rank[0].argsort()
    left = hook.units.l1()[0] / first[0]
    assert left[order[:16]].mean() < 0.03 and left[order[16:]].mean() > 0.8
    assert not hook.standing.removed.any()
    finished: list[int] = []
    after = fit(model, hook, optimizer, range(400, int(1.2 * law)), lambda step: finished.append(missing(hook)))
    assert 400 + finished.index(0) + 1 == pytest.approx(law, rel=0.1)
    assert hook.results()["residual"] < 1e-3
    assert after <= before


def missing(hook: Penalties) -> int:
    return int(hook.to_remove.sum() - hook.standing.removed.sum())


def test_oracle_15_removal_is_harmless() -> None:
    model = toy()
    hook = toy_hook(model, 16, plan=Plan(2e-3, 10**6, 0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    fit(model, None, optimizer, range(300))
    groups = hook.units.groups
    changes: list[float] = []
    inputs = torch.randn(64, 10, generator=torch.Generator().manual_seed(5), dtype=DOUBLE)

    def before_removal(step: int) -> None:
        """One step before a unit reaches the ceiling, remove it by hand and compare answers."""
        rising = hook.standing.penalty[0] + hook.plan.penalty_step >= hook.penalty_max
        if rising.any():
            kept = [unit for unit in range(32) if not rising[unit]]
            with torch.no_grad():
                whole, cut_ = model(inputs), masked(model, groups, {"0": kept})(inputs)
            changes.append(((whole - cut_).abs().max() / whole.abs().max()).item())

    fit(model, hook, optimizer, range(1900), before_removal)
    assert missing(hook) == 0 and len(changes) >= 10
    assert max(changes) < 1e-3


@pytest.mark.parametrize("affine", [True, False])
def test_oracle_10_gradient_is_that_of_the_penalty(affine: bool) -> None:
    model = toy(6)
    hook = toy_hook(model, 2, bn_affine_reg=affine)
    penalty = torch.rand(1, 6, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    injected(hook, penalty)
    inputs = torch.randn(8, 10, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    twin = copy.deepcopy(model)
    torch.autograd.backward(model(inputs).square().mean())
    hook.before_step(1, 0.1)
    own = penalty[0] * twin.get_parameter("0.weight").square().sum(1) / 2
    if affine:
        own = own + penalty[0] * twin.get_parameter("0.bias").square() / 2
    torch.autograd.backward(twin(inputs).square().mean() + own.sum())
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("idle", ["no step", "nothing to remove"])
def test_oracle_11_idle_hook_changes_nothing(idle: str) -> None:
    ends = []
    for hooked in (True, False):
        model = cases.seeded(cases.vgg_net)
        groups = channel_groups(model, torch.zeros(1, *cases.IMAGE))
        to_remove = {group.name: 0 if idle == "nothing to remove" else group.channels // 2 for group in groups}
        plan = Plan(0.0 if idle == "no step" else 0.1, 10**6, 0)
        hook = Penalties(IncReg.model_validate({"sparsity": HALF}), plan, Units(model, groups), to_remove, True)
        train = cases.blobs(cases.IMAGE, 64)
        Trainer(model, train, Recipe(batch_size=16), 9, 0, hook=hook if hooked else None).run()
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def hooked_trainer(optimizer: str = "sgd", **fields: Any) -> tuple[Trainer, Penalties]:
    model = cases.seeded(cases.zero_pad_net)
    groups = channel_groups(model, torch.zeros(1, *cases.IMAGE))
    method = IncReg.model_validate({"sparsity": HALF, **fields})
    to_remove = {group.name: group.channels // 2 for group in groups}
    plan = method.plan(48, groups, to_remove)
    hook = Penalties(method, plan, Units(model, groups), to_remove, optimizer == "sgd")
    recipe = Recipe.model_validate({"optimizer": optimizer, "lr": 0.01, "batch_size": 16, "schedule": "constant"})
    train = cases.blobs(cases.IMAGE, 64)
    return Trainer(model, train, recipe, plan.prune_steps + plan.stabilize_steps, 0, hook=hook), hook


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("fields", [{}, {"update_interval": 3, "rank_average": "ema", "increment": "exp"}])
def test_oracle_12_reproducible_and_resumable(optimizer: str, fields: dict[str, Any]) -> None:
    whole, hook = hooked_trainer(optimizer, **fields)
    records = whole.run()
    for stop in (1, 13, 24, 25):
        first, _ = hooked_trainer(optimizer, **fields)
        first.run(until=stop)
        second, resumed = hooked_trainer(optimizer, **fields)
        second.load_state_dict(first.state_dict())
        assert second.run() == records
        mine, theirs = second.model.state_dict(), whole.model.state_dict()
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
        assert resumed.kept() == hook.kept() and resumed.results() == hook.results()


@pytest.mark.parametrize(
    ("build", "coupled"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=1e-2, nesterov=True), True),
        (lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=1e-2), False),
        (lambda p: torch.optim.AdamW(p, lr=1e-3), False),
        (lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9), False),
    ],
)
def test_oracle_13_removed_units_are_exactly_zero(build: Callable[..., torch.optim.Optimizer], coupled: bool) -> None:
    model = toy(8)
    hook = toy_hook(model, 4, coupled, plan=Plan(0.1, 60, 0))
    seen: list[int] = []

    def check(step: int) -> None:
        gone = hook.standing.removed[0]
        seen.append(int(gone.sum()))
        assert not model.get_parameter("0.weight")[gone].any()
        assert not model.get_parameter("0.bias")[gone].any()
        assert not model.get_parameter("2.weight")[:, gone].any()
        assert model.get_parameter("0.weight")[~gone].all()

    fit(model, hook, build(list(model.parameters())), range(80), check)
    assert 0 in seen and seen[-1] == 4 and seen == sorted(seen)


@pytest.mark.parametrize("net", cases.NETS)
def test_oracle_14_and_16_cut_equals_what_was_trained(net: str) -> None:
    """After the last removal the network in training computes what the cut one does, at the counted cost."""
    example = torch.zeros(1, *cases.IMAGE, dtype=DOUBLE)
    model = cases.seeded(cases.NETS[net], trained=True).double()
    groups = channel_groups(model, example)
    to_remove = {group.name: group.channels // 2 for group in groups}
    hook = Penalties(IncReg.model_validate({"sparsity": HALF}), Plan(1.0, 12, 6), Units(model, groups), to_remove, True)
    data = cases.blobs(cases.IMAGE, 64, dtype=DOUBLE)
    Trainer(model, data, Recipe(lr=0.01, batch_size=16, schedule="constant"), 18, 0, hook=hook).run()
    kept = hook.kept()
    assert {name: len(units) for name, units in kept.items()} == {
        group.name: group.channels - group.channels // 2 for group in groups
    }
    smaller = cut(model, groups, kept)
    with torch.no_grad():
        trained, small, silent = (m(data.inputs) for m in (model, smaller, masked(model, groups, kept)))
    torch.testing.assert_close(small, trained, rtol=0, atol=1e-12)
    torch.testing.assert_close(small, silent, rtol=0, atol=1e-12)
    cost = CostModel(model, example, groups)
    assert cost.flops({name: len(units) for name, units in kept.items()}) == count(smaller, example).flops


# --- the method -----------------------------------------------------------------------------------------------


def problem(steps: int = 60, recipe: Recipe | None = None) -> Problem:
    return Problem(
        model=cases.seeded(cases.vgg_net),
        example=torch.zeros(1, *cases.IMAGE),
        train=cases.blobs(cases.IMAGE, 96),
        validation=cases.blobs(cases.IMAGE, 40, seed=1, noise=0),
        recipe=recipe or Recipe(lr=0.05, batch_size=16),
        steps=steps,
        generator=torch.Generator().manual_seed(0),
    )


def test_history_shows_the_removal() -> None:
    pruned = IncReg.model_validate({"sparsity": HALF}).prune(problem())
    pruning = [record for record in pruned.history if "removed" in record]
    shares = [record["removed"] for record in pruning]
    assert shares == sorted(shares) and shares[-1] == 1
    assert any(record["penalty_mean"] > 0 for record in pruning[:-1]) and pruning[-1]["penalty_mean"] == 0
    assert [record["lr"] for record in pruning] == [0.02] * len(pruning)
    assert pruned.steps == 60 and pruned.history[-1]["step"] == 60
    assert pruned.extra.keys() == {"forced", "residual", "accuracy_cut"}
    assert {name: len(units) for name, units in pruned.kept.items()} == {"0.0": 4, "2.0": 6, "4.0": 8}


def test_planted_redundancy_is_found() -> None:
    """Units that are tiny and unread from the start are the ones that go."""
    task = problem(steps=40)
    weight = task.model.get_parameter("2.0.weight")
    planted = [1, 2, 5, 7, 8, 10]
    with torch.no_grad():
        weight[planted] *= 1e-3
        task.model.get_parameter("4.0.weight")[:, planted] = 0
    pruned = IncReg.model_validate({"sparsity": HALF, "bn_affine_reg": False}).prune(task)
    assert list(pruned.kept["2.0"]) == [unit for unit in range(12) if unit not in planted]


def test_nothing_to_remove_is_plain_fine_tuning() -> None:
    task = problem(steps=7)
    pruned = IncReg.model_validate({"sparsity": {"mode": "uniform", "ratio": 0}}).prune(task)
    assert pruned.steps == 7 and "forced" not in pruned.extra
    assert all(list(units) == list(range(len(units))) for units in pruned.kept.values())


def test_given_step_sets_the_length() -> None:
    method = IncReg.model_validate({"sparsity": HALF, "penalty_max": 1.0, "penalty_step": 0.125})
    groups = channel_groups(problem().model, problem().example)
    plan = method.plan(100, groups, {"0.0": 4, "2.0": 6, "4.0": 8})
    assert plan == Plan(0.125, updates_to_finish(8.0, 8, 16, linear_increment), 5)
    every_third = IncReg.model_validate({**method.model_dump(), "update_interval": 3})
    plan = every_third.plan(200, groups, {"0.0": 4, "2.0": 6, "4.0": 8})
    assert plan == Plan(0.375, 3 * updates_to_finish(8 / 3, 8, 16, linear_increment), 10)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"prune_frac": 0.3, "update_interval": 4},
        {"increment": "exp", "stabilize_frac": 0.2},
        {"increment": "jump"},
        {"penalty_step": 0.1},
        {"penalty_step": 0.1, "stabilize_frac": 0.3, "update_interval": 2},
    ],
)
def test_too_short_a_budget_says_which_would_do(fields: dict[str, Any]) -> None:
    method = IncReg.model_validate({"sparsity": HALF, **fields})
    groups = channel_groups(problem().model, problem().example)
    to_remove = {"0.0": 4, "2.0": 6, "4.0": 8}
    with pytest.raises(InputError, match="remove 8 of 16 units of '4.0' within 2 steps; it needs at least") as error:
        method.plan(2, groups, to_remove)
    enough = int(str(error.value).split()[-1])
    plan = method.plan(enough, groups, to_remove)
    assert 0 < plan.prune_steps <= plan.prune_steps + plan.stabilize_steps <= enough
    with pytest.raises(InputError, match=f"at least {enough}"):
        method.plan(enough - 1, groups, to_remove)


@pytest.mark.parametrize("nesterov", [False, True])
def test_unstable_penalties_are_refused_at_the_true_limit(nesterov: bool) -> None:
    recipe = Recipe(batch_size=16, nesterov=nesterov)
    limit = 3.8 / (2.8 if nesterov else 1.0)
    method = IncReg.model_validate({"sparsity": HALF, "lr_prune": 0.02, "penalty_max": 50 * limit * 1.001})
    with pytest.raises(InputError, match=r"lr_prune \* penalty_max = 0.02 \* .* unstable; it must be below"):
        method.prune(problem(recipe=recipe))
    # The limit against the optimiser itself, on a parabola of this curvature.
    for factor, diverges in ((0.98, False), (1.02, True)):
        weight = nn.Parameter(torch.ones(1, dtype=DOUBLE))
        optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9, nesterov=nesterov)
        for _ in range(400):
            weight.grad = weight.detach() * limit * factor
            optimizer.step()
        assert (abs(weight.item()) > 1) == diverges


def test_every_point_of_the_space_is_stable() -> None:
    space = IncReg.space([LayerGroup("conv", 8, "1x1", 0.0)])
    for name in ("penalty_max", "lr_prune", "prune_frac"):
        assert name in space.names
    highest = 10.0 * 3e-2
    assert highest <= 0.5  # the dampened regime, far from the limit of 3.8
    assert space["penalty_max"].check("penalty_max", 10.0) and space["lr_prune"].check("lr_prune", 3e-2)
    with pytest.raises(InputError):
        space["lr_prune"].check("lr_prune", 4e-2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"penalty_max": 0}, "greater than 0"),
        ({"increment": "square"}, "'linear', 'exp' or 'jump'"),
        ({"prune_frac": 0.8, "stabilize_frac": 0.3}, r"prune_frac \+ stabilize_frac must be at most 1, got 0.8 \+ 0.3"),
        ({"update_interval": 0}, "greater than or equal to 1"),
        ({"lambda_max": 1}, "Extra inputs"),
    ],
)
def test_messages(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        IncReg.model_validate({"sparsity": HALF, **fields})


def test_weight_decay_is_halved_while_pruning() -> None:
    method, recipe = IncReg.model_validate({"sparsity": HALF}), Recipe(weight_decay=4e-4, warmup=0.1)
    pruning = method._recipe(recipe)
    assert pruning == recipe.replaced(weight_decay=2e-4, lr=method.lr_prune, schedule="constant", warmup=0)
    own = IncReg.model_validate({"sparsity": HALF, "weight_decay": 0.0})
    assert own._recipe(recipe).weight_decay == 0


def test_no_waiting_for_the_device_within_a_step() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    task = problem()
    model = task.model.cuda()
    groups = channel_groups(model, task.example.cuda())
    method = IncReg.model_validate({"sparsity": HALF})
    to_remove = {group.name: group.channels // 2 for group in groups}
    hook = Penalties(method, Plan(0.5, 10, 5), Units(model, groups), to_remove, True)
    trainer = Trainer(model, task.train.to("cuda"), task.recipe, 15, 0, hook=hook)
    batch = next(iter(trainer.train.epoch(16, 0)))
    trainer._step(batch, 0.01)
    trainer.step += 1
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(14):
            trainer._step(batch, 0.01)
            trainer.step += 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
