"""Portions: a layer of blocks and what follows it, on a few images at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from methods.network.tails import tails
from methods.pivoting import portions
from methods.pivoting.arrangement import PivotSpec
from methods.pivoting.blocks import keep_blocks
from methods.pivoting.executions import PORTIONS
from methods.pivoting.portions import InPortions, portion
from search.speed.tuner import run_as_decided

CHANNELS = 16


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spec(seed: int, placed: bool = False) -> PivotSpec:
    order = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(seed))
    rows = order.flip(0) if placed else torch.arange(CHANNELS)
    return PivotSpec(order.reshape(2, 8), torch.arange(2), rows)


class Staged(nn.Module):
    """Convolutions of blocks with all that may follow them: one by one, read twice, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (
            keep_blocks(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), spec(seed)) for seed in (1, 2, 3)
        )
        self.norm, self.relu, self.pool = nn.BatchNorm2d(CHANNELS), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        self.twice, self.end = nn.ReLU(), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.norm(self.one(x))))
        y = self.two(x)
        return self.end(self.three(self.twice(y) + self.twice(x)))  # type: ignore[no-any-return]


def make_staged() -> nn.Module:
    return Staged().double().eval()


def test_what_is_run_with_a_layer() -> None:
    assert tails(make_staged()) == {"one": ("norm", "relu", "pool"), "two": (), "three": ("end",)}

    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    assert tails(Deciding()) == {}


@pytest.mark.parametrize("images", [1, 2, 3, 7])
def test_portions_answer_the_same(monkeypatch: pytest.MonkeyPatch, images: int) -> None:
    model, x = make_staged(), numbers(7, CHANNELS, 8, 8)
    monkeypatch.setattr(portions, "PORTION", images * CHANNELS * 8 * 8 * 8)
    assert portion(x) == images
    before = x.clone()
    for last in (False, True):
        quick = run_as_decided(model, {"one": PORTIONS, "two": "grouped", "three": PORTIONS}, channels_last=last)
        seen: list[int] = []
        inner = quick.network.get_submodule("one")
        assert isinstance(inner, InPortions) and isinstance(quick.network.get_submodule("pool"), nn.Identity)
        inner.steps[0].register_forward_hook(lambda module, args, out, seen=seen: seen.append(len(args[0])))
        torch.testing.assert_close(quick(x), model(x), rtol=0, atol=1e-12)
        assert sum(seen) == 7 and max(seen) == images
        if last:
            assert inner(x).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, before) and isinstance(model.get_submodule("pool"), nn.MaxPool2d)
