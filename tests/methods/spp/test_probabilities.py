"""Increments, probabilities and draws of SPP against slow versions written out; nothing learns here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import ceil, exp, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from methods.network.channels import channel_groups
from methods.network.thinning import Thinning
from methods.network.units import Units
from methods.ranked.ranking import average_ranks, exponential_increment, updates_to_finish
from methods.spp.probabilities import Plan, Probabilities, sample_participants
from methods.training.trainer import Recipe, Trainer
from tests.methods import cases

DOUBLE = torch.float64
SHAPE = partial(exponential_increment, flatness=0.25)


def row(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=DOUBLE)


# --- the increment (equation 3) --------------------------------------------------------------------------------


def compute_increment_slowly(rank: float, to_go: int, u: float) -> float:
    """Equation 3 word for word, for A = 1."""
    alpha = log(2 / u) / to_go
    centre = log(1 / u) / alpha
    if rank <= centre:
        return exp(-alpha * rank)
    return 2 * u - exp(min(-alpha * (2 * centre - rank), 60))


def increments(at: Sequence[float], to_go: int, u: float = 0.25) -> list[float]:
    found: list[float] = exponential_increment(row(*at), row(to_go), row(0), row(0), u)[0].tolist()
    return found


@given(to_go=st.integers(1, 300), u=st.floats(0.1, 0.75))
@settings(max_examples=60, deadline=None)
def test_oracle_01_increment_is_centre_symmetric(to_go: int, u: float) -> None:
    centre = to_go * log(1 / u) / log(2 / u)
    assert increments([0, to_go, centre], to_go, u) == pytest.approx([1, 0, u], abs=1e-12)
    at = torch.linspace(0, 2 * centre, 11, dtype=DOUBLE).tolist()
    values = increments(at, to_go, u)
    assert [a + b for a, b in zip(values, reversed(values), strict=True)] == pytest.approx([2 * u] * 11, abs=1e-12)
    ranks = range(2 * to_go)
    assert increments(ranks, to_go, u) == pytest.approx(
        [compute_increment_slowly(r, to_go, u) for r in ranks], abs=1e-12
    )


@given(units=st.integers(2, 300), data=st.data())
@settings(max_examples=60, deadline=None)
def test_oracle_02_exactly_so_many_rise(units: int, data: st.DataObject) -> None:
    to_go = data.draw(st.integers(1, units - 1))
    values = torch.tensor(increments(range(units), to_go))
    assert int((values > 1e-12).sum()) == to_go and int((values < -1e-12).sum()) == units - to_go - 1
    # Strictly falling until the exponent is held at 60, where the change is beyond any probability anyway.
    free = values > -1e20
    assert (values[free].diff() < 0).all() and values.isfinite().all()


def test_oracle_02_widest_layers_stay_finite() -> None:
    for units, to_go in ((4608, 1), (512, 51), (4608, 4607)):
        values = torch.tensor(increments(range(units), to_go))
        assert values.isfinite().all() and (values[to_go + 1 :] < 0).all()
        assert values.float().isfinite().all()


# --- the probabilities (equation 4) ----------------------------------------------------------------------------


class Layers:
    """Layers whose scores are given, not learned; nothing is trained."""

    def __init__(
        self,
        to_remove: Sequence[int],
        units: Sequence[int],
        step: float,
        limit: int = 10**9,
        rates: Sequence[float] | None = None,
    ) -> None:
        self.valid = torch.arange(max(units)) < torch.tensor(units)[:, None]
        self.score = torch.zeros(self.valid.shape, dtype=DOUBLE)
        self.weights = nn.Parameter(torch.ones(self.valid.shape))
        thinning = Thinning([], [Whole(self.weights)], self.valid.numel())
        average = partial(average_ranks, how="none", decay=0.0)
        names = [str(index) for index in range(len(units))]
        plan = Plan(step, 1, limit)
        self.hook = Probabilities(self, names, to_remove, plan, thinning, SHAPE, average, 0, rates)

    def importance(self) -> Tensor:
        return self.l1()

    def l1(self) -> Tensor:
        return self.score

    def update(self, score: Tensor) -> None:
        self.score = score
        self.hook.after_step(self.hook._steps)

    @property
    def removed(self) -> Tensor:
        return self.hook.standing.removed

    def is_finished(self) -> bool:
        return bool((self.removed.sum(1, keepdim=True) == self.hook.to_remove).all())


class Whole:
    """One tensor whose elements are the units."""

    def __init__(self, parameter: Tensor) -> None:
        self.parameter, self.broadcast = parameter, tuple(parameter.shape)
        self.units = torch.arange(parameter.numel())


def update_slowly(p: list[float], score: list[float], to_remove: int, step: float) -> list[float]:
    """Equation 4 for one layer; a probability of 1 is final."""
    alive = [unit for unit in range(len(p)) if p[unit] < 1]
    to_go = to_remove - (len(p) - len(alive))
    if to_go == 0:
        return p
    new = list(p)
    for rank, unit in enumerate(sorted(alive, key=lambda unit: score[unit])):
        new[unit] = min(max(p[unit] + step * compute_increment_slowly(rank, to_go, 0.25), 0.0), 1.0)
        if new[unit] >= 1 - 1e-6:
            new[unit] = 1.0
    finished = sum(value == 1 for value in new) == to_remove
    return [0.0 if finished and value < 1 else value for value in new]


@given(
    units=st.lists(st.integers(2, 9), min_size=1, max_size=3),
    ratio=st.floats(0, 0.99),
    step=st.floats(0.02, 1),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_updates_are_equation_4(units: list[int], ratio: float, step: float, seed: int) -> None:
    to_remove = [min(ceil(ratio * size - 1e-9), size - 1) for size in units]
    layers = Layers(to_remove, units, step)
    slow = [[0.0] * size for size in units]
    generator = torch.Generator().manual_seed(seed)
    base = torch.rand(layers.valid.shape, generator=generator, dtype=DOUBLE)
    for _ in range(60):
        score = base + 0.3 * torch.rand(layers.valid.shape, generator=generator, dtype=DOUBLE)
        layers.update(score)
        slow = [
            update_slowly(p, scores[: len(p)], n, step)
            for p, scores, n in zip(slow, score.tolist(), to_remove, strict=True)
        ]
        for mine, theirs in zip(layers.hook.probability, slow, strict=True):
            assert mine[: len(theirs)].tolist() == pytest.approx(theirs, abs=1e-9)


def test_oracle_03_probabilities_stay_probabilities_and_1_is_final() -> None:
    layers = Layers([3, 0, 7, 1, 10, 30], [8, 5, 12, 2, 11, 64], 0.05)
    generator = torch.Generator().manual_seed(0)
    bias = torch.rand(6, 64, generator=generator, dtype=DOUBLE)
    before = layers.removed
    for _ in range(2000):
        layers.update(bias + 0.5 * torch.rand(6, 64, generator=generator, dtype=DOUBLE))
        p = layers.hook.probability
        assert 0 <= p.min() and p.max() <= 1
        assert (p[layers.removed] == 1).all() and (before <= layers.removed).all()
        assert (layers.removed.sum(1) <= layers.hook.to_remove[:, 0]).all()
        before = layers.removed
        if layers.is_finished():
            break
    assert not layers.hook.probability[1].any(), "nothing to remove: nothing is ever left out"


@given(units=st.lists(st.integers(2, 40), min_size=1, max_size=4), ratio=st.floats(0, 0.99), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_oracle_04_frozen_ranking_removes_exactly_the_weakest(units: list[int], ratio: float, seed: int) -> None:
    to_remove = [min(ceil(ratio * size - 1e-9), size - 1) for size in units]
    layers = Layers(to_remove, units, 0.2)
    score = torch.rand(layers.valid.shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
    while not layers.is_finished():
        layers.update(score)
    for own, removed, n, size in zip(score, layers.removed, to_remove, units, strict=True):
        assert removed.nonzero().flatten().tolist() == sorted(own[:size].argsort()[:n].tolist())
    assert not layers.hook.standing.penalty.any(), "survivors of a finished layer are never left out"


@pytest.mark.parametrize(("to_go", "law"), [(8, 65), (32, 99), (288, 153), (1152, 188)])
def test_oracle_05_and_06_update_counts(to_go: int, law: int) -> None:
    """The dossier's table, by the law that plans budgets and by the updates themselves, whatever the width."""
    assert updates_to_finish(1 / 0.05, to_go, 2 * to_go, SHAPE) == pytest.approx(law, abs=1)
    for units in (to_go + 1, 2 * to_go):
        layers = Layers([to_go], [units], 0.05)
        first = None
        while not layers.is_finished():
            layers.update(torch.arange(units, dtype=DOUBLE)[None])
            if first is None and layers.removed.any():
                first = layers.hook.updates
        assert first == ceil(1 / 0.05 - 1e-9) == 20
        assert layers.hook.updates == pytest.approx(law, abs=1)


