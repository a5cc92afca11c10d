"""Orders of channels: networks whose channels were permuted compute what they did before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from methods.pivoting.block_matrices import Integers
from methods.pivoting.channel_spaces import ChannelSpaces, channel_spaces
from methods.pivoting.permutations import identity_orders, reorder
from tests.methods import cases

EXAMPLE = torch.zeros(1, *cases.IMAGE, dtype=torch.float64)


def images(seed: int = 0) -> Tensor:
    return torch.randn(4, *cases.IMAGE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def train_network(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    return cases.seeded(build, seed, trained=True).double()


def scramble(spaces: ChannelSpaces, seed: int = 0) -> list[Integers]:
    rng = np.random.default_rng(seed)
    return [np.arange(n) if s in spaces.pinned else rng.permutation(n) for s, n in enumerate(spaces.sizes)]


def assert_unchanged(model: nn.Module, seed: int = 0, within: float = 1e-12) -> ChannelSpaces:
    """Permute everything that may be permuted: the answers stay."""
    x = images(seed).to(next(model.parameters()).dtype)
    with torch.no_grad():
        before = model(x)
        spaces = channel_spaces(model, EXAMPLE.to(x.dtype))
        reorder(model, spaces, scramble(spaces, seed))
        torch.testing.assert_close(model(x), before, rtol=0, atol=within)
    return spaces


@pytest.mark.parametrize("net", cases.NETS)
def test_oracle_02_relabelling_keeps_the_function(net: str) -> None:
    model = train_network(cases.NETS[net])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert_unchanged(train_network(cases.NETS[net]).float(), within=1e-6)
    spaces = assert_unchanged(model, within=1e-15)  # answers are below 1: no more than sums in another order
    assert not spaces.untraceable
    moved = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert moved, "nothing was permuted at all"
    assert len(spaces.answers) == 1 and spaces.sizes == tuple(len(o) for o in identity_orders(spaces))


class RandomNet(nn.Module):
    """A network of random operations on tensors of 8 x 8 pixels; with or without barriers."""

    def __init__(self, seed: int, barriers: bool) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.layers = nn.ModuleList([nn.Conv2d(3, 6, 3, padding=1)])
        widths, self.steps = [6], list[tuple[str, int, int, int]]()
        kinds = ["conv", "norm", "relu", "add", "cat", "depthwise", "gate", "prelu"] + ["flip", "group"] * barriers
        for _ in range(9):
            kind, one, other = str(rng.choice(kinds)), int(rng.integers(len(widths))), int(rng.integers(len(widths)))
            width = widths[one]
            if kind in ("add", "gate") and widths[other] != width:
                kind = "cat"
            if kind == "conv":
                self.layers.append(nn.Conv2d(width, (width := int(rng.choice([4, 6, 8]))), 3, padding=1))
            elif kind == "norm":
                self.layers.append(nn.BatchNorm2d(width))
            elif kind == "depthwise":
                self.layers.append(nn.Conv2d(width, 2 * width, 3, padding=1, groups=width))
                width *= 2
            elif kind == "prelu":
                self.layers.append(nn.PReLU(width))
            elif kind == "group":
                self.layers.append(nn.GroupNorm(2, width))
            elif kind == "cat":
                width += widths[other]
            self.steps.append((kind, one, other, len(self.layers) - 1))
            widths.append(width)
        self.flat = bool(rng.integers(2))
        self.head = nn.Linear(widths[-1] * (64 if self.flat else 1), cases.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tensors = [self.layers[0](x)]
        for kind, one, other, layer in self.steps:
            tensor = tensors[one]
            if kind in ("conv", "norm", "depthwise", "prelu", "group"):
                tensor = self.layers[layer](tensor)
            elif kind == "relu":
                tensor = F.relu(tensor)
            elif kind == "add":
                tensor = tensor + tensors[other]
            elif kind == "gate":
                tensor = tensor * torch.sigmoid(tensors[other].mean((2, 3), keepdim=True))
            elif kind == "cat":
                tensor = torch.cat([tensor, tensors[other]], 1)
            elif kind == "flip":
                tensor = tensor.flip(1)
            tensors.append(tensor)
        last = tensors[-1]
        return self.head(torch.flatten(last, 1) if self.flat else F.adaptive_avg_pool2d(last, 1).view(x.size(0), -1))  # type: ignore[no-any-return]


@given(seed=st.integers(0, 2**20), barriers=st.booleans())
@settings(max_examples=40, deadline=None)
def test_oracle_02_random_graphs_keep_their_function(seed: int, barriers: bool) -> None:
    spaces = assert_unchanged(train_network(lambda: RandomNet(seed, barriers), seed), seed)
    assert not spaces.untraceable


class Halved(nn.Module):
    """A network around something that is no layer."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two = cases.conv_bn(3, 8), cases.conv_bn(8, 8)
        self.middle, self.head = middle, nn.Linear(8, cases.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(self.middle(self.one(x)))
        return self.head(y.mean([2, 3]))  # type: ignore[no-any-return]


BARRIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "flip": lambda x: x.flip(1),
    "roll": lambda x: torch.roll(x, 1, 1),
    "slice": lambda x: torch.cat([x[:, 4:], x[:, :4]], 1),
    "chunk": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "softmax": lambda x: x.softmax(1),
    "shuffle": lambda x: F.channel_shuffle(x, 2),
    "view": lambda x: x.view(x.size(0), 2, 4, 8, 8).transpose(1, 2).reshape(x.size(0), 8, 8, 8),
    "scale": lambda x: x * torch.arange(8.0, dtype=x.dtype)[:, None, None],
    "sum": lambda x: x + x.sum(1, keepdim=True),
    "permute": lambda x: x.permute(0, 2, 1, 3).contiguous(),
}


