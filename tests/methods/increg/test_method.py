"""IncReg: its mathematics against hand-computed numbers, and its behaviour on problems with known answers."""

from __future__ import annotations

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

from methods.contract.method import Problem
from methods.increg.method import IncReg
from methods.increg.pacing import Plan
from methods.network.channels import channel_groups
from methods.network.cost import count
from methods.ranked.columns import rates_by_layer
from methods.ranked.ranking import (
    Increment,
    Standing,
    average_ranks,
    exponential_increment,
    find_ceiling,
    force_removals,
    jump_increment,
    linear_increment,
    ranks,
    update_penalties,
    updates_to_finish,
)
from methods.training.trainer import Diverged, Recipe
from spaces import Categorical, InputError, Integer, LayerGroup, LogReal, Real
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
        self.standing = update_penalties(
            self.standing,
            score,
            self.valid,
            self.counts,
            penalty_step=self.penalty_step,
            penalty_max=self.penalty_max,
            increment=self.increment,
            average=lambda history, rank: average_ranks(history, rank, self.updates, self.how, 0.9),
        )

    @property
    def removed(self) -> list[list[int]]:
        return [r.nonzero().flatten().tolist() for r in self.standing.removed]

    def is_finished(self) -> bool:
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
    assert layers.removed == [[1, 3]] and layers.is_finished()
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
    assert layers.is_finished()


@pytest.mark.parametrize("shape", [linear_increment, exponential_increment, jump_increment])
def test_oracle_04_time_law_counts_the_updates(shape: Increment) -> None:
    for n, m, ratio in [(1, 2, 7.0), (5, 9, 12.3), (32, 64, 100.0), (20, 21, 3.7)]:
        layers = Layers([n], [m], penalty_step=1 / ratio, increment=shape)
        score = torch.rand(1, m, generator=torch.Generator().manual_seed(n), dtype=DOUBLE)
        first = 0
        while not layers.is_finished():
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
        ratio = find_ceiling(updates, n, 2 * n, shape)
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
    assert layers.is_finished()
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
    assert layers.is_finished() and layers.removed == [list(range(8, 16))]


def test_oracle_09_averages_of_ranks() -> None:
    history = row(0, 0, 0)
    for count_, rank in enumerate([row(0, 1, 2), row(2, 1, 0)] * 10, 1):
        history = average_ranks(history, rank, count_, "mean", 0)
    assert history[0].tolist() == pytest.approx([1, 1, 1])
    constant = row(2, 0, 1)
    for how in ("mean", "ema", "none"):
        history = row(9, 9, 9)
        for count_ in range(1, 6):
            history = average_ranks(history, constant, count_, how, 0.9)
        assert history.tolist() == constant.tolist(), how
    assert average_ranks(row(1.0), row(3.0), 2, "ema", 0.75).item() == pytest.approx(1.5)
    assert average_ranks(row(1.0), row(3.0), 2, "none", 0.75).item() == 3


def test_oracle_09_averaging_withstands_jitter() -> None:
    n, m = 32, 64
    law = updates_to_finish(60.0, n, m, linear_increment)
    finish, wrong = {}, {}
    for how in ("mean", "none"):
        layers = Layers([n], [m], penalty_step=1 / 60, how=how)
        generator = torch.Generator().manual_seed(1)
        while not layers.is_finished() and layers.updates < 4 * law:
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
    after = force_removals(standing, layers.valid, layers.counts)
    assert after.removed.sum(1).tolist() == [5, 3, 0]
    assert (standing.removed <= after.removed).all() and not (after.removed & ~layers.valid).any()
    assert not after.penalty.any()


def test_guard_prefers_penalties_then_ranks() -> None:
    standing = Standing(row(0.1, 0.5, 0, 0), row(0, 3, 2, 1), torch.zeros(1, 4, dtype=torch.bool))
    valid = torch.ones(1, 4, dtype=torch.bool)
    for count_, expected in ((1, [1]), (2, [0, 1]), (3, [0, 1, 3])):
        after = force_removals(standing, valid, torch.tensor([[count_]]))
        assert after.removed[0].nonzero().flatten().tolist() == expected


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
        known=cases.find_anatomy(cases.vgg_net),
    )


def increg(**fields: Any) -> IncReg:
    return IncReg.model_validate({"sparsity": HALF, **fields})