@pytest.mark.parametrize("step", [0.02, 0.07, 0.3, 1 / 3, 1.0])
def test_oracle_06_first_removal(step: float) -> None:
    layers = Layers([5], [9], step)
    while not layers.removed.any():
        layers.update(torch.arange(9, dtype=DOUBLE)[None])
    assert layers.hook.updates == ceil(1 / step - 1e-9)


def test_oracle_12_what_becomes_strong_recovers() -> None:
    layers = Layers([8], [16], 0.05)
    score = torch.arange(16, dtype=DOUBLE)[None]
    for _ in range(10):
        layers.update(score)
    assert layers.hook.probability[0, 0] == pytest.approx(0.5)
    score[0, 0] = 99
    updates = 0
    while layers.hook.probability[0, 0] > 0:
        layers.update(score)
        updates += 1
    while not layers.is_finished():
        layers.update(score)
    assert updates < 20 and not layers.removed[0, 0]


def test_oracle_13_the_guard_finishes_with_the_exact_ratio() -> None:
    layers = Layers([5, 3, 0], [9, 4, 6], 0.2, limit=40)
    score = torch.arange(9, dtype=DOUBLE).expand(3, 9)
    for index in range(40):
        assert not layers.hook.finished
        layers.update(score if index % 2 else -score)  # a ranking that never settles
    assert layers.is_finished() and layers.hook.finished
    missing = layers.hook.results()["forced"]
    assert 0 < missing <= 8 and missing == float(int(missing))


