"""SPP: training with it against training written out, and the method on problems with known answers."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from methods.contract.method import Problem
from methods.contract.recipe import derive_seed
from methods.network.channels import ChannelGroup, channel_groups, cut, mask_units
from methods.network.cost import CostModel, count
from methods.network.scope import Shortcuts
from methods.network.thinning import Thinning
from methods.network.units import Units
from methods.ranked.ranking import average_ranks, updates_to_finish
from methods.spp.method import MARGIN, SPP
from methods.spp.probabilities import Plan, Probabilities, sample_participants
from methods.training.trainer import Diverged, Recipe, Trainer
from spaces import InputError, LayerGroup
from tests.methods import cases
from tests.methods.network.test_thinning import mark_still_elements

DOUBLE = torch.float64
HALF = {"mode": "uniform", "ratio": 0.5}
SHAPE = SPP.model_validate({"sparsity": HALF}).increment()


# --- the hook on tiny networks ---------------------------------------------------------------------------------


class Job:
    """A trainer with the hook, and what was drawn."""

    def __init__(
        self,
        net: str,
        recipe: Recipe,
        plan: Plan,
        ratio: float = 0.5,
        dtype: torch.dtype = DOUBLE,
        device: str = "cpu",
    ) -> None:
        self.example = torch.zeros(1, *cases.IMAGE, dtype=dtype, device=device)
        self.data = cases.blobs(cases.IMAGE, 64, noise=0, dtype=dtype).to(device)
        self.model = cases.seeded(cases.NETS[net], trained=True).to(device, dtype)
        self.units = Units(self.model, channel_groups(self.model, self.example))
        lanes = Shortcuts(self.model, self.units.groups, self.units.valid)
        own = [*self.units.producers, *self.units.affine]
        thinning = Thinning(own, self.units.consumers, self.units.valid.numel(), lanes.close)
        names = [group.name for group in self.units.groups]
        to_remove = [int(ratio * group.channels) for group in self.units.groups]
        average = partial(average_ranks, how="ema", decay=0.7)
        self.hook = Probabilities(self.units, names, to_remove, plan, thinning, SHAPE, average, 7)
        self.trainer = Trainer(self.model, self.data, recipe, plan.prune_steps + 6, 0, hook=self.hook)
        self.drawn: list[Tensor] = []
        begin = thinning.begin

        def note(kept: Tensor) -> None:
            self.drawn.append(kept.clone())
            begin(kept)

        setattr(thinning, "begin", note)  # noqa: B010  # mypy knows that it is a method

        if recipe.clip_norm is not None:
            thinning.mask_gradients()

    def run(self, until: int | None = None) -> None:
        self.trainer.run(until)


SGD = Recipe(lr=0.05, batch_size=16, nesterov=True, weight_decay=0.01, schedule="constant")
ADAMW = Recipe(optimizer="adamw", lr=3e-3, batch_size=16, weight_decay=0.1, schedule="constant")
RECIPES = {
    "sgd": SGD,
    "adamw": ADAMW,
    "clipped": SGD.with_changes(clip_norm=0.5),
    "pieces": SGD.with_changes(accumulate=3, bf16=True, channels_last=True),
}


@pytest.mark.parametrize(
    ("net", "clip"),
    [("plain", None), ("projection", 0.3), ("zero_pad", None), ("grouped", 0.3), ("depthwise", None), ("linear", 0.3)],
)
def test_oracle_10_and_11_training_is_that_of_thinned_networks(net: str, clip: float | None) -> None:
    """The masks that were drawn, plain SGD element by element, gradients of masked copies of the network."""
    job = Job(net, SGD.with_changes(clip_norm=clip, nesterov=False), Plan(0.45, 1, 10))
    slow, groups = copy.deepcopy(job.model), job.units.groups
    momentum = {name: torch.zeros_like(p) for name, p in slow.named_parameters()}
    for step in range(12):
        job.run(until=step + 1)
        assert len(job.drawn) == step, "one draw per step, none before the first update"
        kept = job.units.list_kept(~job.drawn[-1]) if step else job.units.list_kept(~job.units.valid)
        thin = mask_one_by_one(slow, groups, kept).train()
        inputs, labels = next(itertools.islice(job.data.epoch(16, seed=derive_seed(0, step // 4)), step % 4, None))
        torch.autograd.backward(nn.functional.cross_entropy(thin(inputs), labels))
        still = mark_still_elements(thin, groups, kept)
        gradients = {
            name: p.grad.masked_fill(still[name], 0) for name, p in thin.named_parameters() if p.grad is not None
        }
        norm = torch.cat([g.flatten() for g in gradients.values()]).norm()
        factor = 1.0 if clip is None else min(1.0, clip / (float(norm) + 1e-6))
        gone = mark_still_elements(slow, groups, job.units.list_kept(job.hook.standing.removed))
        with torch.no_grad():
            for name, parameter in slow.named_parameters():
                decay = 0.01 if parameter.ndim > 1 else 0.0
                change = 0.9 * momentum[name] + factor * gradients[name] + decay * parameter
                momentum[name] = torch.where(still[name], momentum[name], change)
                parameter.sub_(torch.where(still[name], 0.0, 0.05 * change))
                parameter[gone[name]] = 0
        for mine, theirs in zip(job.model.parameters(), slow.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-11)
    assert job.hook.finished
    assert any(not kept[job.units.valid].all() for kept in job.drawn[:2]), "probabilities between 0 and 1 were seen"


def mask_one_by_one(model: nn.Module, groups: list[ChannelGroup], kept: dict[str, list[int]]) -> nn.Module:
    """As :func:`mask_units`, which refuses to silence all units of a group at once."""
    silent = copy.deepcopy(model)
    for group in groups:
        for unit in set(range(group.channels)) - set(kept[group.name]):
            silent = mask_units(silent, groups, {group.name: [u for u in range(group.channels) if u != unit]})
    return silent


@pytest.mark.parametrize("name", RECIPES)
def test_oracle_03_removed_units_are_zero_after_every_step(name: str) -> None:
    job = Job("zero_pad", RECIPES[name], Plan(0.3, 2, 16), dtype=torch.float32)
    seen = set()
    for step in range(22):
        job.run(until=step + 1)
        removed = job.hook.standing.removed
        seen.add(int(removed.sum()))
        gone = mark_still_elements(job.model, job.units.groups, job.units.list_kept(removed))
        assert not any(parameter[gone[key]].any() for key, parameter in job.model.named_parameters())
    assert len(seen) > 2 and max(seen) == int(job.hook.to_remove.sum())
    assert len(job.drawn) == 20, "pieces of a batch share their draw"


@pytest.mark.parametrize("name", RECIPES)
def test_oracle_09_nothing_to_remove_is_plain_training(name: str) -> None:
    job = Job("zero_pad", RECIPES[name], Plan(0.3, 2, 10), ratio=0.0, dtype=torch.float32)
    plain = copy.deepcopy(job.model)
    job.hook.finished = False  # or there would be no phase at all
    job.run()
    assert job.trainer.step == 4, "the phase ends with the epoch in which nothing is left to remove"
    Trainer(plain, job.data, RECIPES[name], 16, 0).run(until=4)
    assert_same(job.model, plain)


def test_oracle_09_the_seed_decides() -> None:
    one, same, other = (Job("vgg", SGD, Plan(0.2, 1, 14)) for _ in range(3))
    other.hook._generator.manual_seed(8)
    for job in (one, same, other):
        job.run()
    assert_same(one.model, same.model)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(one.drawn, same.drawn, strict=True))
    assert any(not torch.equal(mine, theirs) for mine, theirs in zip(one.drawn, other.drawn, strict=True))


@pytest.mark.parametrize("name", RECIPES)
def test_oracle_16_continues_bitwise(name: str) -> None:
    plan = Plan(0.15, 2, 30)
    whole = Job("zero_pad", RECIPES[name], plan, dtype=torch.float32)
    whole.run()
    for stop in (1, 7, 31):
        first, second = (Job("zero_pad", RECIPES[name], plan, dtype=torch.float32) for _ in range(2))
        first.run(until=stop)
        state = first.trainer.state_dict()
        first.run(until=stop + 2)
        torch.rand(3)  # the global generator does not matter
        second.trainer.load_state_dict(state)
        second.run()
        assert second.trainer.history == whole.trainer.history
        first.trainer.load_state_dict(state)  # back again
        first.run()
        for job in (first, second):
            assert_same(job.model, whole.model)
            assert torch.equal(job.hook.probability, whole.hook.probability)
            assert job.hook.results() == whole.hook.results()


def test_evaluation_is_never_thinned() -> None:
    """Whoever asks the network between steps, or at the end of an epoch, sees all units but the removed ones."""
    job = Job("vgg", SGD, Plan(0.3, 1, 14))
    answers: list[Tensor] = []
    before_evaluation = job.hook.before_evaluation

    def ask() -> None:
        before_evaluation()
        kept = job.units.list_kept(job.hook.standing.removed)
        with torch.no_grad():
            whole, cut_ = job.model.eval()(job.data.inputs), cut(job.model, job.units.groups, kept)(job.data.inputs)
        job.model.train()
        torch.testing.assert_close(whole, cut_, rtol=0, atol=1e-12)
        answers.append(whole)

    setattr(job.hook, "before_evaluation", ask)  # noqa: B010  # mypy knows that it is a method
    job.trainer.validation = job.data
    job.run(until=6)
    assert len(job.drawn) == 5 and len(answers) == 1
    job.model(job.data.inputs)
    assert len(job.drawn) == 5
    job.run()
    taken = job.trainer.step
    assert job.hook.finished and taken > 6 and len(job.drawn) == taken - 1 and len(answers) == taken // 4


def assert_same(one: nn.Module, other: nn.Module) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for key in mine:
        assert torch.equal(mine[key], theirs[key]), key


@pytest.mark.parametrize("net", cases.NETS)
def test_oracle_14_and_15_cut_equals_what_was_trained(net: str) -> None:
    """What is left computes what the whole network computed with the final masks, at the counted cost."""
    job = Job(net, SGD, Plan(0.5, 1, 8))
    job.run()
    kept = job.units.list_kept(job.hook.standing.removed)
    assert {name: len(units) for name, units in kept.items()} == {
        group.name: group.channels - group.channels // 2 for group in job.units.groups
    }
    smaller = cut(job.model, job.units.groups, kept)
    with torch.no_grad():
        small, trained = smaller(job.data.inputs), job.model(job.data.inputs)
    torch.testing.assert_close(small, trained, rtol=0, atol=1e-12)
    cost = CostModel(job.model, job.example, job.units.groups)
    assert cost.flops({name: len(units) for name, units in kept.items()}) == count(smaller, job.example).flops


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
def test_oracle_18_no_step_waits_for_the_device() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    job = Job("zero_pad", SGD, Plan(0.01, 2, 1000), dtype=torch.float32, device="cuda")
    batch = next(job.data.epoch(16, 0))
    job.model.train()

    def steps(count: int) -> None:
        for _ in range(count):
            job.trainer._step(batch, 0.05)
            job.trainer.step += 1

    steps(10)
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps(50)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert job.hook.updates == 30


@pytest.mark.slow
def test_a_compiled_network_is_thinned_too() -> None:
    """Weights change between calls, never inside a graph."""
    job, twin = Job("zero_pad", SGD, Plan(0.3, 1, 10)), Job("zero_pad", SGD, Plan(0.3, 1, 10))
    job.trainer.model.compile(backend="eager")
    job.run()
    twin.run()
    for mine, theirs in zip(job.model.parameters(), twin.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


# --- the method ------------------------------------------------------------------------------------------------


def problem(steps: int = 120, **changes: Any) -> Problem:
    task = Problem(
        model=cases.seeded(cases.vgg_net),
        example=torch.zeros(1, *cases.IMAGE),
        train=cases.blobs(cases.IMAGE, 96),
        validation=cases.blobs(cases.IMAGE, 40, seed=1, noise=0),
        recipe=Recipe(lr=0.05, batch_size=16, recalibrate=2),
        steps=steps,
        generator=torch.Generator().manual_seed(0),
        known=cases.find_anatomy(cases.vgg_net),
    )
    return replace(task, **changes)


def spp(**fields: Any) -> SPP:
    return SPP.model_validate({"sparsity": HALF, **fields})


def test_only_channels_have_a_cost_that_is_known_before() -> None:
    task = problem()
    seen = spp().preview(task)
    assert seen is not None and seen.kept == {group.name: group.channels // 2 for group in task.groups}
    assert seen.flops == task.cost.flops(seen.kept) and seen.params == task.cost.params(seen.kept)
    assert spp(granularity="column").preview(task) is None


def test_history_shows_the_removal() -> None:
    reports: list[dict[str, float]] = []
    task = problem(report=reports.append)
    pruned = spp(probability_step=0.2, lr_prune_factor=0.5).prune(task)
    pruning = [record for record in pruned.history if "removed" in record]
    shares = [record["removed"] for record in pruning]
    assert shares == sorted(shares) and shares[0] < shares[-1] == 1
    assert pruning[-1] | {"removed[0.0]": 0.5, "removed[2.0]": 0.5, "removed[4.0]": 0.5} == pruning[-1]
    assert any(0 < r["probability_mean"] < r["probability_max"] < 1 for r in pruning)
    assert pruning[-1]["probability_max"] == 0 and {r["lr"] for r in pruning} == {0.025}
    costs = [record["flops_if_cut"] for record in pruning]
    assert costs == sorted(costs, reverse=True) and costs[-1] == count(pruned.model, task.example).flops
    assert pruned.steps == 120 and pruned.history[-1]["step"] == 120
    assert pruned.extra.keys() == {"forced", "update_interval", "probability_step", "accuracy_cut"}
    assert {name: len(units) for name, units in pruned.kept.items()} == {"0.0": 4, "2.0": 6, "4.0": 8}
    assert reports == list(pruned.history)


def test_fine_tuning_gets_the_time_that_is_not_needed() -> None:
    pruned = spp(probability_step=1.0, prune_frac=0.8).prune(problem())
    pruning = [record for record in pruned.history if "removed" in record]
    assert pruning[-1]["removed"] == 1 and pruning[-1]["step"] < 0.8 * 120
    assert pruned.extra["forced"] == 0


def test_batch_norm_is_estimated_anew_before_an_accuracy_is_taken() -> None:
    pruned = spp().prune(problem(recipe=Recipe(lr=0.05, batch_size=16, recalibrate=6)))
    last = [record for record in pruned.history if "removed" in record][-1]
    assert last["accuracy"] == pytest.approx(pruned.extra["accuracy_cut"], abs=0.05)
    assert last["accuracy"] > 0.8
    stale = spp().prune(problem(recipe=Recipe(lr=0.05, batch_size=16, recalibrate=0)))
    others = [record for record in stale.history if "removed" in record]
    assert others[-1]["loss"] == last["loss"] and others[-1]["val_loss"] != last["val_loss"]


def test_a_network_that_blows_up_is_reported() -> None:
    task = problem()
    with torch.no_grad():
        task.model.get_parameter("7.weight").fill_(float("nan"))
    with pytest.raises(Diverged, match="at step 0 "):
        spp().prune(task)


def test_every_step_until_the_cut_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Tensor] = []

    def note(probability: Tensor, generator: torch.Generator) -> Tensor:
        kept.append(sample_participants(probability, generator))
        return kept[-1]

    monkeypatch.setattr("methods.spp.probabilities.sample_participants", note)
    pruned = spp().prune(problem())
    pruning = [record for record in pruned.history if "removed" in record]
    interval = int(pruned.extra["update_interval"])
    assert len(kept) == pruning[-1]["step"] - interval
    assert len({tuple(mask.flatten().tolist()) for mask in kept}) > 20
    assert not any(parameter._backward_hooks for parameter in pruned.model.parameters())


def test_what_is_missing_at_the_end_is_removed_and_counted() -> None:
    method = spp(update_interval=10, probability_step=1.0, rank_average="mean")
    pruned = method.prune(problem(recipe=Recipe(lr=0.5, batch_size=16, recalibrate=0)))
    assert {name: len(units) for name, units in pruned.kept.items()} == {"0.0": 4, "2.0": 6, "4.0": 8}
    assert pruned.extra["update_interval"] == 10 and pruned.extra["forced"] >= 0


def test_nothing_to_remove_is_plain_fine_tuning() -> None:
    for granularity in ("filter", "column"):
        pruned = spp(sparsity={"mode": "uniform", "ratio": 0}, granularity=granularity).prune(problem(steps=7))
        assert pruned.steps == 7 and "forced" not in pruned.extra
        assert all(list(units) == list(range(len(units))) for units in pruned.kept.values())


LAYERS = [LayerGroup("thin", 16, "8x8", 0.0), LayerGroup("wide", 64, "4x4", 1.0)]


@given(
    steps=st.integers(10, 20_000),
    n=st.integers(1, 63),
    step=st.floats(0.02, 0.5),
    frac=st.floats(0.3, 0.8),
    u=st.floats(0.1, 0.75),
)
@settings(max_examples=60, deadline=None)
def test_the_plan_leaves_time_for_rankings_that_move(steps: int, n: int, step: float, frac: float, u: float) -> None:
    method = spp(probability_step=step, prune_frac=frac, flatness=u)
    try:
        plan = method.plan(steps, LAYERS, [2, n])
    except InputError:
        assert updates_to_finish(1.0, n, 64, method.increment()) > int(frac * steps)
        return
    assert plan.prune_steps == int(frac * steps) and plan.probability_step >= step
    needed = updates_to_finish(1 / plan.probability_step, max(2, n), 64, method.increment())
    updates = plan.prune_steps // plan.update_interval
    assert needed <= updates
    if plan.probability_step < 1:
        assert MARGIN * needed <= updates + 1
    if plan.update_interval > 1:
        assert plan.probability_step == step
        assert MARGIN * needed * (plan.update_interval + 1) > plan.prune_steps, "a longer interval would not fit"


def test_the_plan_of_the_authors() -> None:
    plan = spp(prune_frac=0.5).plan(60_000, LAYERS, [8, 32])
    assert plan == Plan(0.05, int(30_000 / (1.7 * 99)), 30_000)
    assert spp(update_interval=180).plan(60_000, LAYERS, [8, 32]) == Plan(0.05, 180, 30_000)


def test_a_budget_too_short_says_what_would_do() -> None:
    method = spp(update_interval=10)
    message = "cannot remove 32 of 64 units of 'wide' within 1000 steps; it needs at least 1980, "
    with pytest.raises(InputError, match=message + r"and 1000 reach a ratio of 0.062 \(4 of 64\)"):
        method.plan(1000, LAYERS, [8, 32])
    assert method.plan(1980, LAYERS, [8, 32]).prune_steps == 990
    assert method.plan(1000, LAYERS, [2, 4]).prune_steps == 500
    with pytest.raises(InputError, match="within 1979 steps; it needs at least 1980"):
        method.plan(1979, LAYERS, [8, 32])
    with pytest.raises(InputError, match=r"within 4 steps.* reach a ratio of 0.031 \(2 of 64\)"):
        spp().plan(4, LAYERS, [8, 32])
    with pytest.raises(InputError, match=r"within 1 steps.* reach a ratio of 0.000 \(0 of 64\)"):
        spp().plan(1, LAYERS, [8, 32])


def test_rates_of_layers() -> None:
    """A layer of half the rate has half the step, and decides how long it takes."""
    plan = spp().plan(60_000, LAYERS, [16, 32], [0.5, 1.0])
    assert plan == Plan(0.05, int(30_000 / (1.7 * updates_to_finish(40, 16, 32, SHAPE))), 30_000)
    assert spp().plan(60_000, LAYERS, [0, 32], [0.5, 1.0]) == spp().plan(60_000, LAYERS, [0, 32])
    with pytest.raises(InputError, match="cannot remove 16 of 16 units of 'thin' within 20 steps"):
        spp().plan(20, LAYERS, [16, 32], [0.1, 1.0])
    with pytest.raises(InputError, match=r"unknown layer in layer_rates: '2\.1'; did you mean '2\.0'"):
        spp(rates="layer", layer_rates={"2.1": 0.5}).check(problem())
    pruned = spp(rates="layer", layer_rates={"2.0": 2.0}).prune(problem())
    first = next(record for record in pruned.history if 0 < record["removed[2.0]"] < 1)
    assert first["removed[2.0]"] > first["removed[0.0]"]


def test_the_space_is_that_of_the_paper() -> None:
    space = SPP.space(LAYERS)
    defaults = space.defaults()
    assert defaults is not None
    own = {name: value for name, value in defaults.items() if not name.startswith("sparsity.")}
    assert own == {
        "granularity": "filter",
        "probability_step": 0.05,
        "rates": "network",
        "flatness": 0.25,
        "prune_frac": 0.5,
        "rank_average": "none",
        "lr_prune_factor": 1.0,
        "weight_decay_factor": 0.5,
    }
    by_layer = {**defaults, "rates": "layer", **{f"layer_rates[{layer.name}]": 2.0 for layer in LAYERS}}
    assert SPP.from_point(space.check(by_layer)).layer_rates == {"thin": 2.0, "wide": 2.0}
    averaging = SPP.from_point({**defaults, "rank_average": "ema", "rank_ema": 0.6})
    assert averaging.rank_ema == 0.6
    with pytest.raises(InputError, match="rank_ema"):
        space.check({**defaults, "rank_ema": 0.6})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"probability_step": 0}, "probability_step"),
        ({"probability_step": 1.5}, "less than or equal to 1"),
        ({"flatness": 1}, "flatness"),
        ({"granularity": "row"}, "'filter', 'column' or 'in_channel'"),
        ({"update_interval": 0}, "update_interval"),
    ],
)
def test_bad_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spp(**fields)
