"""Every kind of network is cut, compared with its masked twin, counted, rebuilt and trained."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from methods.network.channels import analyse, channel_groups, cut
from methods.network.cost import Cost, CostModel, count
from methods.network.preflight import examine
from methods.network.shaken import TOLERANCE
from spaces import InputError
from tests.methods.cases import CLASSES, conv_bn, seeded
from tests.methods.network.further_networks import PINNED, PROVEN, Attention
from tests.methods.network.networks import EXAMPLE, KINDS, Wired, pool


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_network_passes_every_proof(kind: str) -> None:
    model = seeded(KINDS[kind])
    found = examine(model, EXAMPLE)
    assert found.groups and not found.left_out
    assert found.difference <= TOLERANCE[torch.float64]
    assert found.least.flops < found.dense.flops and found.least.params < found.dense.params
    least = {group.name: 1 for group in found.groups}
    if kind != "einsum":  # torch writes a product over a single channel as a multiplication, which it does not count
        assert Cost(found.cost.flops(least), found.cost.params(least)) == found.least
    assert found.dense == count(model, EXAMPLE)


@pytest.mark.parametrize("kind", PROVEN)
def test_networks_of_further_kinds_lose_channels_everywhere(kind: str) -> None:
    build, inputs = PROVEN[kind]
    found = examine(seeded(build), inputs)
    assert not found.left_out and set(found.analysis.stays.values()) <= {"it is the network's output"}
    assert found.least.flops < 0.5 * found.dense.flops


@pytest.mark.parametrize("kind", PINNED)
def test_what_must_stay_is_named_with_the_operation_that_keeps_it(kind: str) -> None:
    (build, inputs), layer, reason = PINNED[kind]
    found = examine(seeded(build), inputs)
    assert found.groups and reason in found.analysis.stays[layer]


def test_numbers_that_modules_keep_are_brought_up_to_date() -> None:
    model = seeded(Attention)
    inputs = torch.randn(1, 10, 6, generator=torch.Generator().manual_seed(0))
    groups = channel_groups(model, inputs)
    smaller: Any = cut(model, groups, {"q": [0, 2, 3], "into": range(5)})
    assert (smaller.num_heads, smaller.all_head_size, smaller.hidden_size) == (3, 12, 5)
    assert smaller.q.out_features == 12 and smaller.o.in_features == 12 and smaller.norm.normalized_shape == (5,)


class Standardised(nn.Conv2d):
    """A convolution whose filters are normalised by torch's batch norm, which wants more than one number of each."""

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(self.weight.flatten(1)[None], None, None, training=True, momentum=0.0)
        return F.conv2d(x, weight.view_as(self.weight), self.bias)


def test_one_channel_stays_for_good_where_a_network_does_not_run_with_a_single_one() -> None:
    model = Wired(
        lambda net, x: net.head(pool(net.last(net.first(x)))),
        first=conv_bn(3, 8),
        last=Standardised(8, 6, 1),
        head=nn.Linear(6, CLASSES),
    )
    found = examine(model, EXAMPLE)
    assert {group.name: group.channels for group in found.groups} == {"first.0": 7, "last": 6} and not found.left_out
    assert found.difference <= TOLERANCE[torch.float64]
    assert found.analysis.stays["first.0"].startswith("one channel stays for good, for the network does not run")
    smallest = cut(model, found.groups, {group.name: [0] for group in found.groups})
    assert smallest.get_submodule("last").weight.shape == (1, 2, 1, 1)


def test_one_channel_stays_for_good_where_one_example_has_too_few_numbers() -> None:
    model = Wired(
        lambda net, x: net.head(net.norm(pool(net.first(x))[:, :, None, None]).flatten(1)),
        first=conv_bn(3, 8),
        norm=nn.GroupNorm(1, 8),
        head=nn.Linear(8, CLASSES),
    )
    found = examine(model, EXAMPLE)
    assert [(group.name, group.channels) for group in found.groups] == [("first.0", 7)]
    assert "Expected more than 1 value per channel" in found.analysis.stays["first.0"]


def test_networks_that_cannot_be_trained_are_refused_in_a_sentence() -> None:
    def wiring(net: Any, x: Tensor) -> Tensor:
        y = net.first(x).exp()
        y[:, :4] = net.part(y[:, :4])
        answer: Tensor = net.head(pool(y))
        return answer

    model = Wired(wiring, first=nn.Conv2d(3, 8, 1), part=nn.Conv2d(4, 4, 1), head=nn.Linear(8, CLASSES))
    with pytest.raises(InputError, match="Wired cannot be trained: .* modified by an inplace operation"):
        examine(model, EXAMPLE)


