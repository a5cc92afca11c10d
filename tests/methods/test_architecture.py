from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from methods.architecture import describe, rebuild
from methods.channels import channel_groups, cut
from spaces import InputError
from tests.methods.cases import IMAGE, NETS, seeded
from tests.methods.test_channels import ALL, choice

EXAMPLE = torch.zeros(1, *IMAGE)


def cut_pair(name: str) -> tuple[nn.Module, nn.Module]:
    model = seeded(ALL[name], trained=True)
    groups = channel_groups(model, EXAMPLE)
    return model, cut(model, groups, choice(groups, seed=3))


@pytest.mark.parametrize("name", ALL)
def test_round_trip_through_json_gives_the_same_answers(name: str) -> None:
    model, smaller = cut_pair(name)
    description = json.loads(json.dumps(describe(model, smaller)))
    other_weights = seeded(ALL[name], seed=9)
    back = rebuild(other_weights, description, smaller.state_dict())
    x = torch.randn(3, *IMAGE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(back(x), smaller.eval()(x))
    assert describe(model, back) == description
    assert not any(module.training for module in back.modules())


def test_uncut_network_needs_no_description() -> None:
    model = seeded(NETS["vgg"])
    assert describe(model, model) == {"format": 1, "modules": {}}


def test_errors_say_what_does_not_fit() -> None:
    model, smaller = cut_pair("vgg")
    description = describe(model, smaller)
    with pytest.raises(InputError, match="architecture format 99 is not supported"):
        rebuild(model, {**description, "format": 99}, {})
    with pytest.raises(InputError, match="which Sequential does not have"):
        rebuild(seeded(NETS["linear"]), description, smaller.state_dict())
    with pytest.raises(InputError, match="weights do not fit"):
        rebuild(model, description, model.state_dict())
    broken = json.loads(json.dumps(description))
    next(iter(broken["modules"].values()))["widths"]["forward"] = 3
    with pytest.raises(InputError, match="'forward' is not a width"):
        rebuild(model, broken, smaller.state_dict())


def test_networks_of_other_modules_are_refused() -> None:
    with pytest.raises(ValueError, match="modules differ by name"):
        describe(seeded(NETS["vgg"]), seeded(NETS["linear"]))
