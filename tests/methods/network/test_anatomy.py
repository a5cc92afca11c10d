from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from methods.contract.method import Problem
from methods.contract.recipe import Recipe
from methods.network.anatomy import Anatomy
from methods.network.channels import channel_groups, cut
from methods.network.cost import CostModel, count
from tests.methods.cases import IMAGE, NETS, blobs, seeded

EXAMPLE = torch.zeros(1, *IMAGE)


def anatomy_of(model: nn.Module, ignored: frozenset[str] = frozenset()) -> Anatomy:
    groups = channel_groups(model, EXAMPLE, ignored)
    return Anatomy.from_groups(model, EXAMPLE, ignored, groups, CostModel(model, EXAMPLE, groups))


def problem(model: nn.Module, known: Anatomy | None = None) -> Problem:
    data = blobs(IMAGE, 8)
    return Problem(model, EXAMPLE, data, data, Recipe(), 0, torch.Generator(), known=known)


@pytest.mark.parametrize("net", ["vgg", "projection", "grouped", "linear"])
def test_it_fits_the_same_network_with_other_weights_and_cuts_it_alike_after_a_journey(net: str) -> None:
    model, other = seeded(NETS[net]), seeded(NETS[net], trained=True)
    arrived: Anatomy = pickle.loads(pickle.dumps(anatomy_of(model)))
    assert arrived.is_of(other, torch.ones(1, *IMAGE), frozenset())
    found = problem(other)
    kept = {group.name: [0] for group in found.groups}
    handed = problem(other, arrived)
    smaller, expected = cut(other, handed.groups, kept), cut(other, found.groups, kept)
    assert {n: t.tolist() for n, t in smaller.state_dict().items()} == {
        n: t.tolist() for n, t in expected.state_dict().items()
    }
    widths = dict.fromkeys(kept, 1)
    assert handed.cost is arrived.cost and handed.cost.flops(widths) == count(smaller, EXAMPLE).flops


def freeze(model: nn.Module) -> None:
    next(model.parameters()).requires_grad_(False)


def widen(model: nn.Module) -> None:
    model.get_submodule("0").register_buffer("cached", torch.zeros(3))


def stride(model: nn.Module) -> None:
    conv = model.get_submodule("0.0")
    assert isinstance(conv, nn.Conv2d)
    conv.stride = (2, 2)


def activate(model: nn.Module) -> None:
    model.set_submodule("0.2", nn.GELU())


@pytest.mark.parametrize("change", [freeze, widen, stride, activate])
def test_a_changed_network_is_followed_again(change: Callable[[nn.Module], None]) -> None:
    model = seeded(NETS["vgg"])
    known = anatomy_of(model)
    changed = copy.deepcopy(model)
    change(changed)
    assert known.is_of(model, EXAMPLE, frozenset()) and not known.is_of(changed, EXAMPLE, frozenset())
    assert problem(changed, known).cost is not known.cost
    assert [group.name for group in problem(changed, known).groups] == [
        group.name for group in channel_groups(changed, EXAMPLE)
    ]


def test_other_inputs_and_other_ignored_modules_are_told_apart() -> None:
    model = seeded(NETS["vgg"])
    known = anatomy_of(model)
    assert not known.is_of(model, torch.zeros(1, 3, 16, 16), frozenset())
    assert not known.is_of(model, EXAMPLE.double(), frozenset())
    assert not known.is_of(model, EXAMPLE, frozenset({"0.0"}))
    assert anatomy_of(model, frozenset({"0.0"})).is_of(model, EXAMPLE, frozenset({"0.0"}))