@pytest.mark.parametrize("kind", ["size in a view", "slices", "attention of torch", "order in a list"])
def test_cut_networks_can_be_copied_and_pickled_and_cut_again(kind: str) -> None:
    model = seeded(KINDS[kind])
    groups = channel_groups(model, EXAMPLE)
    smaller = cut(model, groups, {group.name: range(1, group.channels) for group in groups}).eval()
    if kind == "attention of torch":  # functions without a name cannot be pickled
        smaller.wiring = None  # type: ignore[assignment]
        pickle.loads(pickle.dumps(smaller.get_submodule("attend")))
        return
    batch = torch.cat([EXAMPLE] * 3)  # another batch than the one that was followed
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(smaller)(batch), smaller(batch))
    again = channel_groups(smaller, EXAMPLE)
    smallest = cut(smaller, again, {group.name: [0] for group in again})
    assert smallest(batch).shape == (3, CLASSES)


def test_attention_loses_heads_and_width() -> None:
    model = seeded(KINDS["attention of torch"])
    groups = {group.name: group for group in channel_groups(model, EXAMPLE)}
    assert {name: group.channels for name, group in groups.items()} == {"embed": 16, "attend": 4}
    smaller: Any = cut(model, list(groups.values()), {"attend": [1], "embed": range(6)})
    assert smaller.attend.num_heads == 1 and smaller.attend.head_dim == 4 and smaller.attend.embed_dim == 6
    assert smaller.attend.in_proj_weight.shape == (12, 6) and smaller.attend.out_proj.weight.shape == (6, 4)


def test_frozen_layers_stay_unless_they_are_named() -> None:
    model = seeded(KINDS["one module twice"])
    model.get_submodule("first").requires_grad_(False)
    found = analyse(model, EXAMPLE)
    assert "first.0" not in [group.name for group in found.groups]
    assert found.stays["first.0"] == "first.0 is frozen"
    groups = channel_groups(model, EXAMPLE, frozen=["first"])
    smaller = cut(model, groups, {groups[0].name: [0, 1]})
    assert groups[0].name == "first.0" and not any(p.requires_grad for p in smaller.get_submodule("first").parameters())
    assert all(p.requires_grad for p in smaller.get_submodule("last").parameters())


def test_shared_weights_stay_shared_and_count_once() -> None:
    model = seeded(KINDS["shared weight"])
    groups = channel_groups(model, EXAMPLE)
    smaller: Any = cut(model, groups, {group.name: [0] for group in groups})
    assert smaller.a.weight is smaller.b.weight
    least = {group.name: 1 for group in groups}
    assert CostModel(model, EXAMPLE, groups).params(least) == sum(p.numel() for p in smaller.parameters())


def test_what_is_not_understood_stays_with_the_operation_named() -> None:
    model = Wired(
        lambda net, x: net.head(pool(net.last(torch.cumsum(net.first(x), 1)))),
        first=conv_bn(3, 8),
        last=conv_bn(8, 12),
        head=nn.Linear(12, CLASSES),
    )
    found = analyse(model, EXAMPLE)
    assert [group.name for group in found.groups] == ["last.0"]
    assert found.stays["first.0"] == "cumsum in the network itself looks at the order of the channels"


def test_networks_without_anything_to_cut_are_refused_in_a_sentence() -> None:
    model = seeded(KINDS["repeated"]).requires_grad_(False)
    with pytest.raises(InputError, match="nothing to prune in Wired: .*; first.0: first.0 is frozen"):
        examine(model, EXAMPLE)


def merge_windows(net: Any, x: Tensor) -> Tensor:
    """Work in windows of 4 x 4 positions, then merge each 2 x 2 positions into one and normalise it."""
    batch, side = len(x), 8
    x = net.embed(x).permute(0, 2, 3, 1)
    windows = x.reshape(batch, 2, 4, 2, 4, x.shape[-1]).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 4, x.shape[-1])
    windows = windows + net.inside(windows)
    x = windows.view(-1, 2, 2, 4, 4, x.shape[-1]).permute(0, 1, 3, 2, 4, 5).reshape(batch, side, side, -1)
    x = x.reshape(batch, 4, 2, 4, 2, x.shape[-1]).permute(0, 1, 3, 4, 2, 5).flatten(3)
    answer: Tensor = net.head(net.merge(net.norm(x)).mean((1, 2)))
    return answer


