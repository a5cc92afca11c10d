"""Residual blocks: which can go, and that the network without them is the one in which they add nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from methods.network.architecture import describe, rebuild
from methods.network.blocks import Block, find_blocks, list_groups_within, list_groups_without, remove_blocks
from methods.network.channels import channel_groups, cut
from methods.network.copying import copy_network
from methods.network.cost import CostModel, count
from search.tasks.models import build_model

EXAMPLE = torch.zeros(1, 3, 8, 8)


class Residual(nn.Module):
    """What comes in, and what two convolutions make of it."""

    def __init__(self, width: int, inner: int, after: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(width, inner, 3, padding=1), nn.Conv2d(inner, width, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(inner), nn.BatchNorm2d(width)])
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norms[1](self.two(torch.relu(self.norms[0](self.one(x)))))
        answer: Tensor = self.after(branch + x)
        return answer


class InPlace(Residual):
    """The same, written with as little memory as possible."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.norms[0](self.one(x)).relu_()
        out = self.norms[1](self.two(out))
        out += x
        answer: Tensor = out.relu_()
        return answer


class Scaled(nn.Module):
    """Normed before, scaled after, in channels last: as in newer networks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 24), nn.Linear(24, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.spread(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(nn.functional.gelu(self.up(y)))
        answer: Tensor = x + y.permute(0, 3, 1, 2)
        return answer


class Twice(nn.Module):
    """Runs the same block two times."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Residual(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.block(self.block(x))
        return answer


class Joined(nn.Module):
    """Puts what comes in beside what it makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :4], self.one(x)], 1)


class Shifted(Residual):
    """Adds a number that no parameter decides."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.5


class Written(nn.Module):
    """Adds in the code of a larger module."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.inner, self.back = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        x = x + 0.5 * self.back(torch.relu(self.inner(x)))
        return torch.tanh(self.last(x))


class Gated(nn.Module):
    """A branch that is a module, weighted by a number that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 1))
        self.weight = nn.Parameter(torch.tensor(0.1))
        self.last = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.last(torch.add(x, self.body(x) * self.weight))
        return answer


class Around(nn.Module):
    """A residual block that has another module inside."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside, self.last = inside, nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = x + self.last(self.inside(x))
        return answer


class Tokens(nn.Module):
    """Layers of a transformer over the positions of an image."""

    def __init__(self, before: bool) -> None:
        super().__init__()
        layers = [nn.TransformerEncoderLayer(8, 2, 16, 0.0, norm_first=before, batch_first=True) for _ in range(2)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.layers(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (8, 8))
        return answer


def network(*middle: nn.Module) -> nn.Module:
    """A stem, what is asked for, and a head, with weights that hide nothing."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    model = nn.Sequential(stem, *middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.eval()


def names(model: nn.Module, ignored: Sequence[str] = ()) -> list[str]:
    return [block.name for block in find_blocks(model, EXAMPLE, ignored)]


@pytest.mark.parametrize(
    "block",
    [
        lambda: Residual(8, 6),
        lambda: Residual(8, 6, lambda x: x),
        lambda: InPlace(8, 6),
        lambda: Scaled(8),
    ],
)
def test_blocks_are_found_however_they_are_written(block: Callable[[], nn.Module]) -> None:
    model = network(block(), block())
    assert find_blocks(model, EXAMPLE) == [Block("1", "8x8"), Block("2", "8x8")]
    assert names(model, ignored=["2"]) == ["1"]
    inner = next(name for name, _ in model.named_modules() if name.startswith("1."))
    assert names(model, ignored=[inner]) == ["2"]


@pytest.mark.parametrize(
    "module",
    [
        Joined,
        lambda: nn.Conv2d(8, 8, 3, padding=1),
        lambda: nn.Identity(),
        lambda: Tokens(before=False),
    ],
)
def test_what_is_more_or_less_than_its_input_stays(module: Callable[[], nn.Module]) -> None:
    assert names(network(module())) == []


@pytest.mark.parametrize(
    ("module", "branch"),
    [
        (lambda: Residual(8, 6, nn.functional.silu), ("one", "norms.0", "two", "norms.1")),
        (lambda: Residual(8, 6, torch.sigmoid), ("one", "norms.0", "two", "norms.1")),
        (lambda: Shifted(8, 6), ("one", "norms.0", "two", "norms.1")),
        (Written, ("inner", "back")),
        (Gated, ("body",)),
    ],
)
def test_where_block_and_shortcut_are_no_module_the_branch_alone_goes(
    module: Callable[[], nn.Module], branch: Sequence[str]
) -> None:
    model = network(module())
    names = tuple(f"1.{name}" for name in branch)
    assert find_blocks(model, EXAMPLE) == [Block(names[-1], "8x8", names)]


def test_what_runs_twice_goes_with_what_runs_it() -> None:
    assert names(network(Twice())) == ["1"]


def test_the_innermost_of_blocks_in_blocks_go_and_the_whole_where_these_cannot() -> None:
    model = network(nn.Sequential(Residual(8, 6), Residual(8, 4)), Around(Residual(8, 6)), Around(Twice()))
    assert names(model) == ["1.0", "1.1", "2.inside", "3"]


def test_a_block_whose_parameters_others_have_too_stays() -> None:
    one, other = Residual(8, 6), Residual(8, 6)
    other.two = one.two
    assert names(network(one, other, Residual(8, 4))) == ["3"]


def test_layers_of_a_transformer_go_where_norms_come_first() -> None:
    model = network(Tokens(before=True))
    assert names(model) == ["1.layers.0", "1.layers.1"]