LAYERS = [LayerGroup("0.0", 8, "8x8", 0.0), LayerGroup("2.0", 12, "4x4", 0.5), LayerGroup("4.0", 16, "2x2", 1.0)]
COUNTS = [4, 6, 8]


def test_only_channels_have_a_cost_that_is_known_before() -> None:
    task = problem(steps=0)
    seen = increg().preview(task)
    assert seen is not None and seen.kept == {"0.0": 4, "2.0": 6, "4.0": 8}
    assert seen.flops == task.cost.flops(seen.kept) and seen.params == task.cost.params(seen.kept)
    assert increg(granularity="column").preview(task) is None


def test_history_shows_the_removal() -> None:
    task = problem()
    pruned = increg(lr_prune_factor=0.4).prune(task)
    pruning = [record for record in pruned.history if "removed" in record]
    shares = [record["removed"] for record in pruning]
    assert shares == sorted(shares) and shares[-1] == 1
    assert pruning[-1] | {"removed[0.0]": 0.5, "removed[2.0]": 0.5, "removed[4.0]": 0.5} == pruning[-1]
    assert any(0 < record["penalty_mean"] < record["penalty_max"] for record in pruning[:-1])
    assert pruning[-1]["penalty_max"] == 0
    assert [record["lr"] for record in pruning] == pytest.approx([0.02] * len(pruning))
    costs = [record["flops_if_cut"] for record in pruning]
    assert costs == sorted(costs, reverse=True) and costs[-1] == count(pruned.model, task.example).flops
    assert pruned.steps == 60 and pruned.history[-1]["step"] == 60
    assert pruned.extra.keys() == {"forced", "residual", "penalty_step", "update_interval", "accuracy_cut"}
    assert {name: len(units) for name, units in pruned.kept.items()} == {"0.0": 4, "2.0": 6, "4.0": 8}


def test_planted_redundancy_is_found() -> None:
    """Units that are tiny and unread from the start are the ones that go."""
    task = problem(steps=40)
    weight = task.model.get_parameter("2.0.weight")
    planted = [1, 2, 5, 7, 8, 10]
    with torch.no_grad():
        weight[planted] *= 1e-3
        task.model.get_parameter("4.0.weight")[:, planted] = 0
    pruned = increg(bn_affine_reg=False).prune(task)
    assert list(pruned.kept["2.0"]) == [unit for unit in range(12) if unit not in planted]


@pytest.mark.parametrize("granularity", ["filter", "column", "in_channel", "spatial"])
def test_nothing_to_remove_is_plain_fine_tuning(granularity: str) -> None:
    nothing = {"mode": "uniform", "ratio": 0}
    pruned = increg(sparsity=nothing, granularity=granularity).prune(problem(steps=3))
    assert pruned.steps == 3 and "forced" not in pruned.extra
    assert all(list(units) == list(range(len(units))) for units in pruned.kept.values())


# --- its plan ---------------------------------------------------------------------------------------------------


@given(
    steps=st.integers(10, 20_000),
    n=st.integers(1, 15),
    frac=st.floats(0.2, 0.8),
    interval=st.integers(1, 20),
    rate=st.floats(0.25, 4),
)
@settings(max_examples=40, deadline=None)
def test_oracle_04_the_plan_is_the_time_law_turned_round(
    steps: int, n: int, frac: float, interval: int, rate: float
) -> None:
    """The step is the smallest one, to a tenth, with which all layers are done within the share of the budget."""
    method = increg(prune_frac=frac, update_interval=interval)
    try:
        plan = method.plan(steps, LAYERS, [1, 0, n], [1.0, 9.0, rate])
    except InputError:
        assert updates_to_finish(min(1, rate) / rate, n, 16, linear_increment) > int(frac * steps)
        return
    assert plan.prune_steps == int(frac * steps) and plan.update_interval <= interval
    updates = ceil(plan.prune_steps / plan.update_interval)

    def count_needed(step: float) -> int:
        times = [updates_to_finish(2.5 / step, 1, 8, linear_increment)]
        return max(*times, updates_to_finish(2.5 / (step * rate), n, 16, linear_increment))

    assert count_needed(plan.penalty_step) <= updates
    if updates > 40:
        assert count_needed(plan.penalty_step / 1.1) > updates
    if plan.update_interval < interval:
        fastest = 2.5 / min(1.0, rate)
        assert ceil(plan.prune_steps / (plan.update_interval + 1)) < count_needed(fastest), "a longer one would not fit"


