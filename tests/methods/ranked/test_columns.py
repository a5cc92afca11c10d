"""Columns of unrolled convolutions: what belongs to them, what they save, and what of it is cut."""

from __future__ import annotations

import itertools
from math import ceil
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.contract.method import Problem
from methods.increg.method import IncReg
from methods.network.architecture import describe, rebuild
from methods.network.channels import channel_groups, cut
from methods.network.cost import count, layer_flops
from methods.network.thinning import Thinning
from methods.ranked.columns import Columns, ZerosStay, allot_columns, find_unread, flops_without_columns, makers
from methods.spp.method import SPP
from methods.training.trainer import Recipe, Trainer
from spaces import FlopsTarget, InputError, PerLayer, PerStage, Sparsity, Uniform
from tests.methods import cases

DOUBLE = torch.float64
EXAMPLE = torch.zeros(1, *cases.IMAGE, dtype=DOUBLE)
DATA = cases.blobs(cases.IMAGE, 32, dtype=DOUBLE)


def dense(net: str) -> nn.Module:
    return cases.seeded(cases.NETS[net], trained=True).double()


def columns_of(model: nn.Module) -> Columns:
    return Columns(model, EXAMPLE, channel_groups(model, EXAMPLE))


def choose_kept(columns: Columns, seed: int = 0) -> Tensor:
    return torch.rand(columns.valid.shape, generator=torch.Generator().manual_seed(seed)) < 0.5


def test_columns_are_positions_in_all_filters() -> None:
    model = dense("grouped")
    columns = columns_of(model)
    assert columns.names == ["0.0", "1.0", "2.0", "5"] and columns.sizes == [27, 72, 144, 16]
    weight, table = model.get_parameter("1.0.weight"), columns.l1()
    for channel in range(8):
        for i in range(3):
            for k in range(3):
                assert table[1, (channel * 3 + i) * 3 + k] == weight[:, channel, i, k].abs().sum()
    assert not table[~columns.valid].any() and table[columns.valid].all()
    assert [(layer.channels, layer.stage) for layer in columns.layers][::3] == [(27, "8x8"), (16, "1x1")]


def test_depthwise_convolutions_are_left_alone() -> None:
    columns = columns_of(dense("depthwise"))
    modules = dict(dense("depthwise").named_modules())
    assert "1.body.0.0" in columns.names and "1.body.1.0" not in columns.names
    assert all(getattr(modules[name], "groups", 1) == 1 for name in columns.names)


