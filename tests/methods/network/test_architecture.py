from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from methods import layer_classes
from methods.network.architecture import describe, layer_name, needs_layers, rebuild
from methods.network.channels import channel_groups, cut
from spaces import InputError
from tests.methods.cases import IMAGE, NETS, seeded
from tests.methods.network.test_channels import ALL, choice

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
    assert describe(model, model) == {"format": 2, "modules": {}, "replaced": {}}


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


def make_rotated_pair() -> tuple[nn.Module, nn.Module]:
    """A network, and another whose layers were replaced, not only narrowed."""
    dense, pruned = seeded(NETS["plain"]), seeded(NETS["plain"])
    three = nn.Sequential(
        nn.Conv2d(8, 3, 1, bias=False),
        nn.Conv2d(3, 5, 3, 2, 1, bias=False, padding_mode="reflect"),
        nn.Conv2d(5, 12, 1),
    )
    pruned.set_submodule("2", three)
    pruned.set_submodule("0", nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(3, 8, 2)))
    pruned.set_submodule("5", nn.Linear(12 * 16, 10))
    pruned.set_submodule("7", nn.Linear(10, 4, bias=False))
    return dense, pruned.eval()


def test_replaced_layers_are_rebuilt() -> None:
    dense, pruned = make_rotated_pair()
    description = json.loads(json.dumps(describe(dense, pruned)))
    assert set(description["replaced"]) == {"0", "2", "7"} and set(description["modules"]) == {"5"}
    back = rebuild(dense, description, pruned.state_dict())
    x = torch.randn(2, *IMAGE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(back(x), pruned(x))
    assert describe(dense, back) == description


def test_other_kernel_means_replaced() -> None:
    dense, pruned = seeded(NETS["vgg"]), seeded(NETS["vgg"])
    pruned.set_submodule("0.0", nn.Conv2d(3, 8, (1, 3), padding=(0, 1), bias=False))
    description = describe(dense, pruned)
    assert list(description["replaced"]) == ["0.0"] and not description["modules"]
    rebuilt = rebuild(dense, json.loads(json.dumps(description)), pruned.state_dict()).get_submodule("0.0")
    assert rebuilt.kernel_size == (1, 3) and rebuilt.padding == (0, 1)


def test_first_format_is_still_read() -> None:
    model, smaller = cut_pair("vgg")
    description = describe(model, smaller)
    rebuild(model, {"format": 1, "modules": description["modules"]}, smaller.state_dict())


def test_only_known_layers_are_built_or_described() -> None:
    dense, pruned = make_rotated_pair()
    description = describe(dense, pruned)
    description["replaced"]["2"]["class"] = "Convv2d"
    del description["replaced"]["2"]["children"]
    with pytest.raises(InputError, match="unknown layer of an architecture 'Convv2d'; did you mean 'Conv2d'"):
        rebuild(dense, description, pruned.state_dict())
    description["replaced"]["2"] = {"class": "Linear", "settings": {"in_features": 3, "weights": "x"}}
    with pytest.raises(InputError, match="a Linear that cannot be built"):
        rebuild(dense, description, pruned.state_dict())
    pruned.set_submodule("2", nn.ReLU())
    with pytest.raises(ValueError, match="2 was replaced by a ReLU, which cannot be described"):
        describe(dense, pruned)


def test_networks_of_other_modules_are_refused() -> None:
    with pytest.raises(ValueError, match="the whole network was replaced: Sequential by Sequential"):
        describe(seeded(NETS["vgg"]), seeded(NETS["linear"]))
    description = describe(*make_rotated_pair())
    with pytest.raises(InputError, match="describes a Linear '5', which Sequential does not have"):
        rebuild(seeded(NETS["vgg"]), description, {})


@pytest.mark.parametrize("shape", [[2**40], [2**23, 2**23, 3, 3], [-1, 3, 3, 3], [1.5, 3, 3, 3]])
def test_shapes_that_no_network_has_are_refused_before_memory_is_taken(shape: list[float]) -> None:
    model, smaller = cut_pair("vgg")
    broken = json.loads(json.dumps(describe(model, smaller)))
    change = next(each for each in broken["modules"].values() if "weight" in each["shapes"])
    change["shapes"]["weight"] = shape
    with pytest.raises(InputError, match=r"gives 'weight' of a Conv2d the shape .*; allowed are"):
        rebuild(model, broken, smaller.state_dict())


@pytest.mark.parametrize("width", [2**40, [2**40, 1], -(2**40)])
def test_widths_that_no_layer_has_are_refused(width: object) -> None:
    model, smaller = cut_pair("vgg")
    broken = json.loads(json.dumps(describe(model, smaller)))
    change = next(each for each in broken["modules"].values() if "out_channels" in each["widths"])
    change["widths"]["out_channels"] = width
    with pytest.raises(InputError, match=r"gives 'out_channels' of a Conv2d the number -?1099511627776; allowed are"):
        rebuild(model, broken, smaller.state_dict())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"in_features": 2**40, "out_features": 2}, "gives 'in_features' of a Linear the number"),
        ({"in_features": 2**24, "out_features": 2**24}, "a Linear of 281474993487872 numbers"),
        ({"in_features": -3, "out_features": 2}, "a Linear that cannot be built"),
    ],
)
def test_replaced_layers_of_any_size_are_not_built(settings: dict[str, int], said: str) -> None:
    dense, pruned = make_rotated_pair()
    description = describe(dense, pruned)
    description["replaced"]["2"] = {"class": "Linear", "settings": settings}
    with pytest.raises(InputError, match=said):
        rebuild(dense, description, pruned.state_dict())


class Doubling(nn.Module):
    """A layer that torch does not have."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def settings(self) -> dict[str, int]:
        return {"times": self.times}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.times * x


@pytest.mark.parametrize("chained", [False, True])
def test_layers_that_torch_does_not_have_are_handed_in(chained: bool) -> None:
    dense, pruned = make_rotated_pair()
    assert not needs_layers(describe(dense, pruned)) and not needs_layers({"format": 1, "modules": {}})
    layer = Doubling(2)
    pruned.set_submodule("0", nn.Sequential(pruned.get_submodule("0"), layer) if chained else layer)
    pruned.set_submodule("7", Doubling(3))
    description = json.loads(json.dumps(describe(dense, pruned)))
    assert needs_layers(description)
    with pytest.raises(InputError, match="unknown layer .*Doubling.*; hand its class in as one of layers"):
        rebuild(dense, description, pruned.state_dict())
    back = rebuild(dense, description, pruned.state_dict(), [Doubling])
    assert isinstance(found := back.get_submodule("7"), Doubling) and found.times == 3


def test_layers_of_our_own_methods_are_known_by_their_bare_names() -> None:
    names = {layer_name(layer) for layer in layer_classes()}
    assert {"PivotedConv2d", "PivotedLinear"} <= names and not any(":" in name for name in names)