def test_given_step_sets_the_length() -> None:
    method = increg(penalty_max=1.0, penalty_step=0.125)
    plan = method.plan(100, LAYERS, COUNTS)
    assert plan == Plan(0.125, 1, updates_to_finish(8.0, 8, 16, linear_increment), 5)
    every_third = IncReg.model_validate({**method.model_dump(), "update_interval": 3})
    plan = every_third.plan(200, LAYERS, COUNTS)
    assert plan == Plan(0.375, 3, 3 * updates_to_finish(8 / 3, 8, 16, linear_increment), 10)


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
    method = increg(**fields)
    with pytest.raises(InputError, match="remove 8 of 16 units of '4.0' within 2 steps; it needs at least") as error:
        method.plan(2, LAYERS, COUNTS)
    enough = int(str(error.value).split("at least ")[1].split(",")[0])
    plan = method.plan(enough, LAYERS, COUNTS)
    assert 0 < plan.prune_steps <= plan.prune_steps + plan.stabilize_steps <= enough
    with pytest.raises(InputError, match=f"at least {enough}") as short:
        method.plan(enough - 1, LAYERS, COUNTS)
    reached = int(str(short.value).split("(")[1].split(" of")[0])
    assert f"reach a ratio of {reached / 16:.3f} ({reached} of 16)" in str(short.value)
    if reached:
        method.plan(enough - 1, LAYERS[2:], [reached])
    with pytest.raises(InputError, match="cannot remove"):
        method.plan(enough - 1, LAYERS[2:], [reached + 1])


def test_rates_of_layers() -> None:
    """A layer of half the rate has half the step, and decides how long it takes."""
    groups = channel_groups(problem().model, problem().example)
    assert rates_by_layer({"2.0": 0.5}, LAYERS, groups) == [1.0, 0.5, 1.0]
    method = increg()
    plan = method.plan(1000, LAYERS, [0, 8, 8], [1.0, 0.5, 1.0])
    # Not exactly twice: both times are whole updates.
    assert plan.penalty_step == pytest.approx(2 * method.plan(1000, LAYERS, [0, 8, 8]).penalty_step, rel=1e-3)
    with pytest.raises(InputError, match="unknown layer in layer_rates: '2.00'; did you mean '2.0'"):
        increg(rates="layer", layer_rates={"2.00": 0.5}).prune(problem())
    columns = [LayerGroup("2.0", 72, "4x4", 0.0), LayerGroup("7", 16, "1x1", 1.0)]
    assert rates_by_layer({"2.0": 0.5}, columns, groups) == [0.5, 1.0]
    assert rates_by_layer({"7": 3.0}, columns, groups) == [1.0, 3.0]
    pruned = increg(rates="layer", layer_rates={"2.0": 3.0}).prune(problem())
    first = next(record for record in pruned.history if 0 < record["removed[2.0]"])
    assert first["removed[2.0]"] > first["removed[0.0]"]


@pytest.mark.parametrize("nesterov", [False, True])
def test_unstable_penalties_are_warned_of_at_the_true_limit(nesterov: bool) -> None:
    recipe = Recipe(batch_size=16, nesterov=nesterov, lr=0.02)
    limit = 3.8 / (2.8 if nesterov else 1.0)
    increg(penalty_max=50 * limit * 0.999)._warn_if_unstable(recipe)
    method = increg(penalty_max=50 * limit * 1.001)
    message = rf"learning rate \* penalty_max = 0.02 \* .* momentum 0.9 unstable; it should be below {limit:.3g}"
    with pytest.warns(UserWarning, match=message):
        method.prune(problem(recipe=recipe))
    increg(penalty_max=1e4)._warn_if_unstable(Recipe(optimizer="adamw"))
    # The limit against the optimiser itself, on a parabola of this curvature.
    for factor, diverges in ((0.98, False), (1.02, True)):
        weight = nn.Parameter(torch.ones(1, dtype=DOUBLE))
        optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9, nesterov=nesterov)
        for _ in range(400):
            weight.grad = weight.detach() * limit * factor
            optimizer.step()
        assert (abs(weight.item()) > 1) == diverges


def test_a_network_that_blows_up_is_reported() -> None:
    recipe = Recipe(optimizer="adamw", batch_size=16, lr=1e38)
    with pytest.raises(Diverged, match=r"not finite at step 1 \(it was \d[0-9.]* before\)"):
        increg().prune(problem(recipe=recipe))


# --- its space --------------------------------------------------------------------------------------------------