@pytest.mark.parametrize("net", ["plain", "grouped", "linear"])
def test_bundles_of_columns(net: str) -> None:
    """Input channels and positions of kernels, summed up and marked one by one."""
    model = dense(net)
    for bundle in ("in_channel", "offset"):
        if net == "linear" and bundle == "offset":
            continue
        columns = Columns(
            model, EXAMPLE, channel_groups(model, EXAMPLE), "offset" if bundle == "offset" else "in_channel"
        )
        slices, table = columns.list_slices(), columns.l1()
        assert not table[~columns.valid].any()
        for row, (weight, own) in enumerate(zip(columns.weights.values(), slices, strict=True)):
            flat = weight.detach().abs().view(*weight.shape[:2], -1)
            sums = flat.sum((0, 2)) if bundle == "in_channel" else flat.sum((0, 1))
            torch.testing.assert_close(table[row, : columns.sizes[row]], sums)
            units = own.units.view(weight.shape[1], -1) - row * columns.valid.shape[1]
            for channel, position in itertools.product(range(units.shape[0]), range(units.shape[1])):
                assert units[channel, position] == (channel if bundle == "in_channel" else position)
        whole = columns.flops({})
        first = columns.names[0]
        saved = whole - columns.flops({first: columns.sizes[0] - 1})
        assert saved == -(-layer_flops(model, EXAMPLE)[first] // columns.sizes[0])


def test_ratios_of_columns_bear_the_names_of_channel_groups() -> None:
    model = dense("projection")
    groups, columns = channel_groups(model, EXAMPLE), columns_of(model)
    made = makers(groups)
    assert made["2.shortcut.0"].name == made["2.conv2"].name and "5" not in made

    def compute_kept(sparsity: Sparsity) -> dict[str, float]:
        sizes = dict(zip(columns.names, columns.sizes, strict=True))
        return {name: left / sizes[name] for name, left in allot_columns(columns, groups, sparsity, 1).items()}

    even = compute_kept(Uniform(ratio=0.5))
    assert even.keys() == set(columns.names) - {"5"} and all(0.4 <= share <= 0.5 for share in even.values())
    names = [group.name for group in groups]
    ratios = dict.fromkeys(names, 0.0) | {made["2.shortcut.0"].name: 0.75}
    by_layer = compute_kept(PerLayer(layers=ratios))
    assert by_layer["2.shortcut.0"] == by_layer["2.conv2"] == 0.25 and by_layer["0.0"] == 1
    named = compute_kept(PerLayer(layers={**ratios, "2.shortcut.0": 0.5, "5": 0.25}))
    assert (named["2.shortcut.0"], named["2.conv2"], named["5"]) == (0.5, 0.25, 0.75)
    stages = {group.stage: 0.5 if group.stage == "4x4" else 0.0 for group in groups}
    by_stage = compute_kept(PerStage(stages=stages))
    assert by_stage["2.conv2"] == 0.5 and by_stage["1.conv1"] == 1 and "5" not in by_stage
    with pytest.raises(InputError, match="unknown layer '2.conv22'; did you mean '2.conv2'"):
        compute_kept(PerLayer(layers={**ratios, "2.conv22": 0.5}))
    with pytest.raises(InputError, match="no ratio for layer '0.0'"):
        compute_kept(PerLayer(layers={name: 0.5 for name in names if name != "0.0"}))
    with pytest.raises(InputError, match="unknown stage '9x9'"):
        compute_kept(PerStage(stages={**stages, "9x9": 0.5}))
    target = allot_columns(columns, groups, FlopsTarget(flops=0.6), 1)
    assert 0.57 < columns.flops(target) / columns.flops({}) <= 0.6


def test_a_network_without_columns_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to prune in Sequential: no convolution or linear layer has columns"):
        Columns(nn.Sequential(nn.Flatten()), EXAMPLE, [])


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.Conv2d(3, 6, 3, padding=2, dilation=2),
        nn.Conv2d(3, 6, 1),
        nn.Conv2d(3, 6, (3, 1)),
    ],
)
def test_oracle_14_masked_columns_are_a_smaller_product(layer: nn.Conv2d) -> None:
    """Unrolled input, kept columns alone, one matrix product: the convolution with masked weights."""
    model = nn.Sequential(layer).double()
    columns = Columns(model, EXAMPLE, [])
    kept = choose_kept(columns)
    rolled = F.unfold(DATA.inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
    index = kept[0].nonzero().flatten()
    assert layer.bias is not None
    expected = layer.weight.flatten(1)[:, index] @ rolled[:, index] + layer.bias[:, None]
    Thinning([], columns.list_slices(), columns.valid.numel()).remove(kept)
    torch.testing.assert_close(model(DATA.inputs).flatten(2), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("net", cases.NETS)
def test_oracle_10_left_out_columns_stand_still(net: str) -> None:
    model = dense(net).train()
    columns = columns_of(model)
    thinning = Thinning([], columns.list_slices(), columns.valid.numel())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)

    def step(kept: Tensor | None) -> None:
        if kept is not None:
            thinning.begin(kept)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(DATA.inputs), DATA.labels))
        if kept is not None:
            thinning.hold(optimizer)
        optimizer.step()
        if kept is not None:
            thinning.end(columns.valid)

    step(None)
    kept = choose_kept(columns)
    before = [weight.detach().clone() for weight in columns.weights.values()]
    step(kept)
    for row, weight, old, size in zip(kept, columns.weights.values(), before, columns.sizes, strict=True):
        moved = (weight.detach() != old).flatten(1)
        assert not moved[:, ~row[:size]].any() and moved[:, row[:size]].double().mean() > 0.9


