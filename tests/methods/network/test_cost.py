from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from methods.network.channels import channel_groups, cut
from methods.network.cost import Cost, CostModel, count, layer_flops
from spaces import InputError
from tests.methods.cases import IMAGE, seeded
from tests.methods.network.test_channels import ALL

EXAMPLE = torch.zeros(1, *IMAGE)


def count_by_hand(model: nn.Module) -> int:
    """Multiply–accumulates from the shapes that go through convolutions and linear layers."""
    total = 0

    def add(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | nn.Linear)
        total += output.numel() * module.weight[0].numel()

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(add) for layer in layers]
    with torch.no_grad():
        model(EXAMPLE)
    for handle in handles:
        handle.remove()
    return total


@pytest.mark.parametrize("name", ALL)
def test_counts_what_layers_multiply(name: str) -> None:
    model = seeded(ALL[name])
    cost = count(model, EXAMPLE)
    assert cost.flops == count_by_hand(model)
    assert cost.params == sum(p.numel() for p in model.parameters())
    assert set(layer_flops(model, EXAMPLE)) == {
        n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)
    }


def test_counts_one_input_of_a_batch_and_products_outside_layers() -> None:
    class Bilinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(6, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.w

    assert count(Bilinear(), torch.zeros(7, 6)).flops == 30


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_cost_model_is_exact(name: str, data: st.DataObject) -> None:
    model = seeded(ALL[name])
    groups = channel_groups(model, EXAMPLE)
    kept = {g.name: data.draw(st.integers(1, g.channels), label=g.name) for g in groups}
    smaller = cut(model, groups, {name: range(width) for name, width in kept.items()})
    costs = CostModel(model, EXAMPLE, groups)
    assert (costs.flops(kept), costs.params(kept)) == astuple(count(smaller, EXAMPLE))
    assert costs.params({}) == count(model, EXAMPLE).params
    assert costs.dense == costs.flops({}) == count(model, EXAMPLE).flops


def test_unknown_group_is_named() -> None:
    model = seeded(ALL["vgg"])
    with pytest.raises(InputError, match="unknown channel group 'nope'"):
        CostModel(model, EXAMPLE, channel_groups(model, EXAMPLE)).flops({"nope": 1})


def test_what_depends_on_numbers_is_counted_for_the_numbers_that_are_given() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.steps = nn.Linear(4, 4), nn.LSTM(4, 3, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x @ torch.ones(4, 4)  # made on the CPU whatever the device of the input
            answer: torch.Tensor = self.layer(x) if x.sum().item() > 0 else self.steps(x[:, None])[0]
            return answer

    assert count(Deciding(), torch.ones(1, 4)).flops == 16 + 16
    assert count(Deciding(), torch.zeros(1, 4)).flops == 16 + 12 * 4 + 12 * 3
    with pytest.raises(RuntimeError, match="same reduction dim"):
        count(nn.Sequential(nn.Linear(4, 4)), torch.zeros(1, 5))


@pytest.mark.parametrize("name", ALL)
def test_batch_counts_every_candidate_as_the_cut_network_does(name: str) -> None:
    model = seeded(ALL[name])
    groups = channel_groups(model, EXAMPLE)
    costs = CostModel(model, EXAMPLE, groups)
    draw = np.random.default_rng(0)
    widths = np.stack([draw.integers(1, group.channels + 1, size=4) for group in groups], axis=1)
    flops, params = costs.batch(widths)
    for row, found, size in zip(widths, flops, params, strict=True):
        smaller = cut(model, groups, {g.name: range(int(width)) for g, width in zip(groups, row, strict=True)})
        assert count(smaller, EXAMPLE) == Cost(int(found), int(size))
    with pytest.raises(InputError, match="one per group"):
        costs.batch(widths[:, :1].repeat(len(groups) + 1, axis=1))