@pytest.mark.parametrize(
    ("name", "size", "found"),
    [
        ("resnet20", 32, [f"layer{k}" for k in ("1.0", "1.1", "1.2", "2.1", "2.2", "3.1", "3.2")]),
        ("torchvision:mobilenet_v2", 32, [f"features.{k}" for k in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)]),
    ],
)
def test_blocks_of_published_networks(name: str, size: int, found: list[str]) -> None:
    example = torch.zeros(1, 3, size, size)
    assert [block.name for block in find_blocks(build_model(name, 10, example, seed=0), example)] == found


def test_a_block_whose_branch_is_zero_changes_nothing_by_going() -> None:
    """In float64, to the last bit but for rounding; and one whose branch is not zero does."""
    model = network(Residual(8, 6), InPlace(8, 5), Scaled(8)).double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for name in ("1", "2", "3"):
        silent = copy_network(model)
        for parameter in silent.get_submodule(name).parameters():
            parameter.detach().zero_()
        block = Block(name, "8x8")
        shallower = remove_blocks(silent, [block])
        assert isinstance(shallower.get_submodule(name), nn.Identity)
        assert torch.allclose(shallower(x), silent(x), rtol=0, atol=1e-12)
        assert not torch.allclose(remove_blocks(model, [block])(x), model(x), rtol=0, atol=1e-6)
    assert not isinstance(model.get_submodule("1"), nn.Identity), "the network itself is not changed"


def test_a_branch_that_goes_is_rebuilt_and_its_channels_are_moot() -> None:
    model = network(Written())
    (block,) = find_blocks(model, EXAMPLE)
    groups = channel_groups(model, EXAMPLE)
    assert list_groups_within(groups, block) == ["1.inner"]
    left = list_groups_without(groups, [block])
    smaller = cut(remove_blocks(model, [block]), left, {group.name: [0, 2, 3] for group in left})
    description = json.loads(json.dumps(describe(model, smaller)))
    assert {name: spec["class"] for name, spec in description["replaced"].items()} == {
        "1.inner": "Identity",
        "1.back": "Zeros",
    }
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(rebuild(model, description, smaller.state_dict())(x), smaller(x))
    silent = copy_network(model)
    for name in block.modules:
        for parameter in silent.get_submodule(name).parameters():
            parameter.detach().zero_()
    assert torch.allclose(remove_blocks(model, [block])(x), silent(x), atol=1e-6)
    cost = CostModel(model, EXAMPLE, groups, {block.name: block.modules})
    counted = count(smaller, EXAMPLE)
    widths = {**{group.name: 3 for group in left}, block.name: 0}
    assert (cost.flops(widths), cost.params(widths)) == (counted.flops, counted.params)


def test_channels_can_be_cut_before_or_after_blocks_go() -> None:
    model = network(Residual(8, 6), InPlace(8, 5), Scaled(8)).double()
    example = EXAMPLE.double()
    groups = channel_groups(model, example)
    one, two, three = find_blocks(model, example)
    assert [block.name for block in (one, two, three)] == ["1", "2", "3"]
    assert list_groups_within(groups, one) == ["1.one"]
    left = list_groups_without(groups, [one, three])
    assert {group.name for group in groups} - {group.name for group in left} == {
        "1.one",
        *list_groups_within(groups, three),
    }
    assert all(not member.module.startswith(("1.", "3.")) for group in left for member in group.members)
    kept = {group.name: list(range(0, group.channels, 2)) for group in groups}
    after = remove_blocks(cut(model, groups, kept), [one, three])
    before = cut(remove_blocks(model, [one, three]), left, {group.name: kept[group.name] for group in left})
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(after(x), before(x))
    assert after.state_dict().keys() == before.state_dict().keys()
    assert list_groups_without(groups, []) == groups


def test_costs_with_blocks_are_those_that_are_counted() -> None:
    model = network(Residual(8, 6), InPlace(8, 5), Scaled(8))
    groups, blocks = channel_groups(model, EXAMPLE), {name: Block(name, "8x8") for name in ("1", "2", "3")}
    cost = CostModel(model, EXAMPLE, groups, {name: block.modules for name, block in blocks.items()})
    assert cost.units == {**{group.name: group.channels for group in groups}, "1": 1, "2": 1, "3": 1}
    draw = np.random.default_rng(0)
    rows = []
    for gone in (list[str](), ["1"], ["2", "3"], ["1", "2", "3"]):
        widths = {group.name: int(draw.integers(1, group.channels + 1)) for group in groups}
        removed = [blocks[name] for name in gone]
        left = list_groups_without(groups, removed)
        smaller = cut(remove_blocks(model, removed), left, {group.name: range(widths[group.name]) for group in left})
        counted = count(smaller, EXAMPLE)
        row = {**widths, **{name: int(name not in gone) for name in blocks}}
        assert (cost.flops(row), cost.params(row)) == (counted.flops, counted.params)
        rows.append((list(row.values()), counted))
    flops, params = cost.batch(np.array([row for row, _ in rows]))
    assert flops.tolist() == [counted.flops for _, counted in rows]
    assert params.tolist() == [counted.params for _, counted in rows]
    assert (cost.dense, cost.dense_params) == (count(model, EXAMPLE).flops, count(model, EXAMPLE).params)


def test_a_network_without_blocks_is_rebuilt_from_its_description() -> None:
    model = network(Residual(8, 6), Scaled(8))
    block = Block("2", "8x8")
    groups = list_groups_without(channel_groups(model, EXAMPLE), [block])
    smaller = cut(remove_blocks(model, [block]), groups, {group.name: [0, 1] for group in groups})
    description = json.loads(json.dumps(describe(model, smaller)))
    assert description["replaced"] == {"2": {"class": "Identity", "settings": {}}}
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(rebuild(model, description, smaller.state_dict())(x), smaller(x))
