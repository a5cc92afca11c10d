"""The table against networks whose modules have a known price."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from methods.network.blocks import find_blocks, remove_blocks
from methods.network.channels import ChannelGroup, channel_groups, cut
from search.speed.conditions import Conditions
from search.speed.interleaved import Samples
from search.speed.latency_table import LatencyTable, build_table, measure_table
from search.speed.measure import measure_dense
from search.speed.modules import Piece, module_calls
from spaces import InputError

EXAMPLE = torch.zeros(1, 3, 6, 6)


class Block(nn.Module):
    """A shortcut, a branch of its own width and a concatenation that three groups meet in."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.inner = nn.Conv2d(16, 32, 3, padding=1)
        self.back = nn.Conv2d(32, 16, 3, padding=1)
        self.left, self.right = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 24, 1)
        self.over = nn.Conv2d(32, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.back(torch.relu(self.inner(x))))
        x = torch.cat([self.left(x), self.right(x)], dim=1)
        logits: Tensor = self.head(self.over(x).mean(dim=(2, 3)))
        return logits


def price(piece: Piece) -> float:
    """What a module takes: its multiply-accumulates for one position, or its channels."""
    module = piece.module
    if isinstance(module, nn.Conv2d):
        return float(module.in_channels * module.out_channels * module.kernel_size[0] ** 2)
    if isinstance(module, nn.Linear):
        return float(module.in_features * module.out_features)
    return float(piece.shape[1])


def price_piece(name: str, pieces: Sequence[Piece]) -> Samples:
    return [[price(piece)] * 3 for piece in pieces]


def total(model: nn.Module) -> float:
    return sum(price(piece) for _, piece in module_calls(model, EXAMPLE))


def find_ends(model: nn.Module, groups: Sequence[ChannelGroup], outside: float = 0.0) -> tuple[float, float]:
    """What the narrowest network of the table and the dense one take, with something that no width changes."""
    narrow = cut(model, groups, {group.name: range(max(1, round(group.channels / 16))) for group in groups})
    return total(narrow) + outside, total(model) + outside


def chain() -> nn.Sequential:
    layers = (nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.Flatten(1))
    return nn.Sequential(*layers, nn.Linear(24 * 4, 5))


@cache
def make_priced_chain() -> tuple[nn.Sequential, list[ChannelGroup], LatencyTable]:
    model = chain()
    groups = channel_groups(model, EXAMPLE)
    return model, groups, build_table(model, EXAMPLE, groups, find_ends(model, groups), price_piece)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999))
def test_prices_that_are_products_of_widths_are_predicted_exactly_at_every_width(seed: int) -> None:
    model, groups, table = make_priced_chain()
    drawn = np.random.default_rng(seed)
    # Not below a sixteenth of the units, where the table ends.
    widths = np.array([[drawn.integers(max(1, round(g.channels / 16)), g.channels + 1) for g in groups]])
    smaller = cut(model, groups, {g.name: range(w) for g, w in zip(groups, widths[0].tolist(), strict=True)})
    assert table.batch(widths)[0] == pytest.approx(total(smaller))