@pytest.mark.parametrize("net", cases.NETS)
def test_units_that_nothing_reads_are_cut_without_a_trace(net: str) -> None:
    model = dense(net)
    groups, columns = channel_groups(model, EXAMPLE), columns_of(model)
    kept = choose_kept(columns, 1)
    for row, (name, weight) in enumerate(columns.weights.items()):
        if name != columns.names[0]:  # whole input channels, in every layer the same ones
            kept[row, : columns.sizes[row]] &= (torch.arange(weight.shape[1]) % 4 > 0).repeat_interleave(
                columns.sizes[row] // weight.shape[1]
            )
    Thinning([], columns.list_slices(), columns.valid.numel()).remove(kept)
    left = find_unread(model, groups)
    smaller = cut(model, groups, left)
    torch.testing.assert_close(smaller(DATA.inputs), model(DATA.inputs), rtol=0, atol=1e-12)
    if net in ("vgg", "projection", "grouped", "depthwise"):
        assert count(smaller, EXAMPLE).flops < count(model, EXAMPLE).flops
    assert all(left.values())


def test_a_shortcut_without_weights_reads() -> None:
    model = dense("zero_pad")
    groups = channel_groups(model, EXAMPLE)
    with torch.no_grad():
        for name in ("1.conv1", "2.conv1"):
            model.get_parameter(f"{name}.weight")[:, 0] = 0
    assert 0 in find_unread(model, groups)["0.0"]


def test_theoretical_flops() -> None:
    model = dense("vgg")
    columns = columns_of(model)
    whole = count(model, EXAMPLE).flops
    assert columns.flops({}) == columns.flops(dict(zip(columns.names, columns.sizes, strict=True))) == whole
    kept = choose_kept(columns, 2)
    Thinning([], columns.list_slices(), columns.valid.numel()).remove(kept)
    counts = columns.counts(~kept)
    by_hand = sum(
        macs * counts[name] // size
        for name, size, macs in zip(
            columns.names, columns.sizes, [64 * 27 * 8, 16 * 72 * 12, 4 * 108 * 16, 64], strict=True
        )
    )
    assert columns.flops(counts) == by_hand < whole
    assert flops_without_columns(model, EXAMPLE, channel_groups(model, EXAMPLE)) == by_hand


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_zeros_stay_zero(optimizer: str) -> None:
    model = dense("vgg")
    columns = columns_of(model)
    kept = choose_kept(columns)
    Thinning([], columns.list_slices(), columns.valid.numel()).remove(kept)
    recipe = Recipe.model_validate({"optimizer": optimizer, "lr": 0.01, "batch_size": 16})
    Trainer(model, DATA, recipe, 5, 0, hook=ZerosStay(model)).run()
    assert torch.equal(columns.l1() == 0, ~(kept & columns.valid))


# --- SPP on columns --------------------------------------------------------------------------------------------


def problem(net: str, steps: int = 60) -> Problem:
    return Problem(
        model=cases.seeded(cases.NETS[net], trained=True),
        example=EXAMPLE.float(),
        train=cases.blobs(cases.IMAGE, 96),
        validation=cases.blobs(cases.IMAGE, 40, seed=1, noise=0),
        recipe=Recipe(lr=0.05, batch_size=32, recalibrate=2),
        steps=steps,
        generator=torch.Generator().manual_seed(0),
        known=cases.find_anatomy(cases.NETS[net]),
    )


def spp(**fields: Any) -> SPP:
    return SPP.model_validate({"granularity": "column", "sparsity": {"mode": "uniform", "ratio": 0.6}, **fields})


@pytest.mark.parametrize(("net", "granularity"), [*((net, "column") for net in cases.NETS), ("vgg", "in_channel")])
def test_spp_on_columns(net: str, granularity: str) -> None:
    task, method = problem(net), spp(granularity=granularity)
    pruned = method.prune(task)
    again = method.prune(problem(net))
    assert again.history == pruned.history
    made = makers(channel_groups(task.model, task.example))
    whole = count(task.model, task.example).flops
    last = [record for record in pruned.history if "removed" in record][-1]
    assert last["removed"] == 1 and all(
        last[f"removed[{name}]"] >= (0.6 if name in made else 0) for name in columns_of(dense(net)).names
    ), "the classifier, which makes no channels, is whole"
    physical, theoretical = count(pruned.model, task.example).flops, pruned.extra["flops_without_columns"]
    assert theoretical <= physical == last["flops_if_cut"] <= whole
    assert theoretical <= last["flops_without_columns"] < 0.6 * whole  # depthwise convolutions are whole
    assert pruned.steps == pruned.history[-1]["step"] == 60
    groups = channel_groups(task.model, task.example)
    assert flops_without_columns(pruned.model, task.example, groups) == theoretical, "fine-tuning keeps the zeros"
    text = describe(task.model, pruned.model)
    rebuilt = rebuild(cases.NETS[net](), text, pruned.model.state_dict())
    assert torch.equal(rebuilt(EXAMPLE.float()), pruned.model(EXAMPLE.float()))