def test_oracle_13_the_guard_takes_the_likeliest() -> None:
    layers = Layers([2], [4], 0.3, limit=2)
    layers.update(row(0, 3, 2, 1))
    layers.update(row(0, 3, 2, 1))
    assert layers.hook.results()["forced"] == 2 and layers.removed.tolist() == [[True, False, False, True]]


def test_rates_of_layers() -> None:
    quick, slow = Layers([4, 4], [9, 9], 0.1), Layers([4, 4], [9, 9], 0.1, rates=[1.0, 0.5])
    score = torch.arange(9, dtype=DOUBLE).expand(2, 9)
    for _ in range(6):
        quick.update(score)
        slow.update(score)
    assert torch.equal(slow.hook.probability[0], quick.hook.probability[0])
    torch.testing.assert_close(slow.hook.probability[1], quick.hook.probability[1] / 2)


@pytest.mark.parametrize(("rate", "updates"), [(2.0, 1), (1.0, 2), (0.5, 4)])
def test_what_arrives_at_1_is_silent_at_once_at_any_rate(rate: float, updates: int) -> None:
    layers = Layers([1], [3], 0.5, rates=[rate])
    for update in range(updates):
        assert layers.weights.bool().all(), update
        layers.update(row(0, 1, 2))
    assert layers.removed.tolist() == [[True, False, False]] and layers.weights.tolist() == [[0, 1, 1]]