def test_shortcuts_and_concatenations() -> None:
    model = Block()
    groups = channel_groups(model, EXAMPLE)
    table = build_table(model, EXAMPLE, groups, find_ends(model, groups, 0.5 * total(model)), price_piece)
    full = np.array([[group.channels for group in groups]])
    assert table.batch(full)[0] == pytest.approx(1.5 * total(model))
    assert table.per_unit.any(), "the convolution over the concatenation depends on three groups"
    for share in (0.25, 0.5, 0.75):
        widths = np.array([[round(share * group.channels) for group in groups]])
        smaller = cut(model, groups, {g.name: range(w) for g, w in zip(groups, widths[0].tolist(), strict=True)})
        # Half of what the whole network takes is outside its modules, and stays.
        assert table.batch(widths)[0] == pytest.approx(0.5 * total(model) + total(smaller), rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_a_wider_group_never_takes_less_whatever_the_clock_says(seed: int) -> None:
    drawn = np.random.default_rng(seed)

    def price_with_noise(name: str, pieces: Sequence[Piece]) -> Samples:
        return [[price(piece) * drawn.uniform(0.5, 2.0)] * 3 for piece in pieces]

    model = Block()
    groups = channel_groups(model, EXAMPLE)
    table = build_table(model, EXAMPLE, groups, find_ends(model, groups), price_with_noise)
    narrow = np.array([[drawn.integers(1, group.channels + 1) for group in groups] for _ in range(200)])
    wide = narrow + (drawn.random(narrow.shape) * ([group.channels for group in groups] - narrow + 1)).astype(np.int64)
    assert (table.batch(wide) >= table.batch(narrow) - 1e-9).all()


def test_a_module_that_cannot_be_timed_alone_is_named_and_its_time_is_in_the_others() -> None:
    model = chain()
    groups = channel_groups(model, EXAMPLE)

    def refuse(name: str, pieces: Sequence[Piece]) -> Samples | None:
        return None if name == "6" else price_piece(name, pieces)

    low, high = find_ends(model, groups)
    table = build_table(model, EXAMPLE, groups, (low, high), refuse)
    assert table.untimed == ("6",)
    both = np.array([[max(1, round(g.channels / 16)) for g in groups], [g.channels for g in groups]])
    assert table.batch(both) == pytest.approx([low, high])
    with pytest.raises(InputError, match="can be timed alone"):
        build_table(model, EXAMPLE, groups, (0.5, 1.0), lambda name, pieces: None)


def test_modules_that_take_longer_alone_than_in_a_row_are_scaled() -> None:
    model = chain()
    groups = channel_groups(model, EXAMPLE)
    low, high = find_ends(model, groups)
    table = build_table(model, EXAMPLE, groups, (0.3 * low + 10, 0.3 * high + 10), price_piece)
    half = np.array([[g.channels // 2 for g in groups]])
    halved = cut(model, groups, {g.name: range(g.channels // 2) for g in groups})
    assert table.batch(half)[0] == pytest.approx(0.3 * total(halved) + 10)
    upside_down = build_table(model, EXAMPLE, groups, (2.0, 1.0), price_piece)
    assert upside_down.batch(half)[0] == pytest.approx(1.0), "a network that is no faster when narrow"


def test_a_real_clock_gives_a_table_of_the_whole_network() -> None:
    model, setting = chain().eval(), Conditions(("cpu",), seconds=0.1)
    groups = channel_groups(model, EXAMPLE)
    heard: list[tuple[int, int]] = []
    table = measure_table(model, EXAMPLE, groups, setting, lambda what, done, of: heard.append((done, of)))
    assert isinstance(table, LatencyTable) and heard[0][0] == 0
    widths = np.array([[g.channels for g in groups], [1 for _ in groups]])
    whole, least = table.batch(widths)
    assert whole == pytest.approx(table.dense) and 0 <= least <= whole
    assert measure_dense(setting, model, EXAMPLE).median > 0


class Deeper(nn.Module):
    """A stem, three residual blocks of their own widths, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
        self.blocks = nn.Sequential(*(Branch(width) for width in (8, 24, 32)))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))
        return logits


class Branch(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(16, width, 3, padding=1), nn.Conv2d(width, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = x + self.two(torch.relu(self.one(x)))
        return answer


def test_a_block_that_is_gone_takes_no_time() -> None:
    """At widths that were timed: what the table says of a network without blocks is what its modules take."""
    model = Deeper()
    groups, blocks = channel_groups(model, EXAMPLE), find_blocks(model, EXAMPLE)
    names = [block.name for block in blocks]
    assert names == ["blocks.0", "blocks.1", "blocks.2"]
    parts = {block.name: block.modules for block in blocks}
    table = build_table(model, EXAMPLE, groups, find_ends(model, groups), price_piece, blocks=parts)
    full = [group.channels for group in groups]
    for gone in itertools.product((0, 1), repeat=3):
        removed = [block for block, there in zip(blocks, gone, strict=True) if not there]
        predicted = float(table.batch(np.array([[*full, *gone]]))[0])
        assert predicted == pytest.approx(total_without_identities(remove_blocks(model, removed)), rel=1e-6)
    halved = [units // 2 for units in full]
    narrow = cut(model, groups, {group.name: range(w) for group, w in zip(groups, halved, strict=True)})
    assert float(table.batch(np.array([[*halved, 1, 1, 1]]))[0]) == pytest.approx(total(narrow), rel=1e-6)
    assert float(table.batch(np.array([[*halved, 0, 1, 1]]))[0]) == pytest.approx(
        total_without_identities(remove_blocks(narrow, blocks[:1])), rel=1e-6
    )


def total_without_identities(model: nn.Module) -> float:
    return sum(price(piece) for _, piece in module_calls(model, EXAMPLE) if not isinstance(piece.module, nn.Identity))