def test_the_space_is_that_of_the_paper() -> None:
    space = IncReg.space(LAYERS)
    own = {name: parameter for name, parameter in space.items() if not name.startswith("sparsity.")}
    assert own == {
        "granularity": Categorical(("filter", "column", "in_channel", "spatial"), "filter"),
        "penalty_max": LogReal(0.1, 10, 2.5),
        "prune_frac": Real(0.2, 0.8, 0.5),
        "rates": Categorical(("network", "layer"), "network"),
        **{f"layer_rates[{layer.name}]": LogReal(0.25, 4, 1) for layer in LAYERS},
        "increment": Categorical(("linear", "exp", "jump"), "linear"),
        "exp_flatness": Real(0.1, 0.75, 0.25),
        "rank_average": Categorical(("mean", "ema", "none"), "mean"),
        "rank_ema": Real(0.9, 0.999, 0.99),
        "update_interval": Integer(1, 20, log=True, default=1),
        "stabilize_frac": Real(0, 0.2, 0.05),
        "lr_prune_factor": LogReal(0.05, 1, 1),
        "weight_decay_factor": LogReal(0.02, 4, 0.5),
        "bn_affine_reg": Categorical((False, True), True),
    }
    conditions = {name: str(space.condition(name)) for name in own if space.condition(name)}
    assert conditions == {
        **{f"layer_rates[{layer.name}]": "rates = 'layer'" for layer in LAYERS},
        "exp_flatness": "increment = 'exp'",
        "rank_ema": "rank_average = 'ema'",
        "bn_affine_reg": "granularity = 'filter'",
    }


def test_defaults_are_those_of_the_method() -> None:
    point = IncReg.space(LAYERS).defaults()
    assert point is not None
    method = IncReg.from_point(point)
    assert method == IncReg.model_validate({"sparsity": method.sparsity})


@pytest.mark.parametrize("granularity", ["filter", "column", "in_channel", "spatial"])
@pytest.mark.parametrize("mode", ["flops", "uniform", "stage", "layer", "energy"])
def test_points_of_the_space_prune_whatever_a_unit_is(granularity: str, mode: str) -> None:
    """Ratios and rates bear the names of channel groups; a budget of some epochs is enough for any of them."""
    task = problem(steps=120)
    layers = [group.layer for group in channel_groups(task.model, task.example)]
    space = IncReg.space(layers).narrow({"granularity": granularity, "sparsity.mode": mode, "rates": "layer"})
    for seed in range(2):
        IncReg.from_point(space.sample(seed))
    point = {**space.sample(3), "update_interval": 20, "stabilize_frac": 0.2, "prune_frac": 0.5}
    pruned = IncReg.from_point(point).prune(problem(steps=24))
    assert pruned.steps == 24 and pruned.extra["update_interval"] < 20


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"penalty_max": 0}, "greater than 0"),
        ({"increment": "square"}, "'linear', 'exp' or 'jump'"),
        ({"granularity": "row"}, "'filter', 'column', 'in_channel' or 'spatial'"),
        ({"prune_frac": 0.8, "stabilize_frac": 0.3}, r"prune_frac \+ stabilize_frac must be at most 1, got 0.8 \+ 0.3"),
        ({"layer_rates": {"a": 2.0}}, r"layer_rates go with rates 'layer', got \{'a': 2.0\} and 'network'"),
        ({"rates": "layer"}, r"layer_rates go with rates 'layer', got \{\} and 'layer'"),
        ({"rates": "layer", "layer_rates": {"a": 0}}, "greater than 0"),
        ({"update_interval": 0}, "greater than or equal to 1"),
        ({"lambda_max": 1}, "Extra inputs"),
        ({"lr_prune": 0.02}, "Extra inputs"),
    ],
)
def test_messages(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        increg(**fields)


@pytest.mark.parametrize("decay", [1e-4, 5e-4])
def test_weight_decay_is_halved_while_pruning_whatever_the_recipe_has(decay: float) -> None:
    point, recipe = IncReg.space(LAYERS).defaults(), Recipe(weight_decay=decay, warmup=0.1, lr=0.1)
    assert point is not None
    pruning = IncReg.from_point(point | {"lr_prune_factor": 0.05})._recipe(recipe)
    assert pruning == recipe.with_changes(weight_decay=decay / 2, lr=0.1 * 0.05, schedule="constant", warmup=0)
    assert increg(weight_decay=0.0)._recipe(recipe).weight_decay == 0