def test_records_tell_how_far_the_probabilities_are() -> None:
    layers = Layers([1, 2], [3, 5], 0.4)
    for updates in range(1, 4):  # in the third, the first unit of a layer arrives at 1
        layers.update(torch.arange(5, dtype=DOUBLE).expand(2, 5))
        record, left = layers.hook.epoch_end(), layers.valid & ~layers.removed
        assert record["probability_mean"] == pytest.approx(float(layers.hook.standing.penalty[left].mean()))
        assert record["probability_max"] == float(layers.hook.standing.penalty.max())
        gone = [int(row.sum()) for row in layers.removed]
        assert (record["removed[0]"], record["removed[1]"]) == pytest.approx((gone[0] / 3, gone[1] / 5))
        assert record["removed"] == pytest.approx(sum(gone) / 3) and (sum(gone) > 0) == (updates == 3)
        assert layers.hook.finished == (gone == [1, 2])


# --- the draws (equation 2) ------------------------------------------------------------------------------------


def test_oracle_07_density_of_the_masks() -> None:
    p = row(0, 0.1, 0.5, 0.9, 1)
    generator = torch.Generator().manual_seed(0)
    mean = torch.stack([sample_participants(p, generator) for _ in range(2000)]).double().mean(0)
    assert ((mean - (1 - p)).abs() <= 5 * (p * (1 - p) / 2000).sqrt()).all()
    assert mean[0, 0] == 1 and mean[0, 4] == 0


def test_oracle_08_masks_are_independent() -> None:
    p = torch.full((3, 4), 0.5, dtype=DOUBLE)
    generator = torch.Generator().manual_seed(1)
    draws = torch.stack([sample_participants(p, generator).flatten() for _ in range(2000)]).double()
    correlation = torch.corrcoef(draws.T) - torch.eye(12)
    assert correlation.abs().max() < 5 / 2000**0.5
    successive = torch.corrcoef(torch.stack([draws[:-1].flatten(), draws[1:].flatten()]))[0, 1]
    assert successive.abs() < 5 / (12 * 2000) ** 0.5
    other = torch.stack([sample_participants(p, torch.Generator().manual_seed(seed)) for seed in range(50)]).flatten(1)
    assert len({tuple(mask) for mask in other.tolist()}) == 50


# --- a network that does not learn -----------------------------------------------------------------------------


def test_oracle_17_planted_redundancy_is_found() -> None:
    """Learning rate 0; half of the hidden units are tiny and unread: exactly these go, the answers stay."""
    model = cases.seeded(lambda: nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 4))).double()
    planted = [0, 3, 4, 7, 9, 12, 13, 15]
    with torch.no_grad():
        model.get_parameter("0.weight")[planted] *= 1e-3
        model.get_parameter("2.weight")[:, planted] = 0
    data = cases.blobs((10,), 64, dtype=DOUBLE)
    before = model(data.inputs)
    units = Units(model, channel_groups(model, data.inputs[:1]))
    thinning = Thinning([*units.producers, *units.affine], units.consumers, units.valid.numel())
    average = partial(average_ranks, how="none", decay=0.0)
    hook = Probabilities(units, ["0"], [8], Plan(0.2, 1, 60), thinning, SHAPE, average, 0)
    trainer = Trainer(model, data, Recipe(batch_size=16), 60, 0, hook=hook, rate=lambda step: 0.0)
    trainer.run(until=50)
    assert hook.standing.removed[0].nonzero().flatten().tolist() == planted
    assert hook.results()["forced"] == 0
    torch.testing.assert_close(model(data.inputs), before, rtol=0, atol=1e-12)