@pytest.mark.parametrize("barrier", BARRIERS)
def test_oracle_02_barriers_pin(barrier: str) -> None:
    spaces = assert_unchanged(train_network(lambda: Halved(BARRIERS[barrier])))
    (made,), (read,) = spaces.makes["one.0"], spaces.reads["two.0"]
    assert made.slot in spaces.pinned and read.slot in spaces.pinned
    assert spaces.makes["two.0"][0].slot not in spaces.pinned


PASSING: dict[str, Callable[[Tensor], Tensor]] = {
    "pool": lambda x: F.avg_pool2d(F.max_pool2d(x, 2), 1),
    "activations": lambda x: F.gelu(F.silu(torch.tanh(x.clamp(-1, 1)))),
    "scalar": lambda x: 2 * x / 3 + 1,
    "self": lambda x: x * x.sigmoid(),
    "dropout": lambda x: F.dropout(x, 0.0),
}


@pytest.mark.parametrize("what", PASSING)
def test_orders_pass_through(what: str) -> None:
    spaces = assert_unchanged(train_network(lambda: Halved(PASSING[what])))
    assert spaces.makes["one.0"] == spaces.reads["two.0"]
    assert spaces.makes["one.0"][0].slot not in spaces.pinned


def test_shared_layers_share_orders() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, cases.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(self.conv(self.stem(x))).mean([2, 3]))  # type: ignore[no-any-return]

    spaces = assert_unchanged(train_network(Twice))
    assert spaces.makes["conv"] == spaces.reads["conv"] == spaces.makes["stem"]


def test_shared_tensors_pin() -> None:
    def make_tied() -> nn.Module:
        model = nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(512, cases.CLASSES)
        )
        model[2].weight = model[1].weight
        return model

    spaces = assert_unchanged(train_network(make_tied))
    assert {part.slot for name in ("1", "2") for part in spaces.reads[name]} <= spaces.pinned


class Deciding(nn.Module):
    """Decides by what it is given: no graph can be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = cases.conv_bn(3, 8), nn.Linear(8, cases.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if y.shape[0] > 1000:
            y = -y
        return self.head(y.mean([2, 3]))  # type: ignore[no-any-return]


def test_what_cannot_be_traced_is_pinned_and_says_why() -> None:
    spaces = assert_unchanged(train_network(Deciding))
    assert "control flow" in spaces.untraceable
    assert spaces.pinned == set(range(4)) and spaces.order == ("body.0", "head")
    assert spaces.first == {"body.0"} and spaces.answers == {"head"}


def test_other_operations_while_training_are_noticed() -> None:
    class Auxiliary(Halved):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flip(2) if self.training else x)

    assert "while training" in channel_spaces(train_network(lambda: Auxiliary(torch.relu)), EXAMPLE).untraceable


def test_pinned_orders_cannot_be_changed() -> None:
    model = train_network(cases.vgg_net)
    spaces = channel_spaces(model, EXAMPLE)
    with pytest.raises(ValueError, match="is pinned"):
        reorder(model, spaces, [order[::-1] for order in identity_orders(spaces)])
