"""Convolutions of small maps with fewer products: the same numbers, in whatever network they are found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from methods.greedy import small_maps
from methods.greedy.forward_selection import RULES, forward_selection
from methods.greedy.masked_network import Replay, WholeNetwork, build_masked_network, follow
from methods.greedy.selection import MaskedLoss
from methods.greedy.small_maps import INPUTS, SmallMaps, find_faster, is_for_small_maps, pool_windows
from methods.network.channels import channel_groups


def random(*shape: int, seed: int = 0) -> Tensor:
    """Draw float64 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def convolution(inputs: int, outputs: int, bias: bool) -> nn.Conv2d:
    """Make a 3x3 convolution with known weights."""
    made = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias).double()
    made.weight.data = random(outputs, inputs, 3, 3, seed=1)
    if made.bias is not None:
        made.bias.data = random(outputs, seed=2)
    return made


@given(
    height=st.sampled_from(sorted(INPUTS)),
    width=st.sampled_from(sorted(INPUTS)),
    images=st.integers(1, 40),
    bias=st.booleans(),
    table=st.sampled_from((1, 4000, 1 << 20)),
)
@settings(max_examples=40, deadline=None)
def test_small_maps_are_the_direct_sum(height: int, width: int, images: int, bias: bool, table: int) -> None:
    layer = convolution(5, 7, bias)
    x = random(images, 5, height, width)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(small_maps, "TABLE_BYTES", table)
        found = SmallMaps(layer)(x)
    torch.testing.assert_close(found, layer(x), rtol=1e-12, atol=1e-12)


def test_few_products() -> None:
    products = {size: len(INPUTS[size]) for size in INPUTS}
    assert products == {1: 1, 2: 3, 4: 6}  # of 3, 6 and 12 in the direct sum with its zeros


@pytest.mark.parametrize("size", [(4, 4), (2, 2)])
def test_rounding_in_single_precision(size: tuple[int, int]) -> None:
    layer = convolution(256, 256, False)
    x = random(8, 256, *size).relu()
    with torch.no_grad():
        expected = layer(x)
        found = SmallMaps(layer.float())(x.float())
    assert float((found - expected).norm() / expected.norm()) < 5e-6  # candidates differ by 1e-4 of the loss


def test_gradients_pass() -> None:
    layer = convolution(3, 4, False)
    x = random(2, 3, 4, 4).requires_grad_(True)
    weights = random(2, 4, 4, 4, seed=7)
    fast = torch.autograd.grad((SmallMaps(layer)(x) * weights).sum(), x)[0]
    direct = torch.autograd.grad((layer(x) * weights).sum(), x)[0]
    torch.testing.assert_close(fast, direct, rtol=1e-11, atol=1e-11)


def test_other_maps_run_as_they_are() -> None:
    layer = convolution(3, 4, True)
    x = random(2, 3, 4, 5)
    assert torch.equal(SmallMaps(layer)(x), layer(x))


def test_what_is_suited() -> None:
    assert is_for_small_maps(nn.Conv2d(256, 256, 3, padding=1))
    assert is_for_small_maps(nn.Conv2d(256, 300, 3, padding="same"))
    wide: dict[str, Any] = {"in_channels": 256, "out_channels": 256}
    for other in (
        nn.Conv2d(**wide, kernel_size=3),
        nn.Conv2d(**wide, kernel_size=3, padding=1, stride=2),
        nn.Conv2d(**wide, kernel_size=3, padding=2, dilation=2),
        nn.Conv2d(**wide, kernel_size=3, padding=1, groups=2),
        nn.Conv2d(**wide, kernel_size=3, padding=1, padding_mode="reflect"),
        nn.Conv2d(**wide, kernel_size=1),
        nn.Conv2d(255, 256, 3, padding=1),
        nn.Linear(256, 256),
    ):
        assert not is_for_small_maps(other), other


@pytest.mark.parametrize("window", [(2, 2), (1, 3), (3, 1)])
def test_pooling_takes_the_maxima(window: tuple[int, int]) -> None:
    x = random(2, 3, 6, 6)
    x[0, 0, 1, 1] = torch.nan
    torch.testing.assert_close(pool_windows(x, *window), nn.MaxPool2d(window)(x), rtol=0, atol=0, equal_nan=True)


class Late(nn.Module):
    """The late layers of a network: maps of 4x4 and 2x2 pixels, as wide as it takes to be fast; a branch beside."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.second = nn.Conv2d(12, 256, 3, padding=1)
        self.middle = nn.Sequential(nn.BatchNorm2d(256), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True))
        self.third = nn.Conv2d(256, 256, 3, padding=1)
        self.norm = nn.BatchNorm2d(256)
        self.fourth = nn.Conv2d(256, 256, 3, padding=1, bias=False)
        self.own = nn.BatchNorm2d(256)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.last = nn.Linear(256, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        x = self.middle(self.second(self.first(x).relu()))
        y = self.third(x)
        x = self.norm(y).relu() + y.tanh()  # the norm is not alone in reading
        x = self.pool(self.own(self.fourth(x)).relu())
        logits: Tensor = self.last(x.mean((2, 3)))
        return logits


def make_late(size: int) -> tuple[Late, Tensor]:
    """Make the network and images of so many pixels."""
    torch_state = torch.Generator().manual_seed(0)
    model = Late().double().eval()
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data = 0.1 * torch.randn(tensor.shape, generator=torch_state, dtype=tensor.dtype)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            module.running_var.abs_().add_(0.5)
            module.weight.data.add_(1)
    return model, random(6, 3, size, size, seed=8)


def test_networks_are_searched() -> None:
    model, _ = make_late(8)
    graph = follow(model)
    assert graph is not None
    found = {str(node.target): way for node, way in find_faster(graph, set(graph.graph.nodes)).items()}
    assert set(found) == {"middle.2", "third", "fourth", "pool"}
    assert isinstance(found["third"], SmallMaps) and isinstance(found["fourth"], SmallMaps)


@pytest.mark.parametrize("size", [8, 4, 6])  # 6 pixels: 3x3 maps, and windows over the border
def test_replays_are_the_whole_network_and_choose_the_same(size: int) -> None:
    model, inputs = make_late(size)
    (group,) = (group for group in channel_groups(model, inputs[:1]) if group.name == "first")
    replay, whole = build_masked_network(model, follow(model), group, inputs), WholeNetwork(model, group)
    assert isinstance(replay, Replay)
    labels = torch.arange(6) % 4
    orders, slopes = [], []
    for network in (replay, whole):
        network.load(inputs)

        def objective(step: int, network: Replay | WholeNetwork = network) -> MaskedLoss:
            return MaskedLoss(network, labels)

        steps = forward_selection(objective, 12, RULES["uniform_norepeat"], 50, torch.Generator())
        orders.append([(step.unit, pytest.approx(step.loss, rel=1e-10)) for step in steps])
        slopes.append(objective(0).slopes(torch.ones(12, dtype=torch.float64)))
    assert [unit for unit, _ in orders[0]] == [unit for unit, _ in orders[1]]
    assert [loss.expected for _, loss in orders[0]] == [loss for _, loss in orders[1]]
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-12)
