"""Our networks in their published shapes, and how networks are found by name."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from methods.network.cost import count
from search.tasks.models import MODELS, build_model
from spaces import InputError

SMALL = (1, 3, 32, 32)
DIGIT = (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("name", "params", "millions"),
    [
        ("resnet20", 269_722, 40.8),
        ("resnet32", 464_154, 69.0),
        ("resnet56", 853_018, 125.5),
        ("resnet110", 1_727_962, 252.9),
        ("resnet32_wide", 7_427_914, 1100.0),
        ("wrn28_10", 36_479_194, 5240.0),
        ("vgg16", 14_987_722, 313.7),
        ("vgg19", 20_298_698, 398.0),
        ("mobilenetv2", 2_296_922, 91.2),
    ],
)
def test_parameters_and_multiply_accumulates_are_the_published_ones(name: str, params: int, millions: float) -> None:
    cost = count(build_model(name, 10, SMALL, seed=0), torch.zeros(SMALL))
    assert cost.params == params
    assert cost.flops == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize(("name", "millions"), [("resnet50", 4090.0), ("mobilenet_v2", 300.0)])
def test_torchvision_has_the_published_multiply_accumulates(name: str, millions: float) -> None:
    # These networks take any size, and building checks a forward pass: small is quicker.
    model = build_model(f"torchvision:{name}", 1000, SMALL, seed=0)
    assert count(model, torch.zeros(1, 3, 224, 224)).flops == pytest.approx(millions * 1e6, rel=0.01)


def test_lenet_has_the_published_parameters() -> None:
    cost = count(build_model("lenet_300_100", 10, (1, 1, 28, 28), seed=0), torch.zeros(1, 1, 28, 28))
    assert (cost.params, cost.flops) == (266_610, 784 * 300 + 300 * 100 + 100 * 10)
    with pytest.raises(InputError, match=r"'lenet_300_100' does not take inputs of shape \[1, 32, 32\]"):
        build_model("lenet_300_100", 10, (1, 1, 32, 32), seed=0)


def test_digits_network_is_small_and_takes_digits() -> None:
    model = build_model("digits_resnet", 10, DIGIT, seed=0)
    assert sum(p.numel() for p in model.parameters()) == 77_754
    assert model(torch.zeros(2, *DIGIT[1:])).shape == (2, 10)


@pytest.mark.parametrize("name", ["resnet20", "vgg16", "mobilenetv2"])
def test_other_sizes_and_channels(name: str) -> None:
    model = build_model(name, 7, (1, 1, 28, 28), seed=0)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 7)


def test_option_a_shortcuts_have_no_parameters() -> None:
    model = build_model("resnet20", 10, SMALL, seed=0)
    assert not [name for name, _ in model.named_parameters() if "shortcut" in name]
    wide = build_model("resnet32_wide", 10, SMALL, seed=0)
    shortcuts = {n.rsplit(".", 2)[0] for n, _ in wide.named_parameters() if "shortcut" in n}
    assert shortcuts == {"layer2.0.shortcut", "layer3.0.shortcut"}


def test_weights_start_with_he_variance() -> None:
    weight = build_model("resnet56", 10, SMALL, seed=0).get_submodule("layer3.4.conv1").weight
    assert isinstance(weight, torch.Tensor)
    assert weight.detach().var().item() == pytest.approx(2 / (64 * 9), rel=0.05)


@pytest.mark.parametrize("name", ["digits_resnet", "torchvision:squeezenet1_1"])
def test_seed_decides_weights_and_global_state_is_left_alone(name: str) -> None:
    shape = DIGIT if name in MODELS else SMALL
    before = torch.random.get_rng_state()
    first, again, other = (build_model(name, 10, shape, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_building_leaves_batch_norms_untouched() -> None:
    model = build_model("digits_resnet", 10, DIGIT, seed=0)
    assert all(module.training for module in model.modules())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(norm.num_batches_tracked == 0 for norm in norms)


def test_pre_activation_comes_before_the_convolution() -> None:
    block = build_model("wrn28_10", 10, SMALL, seed=0).get_submodule("layer1.1")
    seen = []
    for name in ("bn1", "conv1", "bn2", "conv2"):
        block.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
    block(torch.randn(1, 160, 4, 4))
    assert seen == ["bn1", "conv1", "bn2", "conv2"]


@pytest.mark.parametrize("name", ["resnet57", "torchvison:resnet18x"])
def test_unknown_model_names_the_nearest(name: str) -> None:
    with pytest.raises(InputError, match="resnet56|no module 'torchvison'"):
        build_model(name, 10, SMALL, seed=0)


def test_unknown_torchvision_model_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"torchvision model 'resnet51'; did you mean 'resnet50'"):
        build_model("torchvision:resnet51", 10, SMALL, seed=0)


def test_wrong_input_shape_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"'torchvision:alexnet' does not take inputs of shape \[3, 32, 32\]"):
        build_model("torchvision:alexnet", 10, SMALL, seed=0)


def test_names_are_known_without_torch() -> None:
    code = (
        "import sys, search.tasks.models, search.tasks.data.sets, search.tasks.data.sizes, search.tasks.recipes;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
