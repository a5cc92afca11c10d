"""The hook of IncReg on tiny networks: training with penalties against training written out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.increg.method import IncReg
from methods.increg.pacing import Plan
from methods.increg.penalties import Penalised, Penalties
from methods.network.channels import ChannelGroup, channel_groups, cut, mask_units
from methods.network.cost import CostModel, count
from methods.network.layers import ZeroPadShortcut
from methods.network.scope import Shortcuts
from methods.network.units import Units
from methods.ranked.columns import Bundle, Columns
from methods.ranked.ranking import Standing, force_removals, linear_increment, ranks, updates_to_finish
from methods.training.trainer import Recipe, Trainer
from tests.methods import cases

DOUBLE = torch.float64
HALF = {"mode": "uniform", "ratio": 0.5}
EXAMPLE = torch.zeros(1, *cases.IMAGE, dtype=DOUBLE)
DATA = cases.blobs(cases.IMAGE, 64, dtype=DOUBLE)


def increg(**fields: Any) -> IncReg:
    return IncReg.model_validate({"sparsity": HALF, **fields})


def channels(model: nn.Module, groups: Sequence[ChannelGroup], to_remove: Sequence[int], affine: bool) -> Penalised:
    units = Units(model, groups)
    return Penalised(
        units,
        [group.name for group in groups],
        to_remove,
        [1.0] * len(groups),
        [*units.producers, *(units.affine if affine else ())],
        [*units.producers, *units.affine, *units.consumers],
        Shortcuts(model, groups, units.valid).close,
    )


def take_half(groups: Sequence[ChannelGroup]) -> list[int]:
    return [group.channels // 2 for group in groups]


def list_kept(hook: Penalties) -> dict[str, list[int]]:
    assert isinstance(hook.units.table, Units)
    return hook.units.table.list_kept(hook.standing.removed)


def make_toy(hidden: int = 32, seed: int = 0) -> nn.Module:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(10, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    return cases.seeded(build, seed).double()


def make_toy_hook(
    model: nn.Module, to_remove: int, coupled: bool = True, plan: Plan | None = None, **fields: Any
) -> Penalties:
    groups = channel_groups(model, torch.zeros(1, 10, dtype=DOUBLE))
    assert [group.name for group in groups] == ["0"]
    method = increg(**{"penalty_max": 1.0, **fields})
    penalised = channels(model, groups, [to_remove], method.bn_affine_reg)
    return method.hook(penalised, plan or Plan(0.02, 1, 10**6, 0), coupled)


def inject(hook: Penalties, penalty: Tensor) -> None:
    """Set penalties that then stay as they are."""
    hook.plan = replace(hook.plan, update_interval=10**9)
    hook.load_state_dict({**hook.state_dict(), "penalty": penalty})


def fit(
    model: nn.Module,
    hook: Penalties | None,
    optimizer: torch.optim.Optimizer,
    steps: range,
    check: Callable[[int], None] | None = None,
) -> float:
    """Full-batch regression on a fixed teacher; the loop written out."""
    teacher = make_toy(16, seed=7)
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


def test_of_equal_units_the_first_are_the_weakest() -> None:
    """In layers of any size, or the choice would be another one on another machine."""
    values = torch.randint(3, (2, 300), generator=torch.Generator().manual_seed(0)).double()
    everything = torch.ones(2, 300, dtype=torch.bool)
    for row, found in zip(values.tolist(), ranks(values, everything).tolist(), strict=True):
        weakest_first = sorted(range(300), key=lambda unit: (row[unit], unit))
        assert sorted(range(300), key=found.__getitem__) == weakest_first
    same = torch.full_like(values, 0.5)
    forced = force_removals(Standing(same, values, ~everything), everything, torch.tensor([[7], [150]]))
    for row, gone, few in zip(values.tolist(), forced.removed, (7, 150), strict=True):
        weakest_first = sorted(range(300), key=lambda unit: (row[unit], unit))
        assert gone.nonzero().flatten().tolist() == sorted(weakest_first[:few])


@pytest.mark.parametrize("coupled", [True, False])
def test_oracle_06_quadratic_shrink(coupled: bool) -> None:
    """Minimum of h/2 (w-1)^2 + penalty/2 w^2 is h / (h + penalty)."""
    model = make_toy(3)
    hook = make_toy_hook(model, 1, coupled, penalty_max=10.0)
    inject(hook, torch.full((1, 3), 6.13, dtype=DOUBLE))
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
    model = make_toy()
    hook = make_toy_hook(model, 16, plan=Plan(2e-3, 1, 10**6, 0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    before = fit(model, None, optimizer, range(300))
    law = updates_to_finish(500.0, 16, 32, linear_increment)
    first = hook.units.table.l1()
    hook.load_state_dict({**hook.state_dict(), "first_l1": first})
    fit(model, hook, optimizer, range(400))
    order = hook.standing.rank[0].argsort()
    left = hook.units.table.l1()[0] / first[0]
    assert left[order[:16]].mean() < 0.03 and left[order[16:]].mean() > 0.8
    assert not hook.standing.removed.any()
    finished: list[int] = []
    after = fit(model, hook, optimizer, range(400, int(1.2 * law)), lambda step: finished.append(count_missing(hook)))
    assert 400 + finished.index(0) + 1 == pytest.approx(law, rel=0.1)
    assert hook.results()["residual"] < 1e-3
    assert after <= before


def count_missing(hook: Penalties) -> int:
    return int(hook.to_remove.sum() - hook.standing.removed.sum())


def test_oracle_15_removal_is_harmless() -> None:
    model = make_toy()
    hook = make_toy_hook(model, 16, plan=Plan(2e-3, 1, 10**6, 0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    fit(model, None, optimizer, range(300))
    groups = channel_groups(model, torch.zeros(1, 10, dtype=DOUBLE))
    changes: list[float] = []
    inputs = torch.randn(64, 10, generator=torch.Generator().manual_seed(5), dtype=DOUBLE)

    def compare_before_removal(step: int) -> None:
        """One step before a unit reaches the ceiling, remove it by hand and compare answers."""
        rising = hook.standing.penalty[0] + hook.plan.penalty_step >= hook.penalty_max
        if rising.any():
            left = [unit for unit in range(32) if not rising[unit]]
            with torch.no_grad():
                whole, cut_ = model(inputs), mask_units(model, groups, {"0": left})(inputs)
            changes.append(((whole - cut_).abs().max() / whole.abs().max()).item())

    fit(model, hook, optimizer, range(1900), compare_before_removal)
    assert count_missing(hook) == 0 and len(changes) >= 10
    assert max(changes) < 1e-3


@pytest.mark.parametrize("affine", [True, False])
def test_oracle_10_gradient_is_that_of_the_penalty(affine: bool) -> None:
    model = make_toy(6)
    hook = make_toy_hook(model, 2, bn_affine_reg=affine)
    penalty = torch.rand(1, 6, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    inject(hook, penalty)
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
        to_remove = [0] * len(groups) if idle == "nothing to remove" else take_half(groups)
        plan = Plan(0.0 if idle == "no step" else 0.1, 1, 10**6, 0)
        hook = increg().hook(channels(model, groups, to_remove, True), plan, True)
        train = cases.blobs(cases.IMAGE, 64)
        Trainer(model, train, Recipe(batch_size=16), 9, 0, hook=hook if hooked else None).run()
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def make_hooked_trainer(optimizer: str = "sgd", **fields: Any) -> tuple[Trainer, Penalties]:
    model = cases.seeded(cases.make_zero_pad_net)
    groups = channel_groups(model, torch.zeros(1, *cases.IMAGE))
    method = increg(**fields)
    plan = method.plan(48, [group.layer for group in groups], take_half(groups))
    hook = method.hook(channels(model, groups, take_half(groups), True), plan, optimizer == "sgd")
    recipe = Recipe.model_validate({"optimizer": optimizer, "lr": 0.01, "batch_size": 16, "schedule": "constant"})
    train = cases.blobs(cases.IMAGE, 64)
    return Trainer(model, train, recipe, plan.prune_steps + plan.stabilize_steps, 0, hook=hook), hook


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("fields", [{}, {"update_interval": 3, "rank_average": "ema", "increment": "exp"}])
def test_oracle_12_reproducible_and_resumable(optimizer: str, fields: dict[str, Any]) -> None:
    whole, hook = make_hooked_trainer(optimizer, **fields)
    records = whole.run()
    for stop in (1, 13, 24, 25):
        first, _ = make_hooked_trainer(optimizer, **fields)
        first.run(until=stop)
        second, resumed = make_hooked_trainer(optimizer, **fields)
        second.load_state_dict(first.state_dict())
        assert second.run() == records
        mine, theirs = second.model.state_dict(), whole.model.state_dict()
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
        assert list_kept(resumed) == list_kept(hook) and resumed.results() == hook.results()


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
    model = make_toy(8)
    hook = make_toy_hook(model, 4, coupled, plan=Plan(0.1, 1, 60, 0))
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
    hook = increg().hook(channels(model, groups, take_half(groups), True), Plan(1.0, 1, 12, 6), True)
    data = cases.blobs(cases.IMAGE, 64, dtype=DOUBLE)
    Trainer(model, data, Recipe(lr=0.01, batch_size=16, schedule="constant"), 18, 0, hook=hook).run()
    left = list_kept(hook)
    assert {name: len(units) for name, units in left.items()} == {
        group.name: group.channels - group.channels // 2 for group in groups
    }
    smaller = cut(model, groups, left)
    with torch.no_grad():
        trained, small, silent = (m(data.inputs) for m in (model, smaller, mask_units(model, groups, left)))
    torch.testing.assert_close(small, trained, rtol=0, atol=1e-12)
    torch.testing.assert_close(small, silent, rtol=0, atol=1e-12)
    cost = CostModel(model, example, groups)
    assert cost.flops({name: len(units) for name, units in left.items()}) == count(smaller, example).flops


def test_lanes_of_shortcuts_are_closed_with_their_units() -> None:
    """A shortcut without weights carries nothing into, or out of, a unit that is gone, as if it had been cut."""
    model = cases.seeded(cases.make_zero_pad_net, trained=True)
    groups = channel_groups(model, torch.zeros(1, *cases.IMAGE))
    hook = increg().hook(channels(model, groups, take_half(groups), True), Plan(0.3, 1, 30, 0), True)
    shortcut = next(module for module in model.modules() if isinstance(module, ZeroPadShortcut))
    name = next(name for name, module in model.named_modules() if module is shortcut)
    dense = shortcut.source.clone()
    trainer = Trainer(model, cases.blobs(cases.IMAGE, 64), Recipe(lr=0.01, batch_size=16), 30, 0, hook=hook)
    seen = set()
    for step in range(1, 31):
        trainer.run(until=step)
        expected = dense.clone()
        for group, row in zip(groups, hook.standing.removed, strict=True):
            for member in (member for member in group.members if member.module == name):
                gone = member.index[row[: group.channels]].flatten()
                expected[torch.isin(dense, gone) if member.side == "in" else gone] = shortcut.in_channels
        assert torch.equal(shortcut.source, expected)
        seen.add(int((expected != dense).sum()))
    assert 0 in seen and max(seen) > 3


@dataclass(frozen=True)
class Bundled:
    """A network whose columns, bundled somehow, are penalised."""

    model: nn.Module
    columns: Columns
    hook: Penalties


def bundle_units(net: str, bundle: Bundle, plan: Plan, coupled: bool = True, ratio: float = 0.5) -> Bundled:
    model = cases.seeded(cases.NETS[net], trained=True).double()
    columns = Columns(model, EXAMPLE, channel_groups(model, EXAMPLE), bundle)
    slices, to_remove = columns.list_slices(), [min(ceil(ratio * size - 1e-9), size - 1) for size in columns.sizes]
    penalised = Penalised(columns, columns.names, to_remove, [1.0] * len(to_remove), slices, slices)
    return Bundled(model, columns, increg(penalty_max=1.0).hook(penalised, plan, coupled))


def expand(columns: Columns, table: Tensor, bundle: Bundle) -> list[Tensor]:
    """One number per unit, brought to every weight one by one: ``[out, in, height, width]`` or ``[out, in]``."""
    tensors = []
    for row, weight in zip(table, columns.weights.values(), strict=True):
        full = torch.zeros_like(weight)
        offsets = weight[0, 0].numel()
        for channel in range(weight.shape[1]):
            for offset in range(offsets):
                unit = {"column": channel * offsets + offset, "in_channel": channel, "offset": offset}[bundle]
                full.view(*weight.shape[:2], -1)[:, channel, offset] = row[unit]
        tensors.append(full)
    return tensors


@pytest.mark.parametrize("bundle", get_args(Bundle))
@pytest.mark.parametrize("net", ["plain", "grouped", "depthwise"])
def test_oracle_10_gradient_of_columns_and_kernels(net: str, bundle: Bundle) -> None:
    job = bundle_units(net, bundle, Plan(0.0, 10**9, 10**9, 0))
    table = job.columns.valid * torch.rand(job.columns.valid.shape, generator=torch.Generator().manual_seed(0))
    job.hook.load_state_dict({**job.hook.state_dict(), "penalty": table.double()})
    twin = copy.deepcopy(job.model)
    torch.autograd.backward(job.model(DATA.inputs).square().mean())
    job.hook.before_step(1, 0.1)
    penalties = dict(zip(job.columns.names, expand(job.columns, table.double(), bundle), strict=True))
    own = sum((full * twin.get_parameter(f"{name}.weight").square()).sum() / 2 for name, full in penalties.items())
    torch.autograd.backward(twin(DATA.inputs).square().mean() + own)
    for mine, theirs in zip(job.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("bundle", get_args(Bundle))
@pytest.mark.parametrize(("optimizer", "coupled"), [("sgd", True), ("adamw", False)])
def test_oracle_05_12_and_13_of_columns_and_kernels(bundle: Bundle, optimizer: str, coupled: bool) -> None:
    """The exact ratio in every layer; zeros after every step; stopping and going on changes nothing."""
    plan = Plan(0.2, 2, 40, 4)
    recipe = Recipe.model_validate({"optimizer": optimizer, "lr": 0.01, "batch_size": 16, "weight_decay": 0.01})

    def train() -> tuple[Bundled, Trainer]:
        job = bundle_units("projection", bundle, plan, coupled)
        return job, Trainer(job.model, DATA, recipe, 44, 0, hook=job.hook)

    job, whole = train()
    seen = set()
    for step in range(1, 45):
        whole.run(until=step)
        removed = job.hook.standing.removed
        for full, weight in zip(
            expand(job.columns, removed.double(), bundle), job.columns.weights.values(), strict=True
        ):
            assert not weight[full > 0].any() and weight[full == 0].all()
        seen.add(int(removed.sum()))
    assert len(seen) > 3
    assert job.hook.standing.removed.sum(1).tolist() == [ceil(size / 2) for size in job.columns.sizes]
    again, first = train()
    first.run(until=21)
    resumed, second = train()
    second.load_state_dict(first.state_dict())
    second.run()
    for mine, theirs in zip(resumed.model.parameters(), job.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert resumed.hook.results() == job.hook.results()


def test_oracle_05_and_17_of_columns_frozen_ranking_and_guard() -> None:
    """At learning rate 0 the weakest columns go; without enough time the guard takes exactly what is missing."""
    for plan, forced in ((Plan(0.1, 1, 120, 0), 0), (Plan(0.1, 1, 12, 0), 100)):
        job = bundle_units("plain", "column", plan)
        norms = job.columns.l1()
        expected = [
            row[:size].argsort()[: ceil(size / 2)].sort().values.tolist()
            for row, size in zip(norms, job.columns.sizes, strict=True)
        ]
        trainer = Trainer(job.model, DATA, Recipe(batch_size=16), 121, 0, hook=job.hook, rate=lambda step: 0.0)
        trainer.run(until=plan.prune_steps)
        assert [row.nonzero().flatten().tolist() for row in job.hook.standing.removed] == expected
        assert (job.hook.results()["forced"] > forced) == (forced > 0)


def test_rates_of_rows() -> None:
    plan = Plan(0.05, 1, 100, 0)
    model = cases.seeded(cases.vgg_net)
    groups = channel_groups(model, torch.zeros(1, *cases.IMAGE))
    even = channels(model, groups, take_half(groups), True)
    hooks = [increg().hook(replace(even, rates=rates), plan, True) for rates in ([1.0, 1.0, 1.0], [1.0, 0.5, 2.0])]
    for hook in hooks:
        torch.autograd.backward(model(torch.zeros(2, *cases.IMAGE)).sum())
        hook.before_step(0, 0.1)
    ratios = hooks[1].standing.penalty.max(1).values / hooks[0].standing.penalty.max(1).values
    assert ratios.tolist() == pytest.approx([1.0, 0.5, 2.0])


def test_records_tell_how_far_the_penalties_are() -> None:
    hook = make_toy_hook(make_toy(4), to_remove=2)
    gone = torch.tensor([[False, True, False, False]])
    state = {"penalty": torch.tensor([[0.2, 0.0, 0.5, 0.8]], dtype=DOUBLE), "removed": gone}
    hook.load_state_dict({**hook.state_dict(), **state})
    record = hook.epoch_end()
    assert (record["penalty_mean"], record["penalty_max"]) == pytest.approx((0.5, 0.8)), "of the three that are left"
    assert (record["removed"], record["removed[0]"]) == (0.5, 0.25)


def test_history_names_every_row() -> None:
    trainer, hook = make_hooked_trainer()
    records = trainer.run()
    assert records[-1]["removed"] == 1 and records[-1]["penalty_max"] == 0
    assert all(records[-1][f"removed[{name}]"] == 0.5 for name in hook.units.names)
    assert any(0 < record["penalty_mean"] < record["penalty_max"] < 2.5 for record in records)


@pytest.mark.slow
@pytest.mark.parametrize("bf16", [False, True])
def test_a_compiled_network_is_penalised_too(bf16: bool) -> None:
    """Weights change between calls, never inside a graph."""
    ends = []
    for compiled in (False, True):
        model = cases.seeded(cases.make_zero_pad_net, trained=True)
        groups = channel_groups(model, torch.zeros(1, *cases.IMAGE))
        hook = increg().hook(channels(model, groups, take_half(groups), True), Plan(0.5, 1, 20, 0), True)
        if compiled:
            model.compile(backend="eager")
        recipe = Recipe(lr=0.01, batch_size=16, bf16=bf16, accumulate=2)
        Trainer(model, cases.blobs(cases.IMAGE, 64), recipe, 20, 0, hook=hook).run()
        ends.append(model)
    for mine, theirs in zip(ends[0].parameters(), ends[1].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
def test_no_waiting_for_the_device_within_a_step() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    model = cases.seeded(cases.make_zero_pad_net).cuda()
    groups = channel_groups(model, torch.zeros(1, *cases.IMAGE, device="cuda"))
    hook = increg().hook(channels(model, groups, take_half(groups), True), Plan(0.5, 1, 10, 5), True)
    trainer = Trainer(model, cases.blobs(cases.IMAGE, 96).to("cuda"), Recipe(batch_size=16), 15, 0, hook=hook)
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
