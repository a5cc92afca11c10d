"""Smaller kernels: which rectangle is left, and that nothing but zeros was cut away."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from methods.contract.method import Problem
from methods.contract.recipe import Recipe
from methods.increg.kernels import Window, cut_kernels, find_largest_area, find_nearest_window, slice_kernel
from methods.increg.method import IncReg
from methods.network.architecture import describe, rebuild
from methods.network.channels import channel_groups
from methods.network.cost import count
from methods.ranked.columns import Columns, allot_columns
from spaces import InputError, Uniform
from tests.methods import cases

DOUBLE = torch.float64
EXAMPLE = torch.zeros(1, *cases.IMAGE, dtype=DOUBLE)


# --- rectangles -------------------------------------------------------------------------------------------------


def rectangles(height: int, width: int) -> list[Window]:
    rows, columns = (list(itertools.combinations(range(n + 1), 2)) for n in (height, width))
    return [Window(top, bottom, left, right) for top, bottom in rows for left, right in columns]


@given(height=st.integers(1, 5), width=st.integers(1, 5), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_window_is_the_best_of_all(height: int, width: int, data: st.DataObject) -> None:
    size = height * width
    chosen = data.draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
    kept = torch.tensor(chosen).view(height, width)
    norms = torch.rand(height, width, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    window = find_nearest_window(kept, norms)
    allowed = [w for w in rectangles(height, width) if w.area <= int(kept.sum())]
    assert window in allowed and window.area == max(w.area for w in allowed)
    assert window.area == find_largest_area(height, width, int(kept.sum()))

    def rate_window(w: Window) -> tuple[int, float]:
        inside = [(i, k) for i in range(w.top, w.bottom) for k in range(w.left, w.right)]
        return sum(bool(kept[i, k]) for i, k in inside), sum(float(norms[i, k]) for i, k in inside)

    best = max(rate_window(w) for w in allowed if w.area == window.area)
    assert rate_window(window) == pytest.approx(best)


def test_windows_by_hand() -> None:
    ones = torch.ones(3, 3)
    plus = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.bool)
    assert find_nearest_window(plus, ones) == Window(0, 2, 0, 2)
    strong = ones.clone()
    strong[2, 1] = strong[1, 2] = 5
    assert find_nearest_window(plus, strong) == Window(1, 3, 1, 3)
    assert find_nearest_window(ones.bool(), ones) == Window(0, 3, 0, 3)
    middle = torch.zeros(3, 3, dtype=torch.bool)
    middle[1, 1] = True
    assert find_nearest_window(middle, ones) == Window(1, 2, 1, 2)


# --- slicing ----------------------------------------------------------------------------------------------------

LAYERS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 1, "stride": 2},
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": 3},
    {"kernel_size": 5, "padding": 2, "stride": 2},
    {"kernel_size": 5, "padding": 1, "dilation": (1, 2), "stride": (2, 1)},
    {"kernel_size": (3, 5), "padding": (2, 0)},
    {"kernel_size": (1, 4), "padding": "same"},
    {"kernel_size": 3, "padding": "valid"},
    {"kernel_size": 3, "padding": 1, "groups": 2, "bias": False},
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("settings_", LAYERS)
def test_oracle_14_a_slice_computes_what_the_masked_kernel_does(settings_: dict[str, Any]) -> None:
    def build() -> nn.Module:
        return nn.Conv2d(4, 6, **settings_)

    inputs = torch.randn(2, 4, 13, 14, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    convolution = cases.seeded(build).double()
    assert isinstance(convolution, nn.Conv2d)
    height, width = convolution.kernel_size
    forms = set()
    for number, window in enumerate(rectangles(height, width)):
        masked = copy.deepcopy(convolution)
        with torch.no_grad():
            masked.weight.mul_(window.mask(height, width))
        layer = slice_kernel(convolution, window)
        torch.testing.assert_close(layer(inputs), masked(inputs), rtol=0, atol=1e-12)
        forms.add(type(layer).__name__)
        if number % 9 == 0:
            dense, left = (count(nn.Sequential(m), inputs[:1]).flops for m in (convolution, layer))
            assert left * height * width == dense * window.area
    assert "Conv2d" in forms


def test_only_uneven_padding_needs_a_layer_of_its_own() -> None:
    convolution = nn.Conv2d(4, 6, 3, padding=1)
    for window, padding in ((Window(1, 2, 1, 2), (0, 0)), (Window(0, 3, 1, 2), (1, 0)), (Window(0, 3, 0, 3), (1, 1))):
        layer = slice_kernel(convolution, window)
        assert isinstance(layer, nn.Conv2d) and layer.padding == padding
    layer = slice_kernel(convolution, Window(0, 2, 0, 3))
    assert [name for name, _ in layer.named_parameters()] == ["conv.weight", "conv.bias"]
    assert [module.padding for module in layer.children()] == [(1, 1, 1, 0), (0, 0)]


def test_modes_gradients_and_shared_layers_survive() -> None:
    shared = nn.Conv2d(3, 3, 3, padding=1)
    shared.weight.requires_grad_(False)
    model = nn.Sequential(shared, nn.ReLU(), shared).eval()
    smaller = cut_kernels(model, {"0": Window(0, 2, 0, 2)})
    assert not any(module.training for module in smaller.modules())
    assert smaller.get_submodule("0") is smaller.get_submodule("2")
    weight = smaller.get_parameter("0.conv.weight")
    assert weight.shape == (3, 3, 2, 2) and not weight.requires_grad
    assert model[0] is shared and shared.weight.shape[2] == 3


# --- IncReg on kernels ------------------------------------------------------------------------------------------


def problem(net: str, steps: int = 40) -> Problem:
    return Problem(
        model=cases.seeded(cases.NETS[net], trained=True),
        example=EXAMPLE.float(),
        train=cases.blobs(cases.IMAGE, 96),
        validation=cases.blobs(cases.IMAGE, 40, seed=1, noise=0),
        recipe=Recipe(lr=0.05, batch_size=32, recalibrate=2),
        steps=steps,
        generator=torch.Generator().manual_seed(0),
        known=cases.find_anatomy(cases.NETS[net]),
    )


def spatial(**fields: Any) -> IncReg:
    return IncReg.model_validate({"granularity": "spatial", "sparsity": {"mode": "uniform", "ratio": 0.5}, **fields})


@pytest.mark.parametrize("net", [net for net in cases.NETS if net != "linear"])
def test_oracle_05_and_16_kernels_really_shrink(net: str) -> None:
    task = problem(net)
    pruned = spatial().prune(task)
    dense = dict(task.model.named_modules())
    groups = channel_groups(task.model, task.example)
    makers = {member.module for group in groups for member in group.members if member.side == "out"}
    for name, module in dense.items():
        if not isinstance(module, nn.Conv2d):
            continue
        layer = next(m for m in pruned.model.get_submodule(name).modules() if isinstance(m, nn.Conv2d))
        smaller = name in makers and module.kernel_size == (3, 3)
        assert layer.weight[0, 0].numel() == (4 if smaller else module.weight[0, 0].numel()), name
    last = [record for record in pruned.history if "removed" in record][-1]
    left = count(pruned.model, task.example).flops
    assert left == last["flops_if_cut"] < count(task.model, task.example).flops
    assert pruned.extra["offsets_lost"] == pruned.extra["offsets_regained"]
    assert "flops_without_columns" not in pruned.extra
    assert all(list(pruned.kept[group.name]) == list(range(group.channels)) for group in groups)
    assert pruned.steps == 40 and not pruned.model.training
    text = json.loads(json.dumps(describe(task.model, pruned.model)))
    rebuilt = rebuild(cases.NETS[net](), text, pruned.model.state_dict())
    assert torch.equal(rebuilt(task.example), pruned.model(task.example))


def test_oracle_14_the_cut_loses_only_what_the_rectangle_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the chosen positions are a rectangle, the network with smaller kernels is the trained one."""
    seen: list[tuple[nn.Module, nn.Module]] = []

    def note(model: nn.Module, windows: dict[str, Window]) -> nn.Module:
        smaller = cut_kernels(model, windows)
        seen.append((copy.deepcopy(model), copy.deepcopy(smaller)))
        return smaller

    monkeypatch.setattr("methods.increg.method.cut_kernels", note)
    task = problem("vgg")
    with torch.no_grad():  # the last row and column are the weakest by far
        for name in ("0.0", "2.0", "4.0"):
            weight = task.model.get_parameter(f"{name}.weight")
            weight[:, :, 2] *= 1e-4
            weight[:, :, :, 2] *= 1e-4
    pruned = spatial(lr_prune_factor=1e-6, penalty_max=1e4).prune(task)
    trained, smaller = seen[0]
    assert pruned.extra["offsets_lost"] == pruned.extra["offsets_regained"] == 0
    inputs = task.validation.batches(40)
    batch = next(iter(inputs))[0]
    torch.testing.assert_close(smaller(batch), trained(batch), rtol=0, atol=1e-5)
    assert smaller.get_parameter("2.0.conv.weight").shape == (12, 8, 2, 2)


def test_flops_targets_are_met_by_rectangles() -> None:
    for net, target in (("vgg", 0.5), ("projection", 0.7)):
        task = problem(net, steps=24)
        pruned = spatial(sparsity={"mode": "flops", "flops": target}).prune(task)
        share = count(pruned.model, task.example).flops / count(task.model, task.example).flops
        assert target - 0.12 < share <= target


def test_networks_without_kernels_are_refused() -> None:
    with pytest.raises(
        InputError, match="nothing to prune in Sequential: no convolution with zero padding has a kernel"
    ):
        spatial().prune(problem("linear"))


def test_kernels_that_pad_with_other_than_zeros_are_left_alone() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 1),
        nn.ConvTranspose2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 5),
    )
    columns = Columns(model, EXAMPLE.float(), [], "offset")
    assert columns.names == ["3", "4"] and columns.sizes == [9, 25]
    norms: Tensor = columns.l1()
    weight = model.get_parameter("4.weight")
    assert norms[1, 7].item() == pytest.approx(weight[:, :, 1, 2].abs().sum().item(), rel=1e-5)
    with pytest.raises(InputError, match="no layer with columns produces channels of a group"):
        allot_columns(columns, [], Uniform(ratio=0.5), 1)
