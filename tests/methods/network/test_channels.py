from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.network.channels import ChannelGroup, channel_groups, cut, mask_units
from spaces import InputError
from tests.methods.cases import CLASSES, IMAGE, NETS, conv_bn, seeded


class Concatenated(nn.Module):
    """Two producers side by side feed one consumer; a grouped convolution follows, then flattened features."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 8, 3, padding=1)
        self.right = nn.Conv2d(3, 12, 3, padding=1)
        self.mixed = conv_bn(20, 12)
        self.grouped = conv_bn(12, 16, groups=4)
        self.hidden = nn.Linear(16 * 16, 10)
        self.classifier = nn.Linear(10, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(torch.cat([self.left(x), self.right(x)], dim=1))
        x = nn.functional.max_pool2d(self.grouped(self.mixed(x)), 2)
        answer: Tensor = self.classifier(torch.relu(self.hidden(x.flatten(1))))
        return answer


ALL = {**NETS, "concatenated": Concatenated}


def images(count: int = 4) -> Tensor:
    return torch.randn(count, *IMAGE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def choice(groups: list[ChannelGroup], seed: int, share: float = 0.6) -> dict[str, list[int]]:
    draw = random.Random(seed)
    return {
        group.name: sorted(draw.sample(range(group.channels), max(1, int(share * group.channels)))) for group in groups
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ALL)
def test_cut_network_equals_its_masked_twin(name: str, seed: int) -> None:
    model = seeded(ALL[name], trained=True).double()
    groups = channel_groups(model, images(1))
    kept = choice(groups, seed)
    smaller, silent = cut(model, groups, kept), mask_units(model, groups, kept)
    with torch.no_grad():
        assert (smaller(images()) - silent(images())).abs().max() <= 1e-12
        assert (smaller(images()) - model(images())).abs().max() > 1e-6, "nothing was removed"
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ALL)
def test_input_model_is_untouched_and_keeping_all_changes_nothing(name: str) -> None:
    model = seeded(ALL[name], trained=True).double()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.train().modules()]
    groups = channel_groups(model, images(1))
    whole = cut(model, groups, {group.name: range(group.channels) for group in groups})
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    model.eval(), whole.eval()
    with torch.no_grad():
        assert torch.equal(whole(images()), model(images()))


def test_widths_follow_the_choice() -> None:
    model = seeded(NETS["projection"])
    groups = {group.name: group for group in channel_groups(model, images(1).float())}
    inner = groups["2.conv1"]
    smaller = cut(model, list(groups.values()), {inner.name: [0, 5, 7]})
    block: Any = smaller.get_submodule("2")
    dense: Any = model.get_submodule("2")
    assert block.conv1.weight.shape[0] == block.conv2.weight.shape[1] == block.bn1.num_features == 3
    assert torch.equal(block.conv1.weight, dense.conv1.weight[[0, 5, 7]])


def test_residual_stream_is_one_group_and_zero_padding_separates_stages() -> None:
    groups = channel_groups(seeded(NETS["zero_pad"]), images(1).float())
    members = {group.name: {(m.module, m.side) for m in group.members} for group in groups}
    assert {("0.0", "out"), ("1.conv2", "out"), ("2.shortcut", "in")} <= members["0.0"]
    assert {("2.conv2", "out"), ("2.shortcut", "out"), ("5", "in")} <= members["2.conv2"]
    assert [group.stage for group in groups] == ["8x8", "8x8", "4x4", "4x4"]
    assert [group.depth for group in groups] == [0, 1 / 3, 2 / 3, 1]


def test_grouped_convolution_ties_one_channel_of_each_group() -> None:
    groups = {g.name: g for g in channel_groups(seeded(NETS["grouped"]), images(1).float())}
    assert groups["0.0"].channels == 8  # 16 channels, two groups read them
    tied = next(m for m in groups["0.0"].members if m.module == "1.0" and m.side == "in")
    assert tied.index[3].tolist() == [3, 11]


def test_unevenly_concatenated_input_of_a_grouped_convolution_has_two_kinds_of_units() -> None:
    class Uneven(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 12, 1)
            self.c, self.head = nn.Conv2d(20, 8, 1, groups=4), nn.Linear(8, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            y = self.c(torch.cat([self.a(x), self.b(x)], 1)).mean((2, 3))
            answer: Tensor = self.head(y)
            return answer

    model = seeded(Uneven).double()
    groups = channel_groups(model, images(1))
    # Position p of every group of five inputs goes at once: two of a's channels, or one, and the rest of b's.
    assert [(group.name, group.channels) for group in groups] == [("a", 3), ("a#2", 2), ("c", 2)]
    kept = {"a": [0, 2], "a#2": [1], "c": [1]}
    with torch.no_grad():
        difference = cut(model, groups, kept)(images()) - mask_units(model, groups, kept)(images())
    assert difference.abs().max() <= 1e-12


def test_classifier_and_ignored_modules_stay() -> None:
    model = seeded(NETS["vgg"])
    names = [group.name for group in channel_groups(model, images(1).float(), ignored=["2.0"])]
    assert names == ["0.0", "4.0"]


def test_errors_teach() -> None:
    model = seeded(NETS["vgg"])
    groups = channel_groups(model, images(1).float())
    with pytest.raises(InputError, match=r"unknown module '4\.O'; did you mean '4\.[012]'"):
        channel_groups(model, images(1).float(), ignored=["4.O"])
    with pytest.raises(InputError, match="nothing to prune in Linear"):
        channel_groups(nn.Linear(3, 2), torch.zeros(1, 3))
    with pytest.raises(InputError, match="cannot be traced with an input of shape"):
        channel_groups(model, torch.zeros(1, 5, 8, 8))
    with pytest.raises(InputError, match=r"'0\.0' must keep at least one of its units 0\.\.7"):
        cut(model, groups, {"0.0": []})
    with pytest.raises(InputError, match="unknown channel group '0.1'"):
        cut(model, groups, {"0.1": [0]})


def test_cut_network_trains() -> None:
    model = seeded(NETS["depthwise"])
    groups = channel_groups(model, images(1).float())
    smaller = cut(model, groups, choice(groups, 0)).train()
    smaller(images().float()).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in smaller.parameters())