def test_spp_on_columns_meets_a_target_in_theory() -> None:
    task = problem("vgg")
    pruned = spp(sparsity={"mode": "flops", "flops": 0.4}).prune(task)
    whole = count(task.model, task.example).flops
    last = [record for record in pruned.history if "removed" in record][-1]
    assert 0.37 < last["flops_without_columns"] / whole <= 0.4


def test_layers_of_columns_have_their_own_names() -> None:
    ratios = {"0.0": 0.5, "2.0": 0.5, "4.0": 0.5}
    for named, gone in (({}, 0.0), ({"7": 0.25}, 0.25)):
        pruned = spp(sparsity={"mode": "layer", "layers": ratios | named}).prune(problem("vgg"))
        last = [record for record in pruned.history if "removed" in record][-1]
        assert last["removed[7]"] == pytest.approx(gone, abs=0.01) and last["removed[2.0]"] == pytest.approx(
            0.5, abs=0.01
        )
    with pytest.raises(InputError, match="unknown layer '8'"):
        spp(sparsity={"mode": "layer", "layers": ratios | {"8": 0.5}}).prune(problem("vgg"))


# --- IncReg on columns -----------------------------------------------------------------------------------------


def increg(**fields: Any) -> IncReg:
    return IncReg.model_validate({"granularity": "column", "sparsity": {"mode": "uniform", "ratio": 0.6}, **fields})


@pytest.mark.parametrize("granularity", ["column", "in_channel"])
@pytest.mark.parametrize("net", ["plain", "zero_pad", "depthwise", "linear"])
def test_increg_on_columns(net: str, granularity: str) -> None:
    task = problem(net)
    pruned = increg(granularity=granularity).prune(task)
    groups = channel_groups(task.model, task.example)
    columns = Columns(task.model, task.example, groups, "column" if granularity == "column" else "in_channel")
    last = [record for record in pruned.history if "removed" in record][-1]
    for name, size in zip(columns.names, columns.sizes, strict=True):
        share = ceil(0.6 * size - 1e-9) / size if name in makers(groups) else 0.0
        assert last[f"removed[{name}]"] == pytest.approx(share)
    physical, theoretical = count(pruned.model, task.example).flops, pruned.extra["flops_without_columns"]
    whole = count(task.model, task.example).flops
    assert theoretical <= physical == last["flops_if_cut"] <= whole
    assert theoretical <= last["flops_without_columns"] < whole
    if granularity == "in_channel" or net in ("depthwise", "linear"):
        assert physical < whole
    assert flops_without_columns(pruned.model, task.example, groups) == theoretical, "fine-tuning keeps the zeros"
    assert pruned.steps == pruned.history[-1]["step"] == 60
    rebuilt = rebuild(cases.NETS[net](), describe(task.model, pruned.model), pruned.model.state_dict())
    assert torch.equal(rebuilt(EXAMPLE.float()), pruned.model(EXAMPLE.float()))


def test_increg_on_columns_meets_a_target_in_theory() -> None:
    task = problem("vgg")
    pruned = increg(sparsity={"mode": "flops", "flops": 0.4}).prune(task)
    last = [record for record in pruned.history if "removed" in record][-1]
    assert 0.37 < last["flops_without_columns"] / count(task.model, task.example).flops <= 0.4


def test_increg_on_columns_is_reproducible() -> None:
    one, same = (increg(granularity="in_channel").prune(problem("plain", 30)) for _ in range(2))
    assert one.history == same.history and one.kept == same.kept and one.extra == same.extra