def test_norms_after_merged_windows_follow_their_channels() -> None:
    model = Wired(
        merge_windows,
        embed=nn.Conv2d(3, 8, 1),
        inside=nn.Linear(8, 8),
        norm=nn.LayerNorm(32),
        merge=nn.Linear(32, 16),
        head=nn.Linear(16, CLASSES),
    )
    found = examine(model, torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert [group.name for group in found.groups] == ["embed", "merge"] and not found.left_out
    assert found.difference <= TOLERANCE[torch.float64]


def test_costs_of_two_thousand_candidates_are_those_of_single_ones() -> None:
    model = seeded(KINDS["attention, heads in the code"])
    groups = channel_groups(model, EXAMPLE)
    cost = CostModel(model, EXAMPLE, groups)
    draw = torch.Generator().manual_seed(0)
    widths = torch.stack([torch.randint(1, g.channels + 1, (2000,), generator=draw) for g in groups], 1).numpy()
    flops, params = cost.batch(widths)
    assert flops.shape == params.shape == (2000,) and flops.min() > 0 and flops.max() <= cost.dense
    for row in (0, 777, 1999):
        kept = {group.name: int(width) for group, width in zip(groups, widths[row], strict=True)}
        assert (flops[row], params[row]) == (cost.flops(kept), cost.params(kept))


class Random(nn.Module):
    """A chain of randomly chosen pieces, each of which changes the channels in its own way."""

    def __init__(self, pieces: list[tuple[str, int]]) -> None:
        super().__init__()
        self.pieces, self.layers = pieces, nn.ModuleList()
        width = 8
        self.first = conv_bn(3, width)
        for kind, number in pieces:
            layer, width = _piece(kind, number, width)
            self.layers.append(layer)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for (kind, number), layer in zip(self.pieces, self.layers, strict=True):
            x = _apply(kind, number, layer, x)
        answer: Tensor = self.head(pool(x))
        return answer


PIECES = (
    "conv", "residual", "concat", "shuffle", "chunk", "slice", "glu", "depthwise", "grouped", "norm", "gate", "pad",
    "flip", "roll", "view", "layernorm", "transposed", "prelu", "pixels",
)  # fmt: skip


def _piece(kind: str, number: int, width: int) -> tuple[nn.Module, int]:
    """Return the layer of a piece and the width after it; widths stay multiples of 4."""
    wider = 4 * number
    layers: dict[str, tuple[nn.Module, int]] = {
        "conv": (conv_bn(width, wider), wider),
        "residual": (conv_bn(width, width), width),
        "concat": (conv_bn(width, wider), width + wider),
        "slice": (conv_bn(width - 3, width - 3), width),
        "chunk": (conv_bn(width // 2, width // 2), width),
        "glu": (nn.Conv2d(width, 2 * wider, 1), wider),
        "depthwise": (conv_bn(width, 2 * width, groups=width), 2 * width),
        "grouped": (conv_bn(width, wider, groups=2), wider),
        "norm": (nn.GroupNorm(2, width), width),
        "gate": (nn.Sequential(nn.Linear(width, 4), nn.ReLU(), nn.Linear(4, width), nn.Sigmoid()), width),
        "pad": (nn.Identity(), width + 4),
        "layernorm": (nn.LayerNorm(width), width),
        "transposed": (nn.ConvTranspose2d(width, wider, 3, padding=1), wider),
        "prelu": (nn.PReLU(width), width),
        "pixels": (conv_bn(width // 4, wider), wider),
    }
    return layers.get(kind, (nn.Identity(), width))


def _apply(kind: str, number: int, layer: nn.Module, x: Tensor) -> Tensor:
    batch, width, height, side = x.shape
    match kind:
        case "residual":
            return torch.relu(x + layer(x))
        case "concat":
            return torch.cat([x, layer(x)], 1)
        case "shuffle":
            return x.view(batch, 2, width // 2, height, side).transpose(1, 2).reshape(batch, width, height, side)
        case "chunk":
            left, right = x.chunk(2, 1)
            return torch.cat([layer(left), right], 1)
        case "slice":
            return torch.cat([x[:, :3], layer(x[:, 3:])], 1)
        case "glu":
            return F.glu(layer(x), 1)
        case "gate":
            return x * layer(pool(x))[:, :, None, None]  # type: ignore[no-any-return]
        case "pad":
            return F.pad(x, (0, 0, 0, 0, 1, 3))
        case "flip":
            return x.flip(1)
        case "roll":
            return torch.roll(x, number, 1)
        case "view":
            return x.reshape(batch, -1, 4, height, side).amax(2).repeat_interleave(4, 1)
        case "layernorm":
            return layer(x.movedim(1, -1)).movedim(-1, 1)  # type: ignore[no-any-return]
        case "pixels":
            return F.avg_pool2d(layer(F.pixel_shuffle(x, 2)), 2)
        case _:
            return layer(x)  # type: ignore[no-any-return]


def prove_random(pieces: list[tuple[str, int]], seed: int) -> None:
    model = seeded(lambda: Random(pieces), seed=seed)
    try:
        found = examine(model, EXAMPLE)
    except InputError as error:
        assert "nothing to prune in Random" in str(error)
        return
    assert found.difference <= TOLERANCE[torch.float64]
    assert 0 < found.least.flops <= found.dense.flops


fixed = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),  # a failing chain is short enough to be read, and shrinking takes minutes
    suppress_health_check=list(HealthCheck),
)
chains = st.lists(st.tuples(st.sampled_from(PIECES), st.integers(1, 4)), min_size=1, max_size=6)


@settings(fixed, max_examples=8)
@given(chains, st.integers(0, 99))
@example([("pad", 1), ("chunk", 1)], 0)  # only the last unit changes the padding in front
def test_random_networks_pass_every_proof(pieces: list[tuple[str, int]], seed: int) -> None:
    prove_random(pieces, seed)


@pytest.mark.slow
@settings(fixed, max_examples=150)
@given(chains, st.integers(0, 99))
def test_many_random_networks_pass_every_proof(pieces: list[tuple[str, int]], seed: int) -> None:
    prove_random(pieces, seed)
