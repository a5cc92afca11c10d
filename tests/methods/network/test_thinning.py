"""Leaving units out of a step, against the step written out element by element."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.network.channels import ChannelGroup, channel_groups, mask_units
from methods.network.scope import Shortcuts
from methods.network.thinning import Thinning
from methods.network.units import Units
from tests.methods import cases

DOUBLE = torch.float64
EXAMPLE = torch.zeros(1, *cases.IMAGE, dtype=DOUBLE)
DATA = cases.blobs(cases.IMAGE, 24, dtype=DOUBLE)


def dense(net: str) -> nn.Module:
    return cases.seeded(cases.NETS[net], trained=True).double().train()


def thinning_of(model: nn.Module) -> tuple[Thinning, Units]:
    units = Units(model, channel_groups(model, EXAMPLE))
    lanes = Shortcuts(model, units.groups, units.valid)
    own = [*units.producers, *units.affine]
    return Thinning(own, units.consumers, units.valid.numel(), lanes.close), units


def choose_kept(units: Units, seed: int) -> Tensor:
    """About half of the units, at least one of each group."""
    kept = torch.rand(units.valid.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    kept[:, 0] = True
    return kept


def loss_of(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(DATA.inputs), DATA.labels)


def mark_still_elements(model: nn.Module, groups: list[ChannelGroup], kept: dict[str, list[int]]) -> dict[str, Tensor]:
    """Mark, one by one, the elements of all tensors that belong to units which are left out."""
    still = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in model.named_parameters()}
    for group in groups:
        for member in group.members:
            module = model.get_submodule(member.module)
            for own, parameter in module.named_parameters(recurse=False):
                marks = still[f"{member.module}.{own}"]
                for unit in set(range(group.channels)) - set(kept[group.name]):
                    for channel in member.index[unit].tolist():
                        if member.side == "out":
                            marks[channel] = True
                        elif parameter.ndim > 1 and getattr(module, "groups", 1) == 1:
                            marks[:, channel] = True
                        elif parameter.ndim > 1:  # a grouped convolution stores only the inputs of its group
                            assert isinstance(module, nn.Conv2d)
                            per_group, outputs = parameter.shape[1], parameter.shape[0] // module.groups
                            first = channel // per_group * outputs
                            marks[first : first + outputs, channel % per_group] = True
    return still


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.01, weight_decay=0.1),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.01, weight_decay=0.1, fused=True),
}


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(loss_of(model))
    optimizer.step()


def memory(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name} {key}": value.clone()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
        if value.shape == parameter.shape
    }


@pytest.mark.parametrize(
    ("net", "optimizer_name", "channels_last"),
    [
        *((net, "sgd", net in ("grouped", "depthwise")) for net in cases.NETS),
        *(("projection", name, layout) for name in ("adam", "adamw") for layout in (False, True)),
    ],
)
def test_oracle_10_what_is_left_out_stands_still(net: str, optimizer_name: str, channels_last: bool) -> None:
    """Weights and memory of dropped units are bitwise what they were; those of the others move."""
    model = dense(net)
    thinning, units = thinning_of(model)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = OPTIMIZERS[optimizer_name](model)
    step(model, optimizer)
    for seed in range(2):
        kept = choose_kept(units, seed)
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        before = memory(model, optimizer)
        thinning.begin(kept)
        optimizer.zero_grad()
        torch.autograd.backward(loss_of(model))
        thinning.hold(optimizer)
        optimizer.step()
        thinning.end(torch.ones_like(kept))
        still = mark_still_elements(model, units.groups, units.list_kept(~kept))
        assert any(marks.any() for marks in still.values())
        for name, parameter in model.named_parameters():
            moved = parameter.detach() != weights[name]
            assert not (moved & still[name]).any(), name
            if not (net == "depthwise" and parameter.ndim == 1):  # some channels are dead behind ReLUs
                assert (moved | still[name]).double().mean() > 0.9, name
        for key, value in memory(model, optimizer).items():
            assert not ((value != before[key]) & still[key.split()[0]]).any(), key


@pytest.mark.parametrize("net", cases.NETS)
def test_oracle_11_gradients_are_those_of_the_thinned_network(net: str) -> None:
    model = dense(net)
    thinning, units = thinning_of(model)
    kept = choose_kept(units, 3)
    slow = mask_units(model, units.groups, units.list_kept(~kept)).train()
    thinning.mask_gradients()
    thinning.begin(kept)
    loss = loss_of(model)
    torch.testing.assert_close(loss, loss_of(slow), rtol=0, atol=1e-12)
    torch.autograd.backward(loss)
    torch.autograd.backward(loss_of(slow))
    still = mark_still_elements(model, units.groups, units.list_kept(~kept))
    for (name, parameter), twin in zip(model.named_parameters(), slow.parameters(), strict=True):
        assert parameter.grad is not None and twin.grad is not None
        assert not parameter.grad[still[name]].any(), name
        torch.testing.assert_close(parameter.grad, twin.grad.masked_fill(still[name], 0), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("net", cases.NETS)
def test_batch_norms_see_their_true_inputs(net: str) -> None:
    """The running statistics of a unit that is left out are those it would have had."""
    model = dense(net)
    thinning, units = thinning_of(model)
    first = next((m for m in model.modules() if isinstance(m, nn.BatchNorm2d)), None)
    whole = copy.deepcopy(model)
    whole(DATA.inputs)
    thinning.begin(choose_kept(units, 1))
    model(DATA.inputs)
    thinning.end(units.valid)
    if first is not None:  # the first norm has nothing before it that could have been left out
        twin = next(m for m in whole.modules() if isinstance(m, nn.BatchNorm2d))
        assert first.running_mean is not None and twin.running_mean is not None
        assert torch.equal(first.running_mean, twin.running_mean)
    for mine, theirs in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs), "a pass without a step changes nothing"


@pytest.mark.parametrize("net", cases.NETS)
def test_removed_units_are_zero_and_the_network_is_the_masked_one(net: str) -> None:
    model = dense(net)
    thinning, units = thinning_of(model)
    alive = choose_kept(units, 5)
    expected = mask_units(model, units.groups, units.list_kept(~alive)).eval()
    thinning.remove(alive)
    torch.testing.assert_close(model.eval()(DATA.inputs), expected(DATA.inputs), rtol=0, atol=1e-12)
    still = mark_still_elements(model, units.groups, units.list_kept(~alive))
    for name, parameter in model.named_parameters():
        assert not parameter[still[name]].any(), name
        assert parameter[~still[name]].ne(0).double().mean() > 0.9, name


def test_everything_kept_changes_nothing() -> None:
    ends = []
    for thinned in (True, False):
        model = dense("zero_pad")
        thinning, units = thinning_of(model)
        optimizer = OPTIMIZERS["sgd"](model)
        step(model, optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            if thinned:
                thinning.begin(torch.ones_like(units.valid))
            torch.autograd.backward(loss_of(model))
            if thinned:
                thinning.hold(optimizer)
            optimizer.step()
            if thinned:
                thinning.end(units.valid)
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_memory_is_found_anew_after_loading() -> None:
    model = dense("vgg")
    thinning, units = thinning_of(model)
    optimizer = OPTIMIZERS["sgd"](model)
    step(model, optimizer)
    kept = choose_kept(units, 0)

    def take_thinned_step() -> None:
        thinning.begin(kept)
        optimizer.zero_grad()
        torch.autograd.backward(loss_of(model))
        thinning.hold(optimizer)
        optimizer.step()
        thinning.end(units.valid)

    take_thinned_step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    thinning.forget()
    before = memory(model, optimizer)
    take_thinned_step()
    still = mark_still_elements(model, units.groups, units.list_kept(~kept))
    for key, value in memory(model, optimizer).items():
        assert not ((value != before[key]) & still[key.split()[0]]).any(), key
