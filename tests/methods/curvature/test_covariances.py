"""Kronecker factors against loops over samples and positions, and against Fisher matrices written out."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import cast

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch.nn import functional as F

from methods.curvature.covariances import Factors, FactorSums, collect_factors
from methods.curvature.fisher import Fisher
from methods.curvature.im2col import read_counts, windows
from methods.curvature.passes import run_passes, watch_layers
from methods.curvature.second_moments import collect_second_moments
from tests.methods.cases import IMAGE, NETS, seeded
from tests.methods.fisher_cases import (
    QUICK,
    Shared,
    add_head,
    batches,
    brute_force_fisher,
    classes,
    columns,
    convolutions,
    generator,
    mlp,
    random,
)

# Inputs


@QUICK
@given(convolutions())
def test_oracle_03_pixels_weighed_by_their_readers_are_the_mean_diagonal_block(layer: nn.Conv2d) -> None:
    x, groups = random(3, 4, 7, 6), layer.groups
    found = collect_factors(layer, batches(x, classes(3), 2), [""], fisher=None)[""].inputs
    u = columns(layer, x).reshape(3, -1, groups, 4 // groups, layer.weight[0, 0].numel())
    expected = torch.einsum("btgid,btgjd->gij", u, u) / 3 / u.shape[-1]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@QUICK
@given(convolutions())
def test_covariance_of_whole_columns(layer: nn.Conv2d) -> None:
    x, groups = random(3, 4, 7, 6), layer.groups
    found = collect_factors(layer, batches(x, classes(3), 2), [""], fisher=None, full=True)[""].inputs
    u = columns(layer, x).reshape(3, -1, groups, layer.weight[0].numel())
    torch.testing.assert_close(found, torch.einsum("btgi,btgj->gij", u, u) / 3, rtol=1e-12, atol=1e-12)
    assert torch.equal(found, found.mT)


@QUICK
@given(convolutions())
def test_windows_are_what_the_convolution_reads(layer: nn.Conv2d) -> None:
    x = random(2, 4, 7, 6)
    view = windows(layer, x)
    torch.testing.assert_close(view.flatten(4).flatten(2, 3).permute(0, 3, 1, 2), columns(layer, x), rtol=0, atol=0)
    # a pixel that is set to one is seen once by each of its readers
    ones = windows(layer, torch.ones(1, 1, 7, 6)).sum()
    assert read_counts(layer, 7, 6).sum() == ones


def test_pieces_of_a_batch_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = seeded(lambda: nn.Conv2d(4, 8, 3, padding=1)).double()
    model, x, labels = add_head(layer, 8), random(5, 4, 7, 6), classes(5)

    def collect_everything() -> list[Tensor]:
        full = collect_factors(model, [(x, labels)], ["0"], fisher="exact", full=True)["0"].inputs
        return [full, collect_second_moments(model, [(x, labels)], ["0"], {}, fisher="exact")["0"]]

    whole = collect_everything()
    for file in ("im2col_covariance", "second_moments"):
        monkeypatch.setattr(f"methods.curvature.{file}.CHUNK_BYTES", 1)
    torch.testing.assert_close(collect_everything(), whole, rtol=1e-13, atol=0)


# Inputs and gradients


def gradients_by_sample(model: nn.Module, layer: nn.Module, x: Tensor) -> Iterator[tuple[float, Tensor]]:
    """Probability of each label, and the gradient at each call's output, one sample and label at a time."""
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, args, y: seen.append(y))
    for sample in x.split(1):
        logits = model(sample)[0]
        for label, p in enumerate(logits.softmax(0).tolist()):
            reached = torch.autograd.grad(-logits.log_softmax(0)[label], seen, retain_graph=True)
            yield from ((p, g) for g in reached)
        seen.clear()
    handle.remove()


@pytest.mark.parametrize("groups", [1, 4])
def test_oracle_04_factors_against_loops(groups: int) -> None:
    layer = cast(nn.Conv2d, seeded(lambda: nn.Conv2d(4, 8, 3, 2, 1, groups=groups)).double())
    model, x = add_head(layer, 8), random(5, 4, 7, 6)
    found = collect_factors(model, batches(x, classes(5), 2), ["0", "4"], fisher="exact")
    sums = {"A": torch.zeros(groups, 4 // groups, 4 // groups), "G": torch.zeros(groups, 8 // groups, 8 // groups)}
    sums = {key: value.double() for key, value in sums.items()}
    positions = 0
    for column in columns(layer, x):
        for u in column.reshape(-1, groups, 4 // groups, 9):
            positions += 1
            for d in range(9):
                for j in range(groups):
                    sums["A"][j] += torch.outer(u[j, :, d], u[j, :, d]) / 5 / 9
    for weight, g in gradients_by_sample(model, layer, x):
        for row in g[0].flatten(1).T.reshape(-1, groups, 8 // groups):
            for j in range(groups):
                sums["G"][j] += weight * torch.outer(row[j], row[j]) / positions
    torch.testing.assert_close(found["0"].inputs, sums["A"], rtol=1e-10, atol=0)
    torch.testing.assert_close(found["0"].outputs, sums["G"], rtol=1e-10, atol=1e-14)
    # the released code divides A, and multiplies G, by the squared number of positions: the product is the same
    t = positions // 5
    ours = torch.kron(found["0"].outputs[0], found["0"].inputs[0])
    theirs = torch.kron(found["0"].outputs[0] * t**2, found["0"].inputs[0] / t**2)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)


def kronecker(factors: Factors) -> Tensor:
    return torch.kron(factors.outputs[0], factors.inputs[0])


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_oracle_05_exact_for_one_sample_and_a_linear_layer() -> None:
    model, x = mlp(), random(1, 5)
    found = collect_factors(model, [(x, classes(1))], ["0", "2"], fisher="exact")
    for name in ("0", "2"):
        layer = cast(nn.Linear, model.get_submodule(name))
        assert relative(kronecker(found[name]), brute_force_fisher(model, layer, x)) < 1e-12


def test_oracle_05_exact_for_one_sample_and_one_position_of_a_convolution() -> None:
    layer = cast(nn.Conv2d, seeded(lambda: nn.Conv2d(3, 4, 3)).double())
    model, x = add_head(layer, 4), random(1, 3, 3, 3)
    found = collect_factors(model, [(x, classes(1))], ["0"], fisher="exact", full=True)["0"]
    assert relative(kronecker(found), brute_force_fisher(model, layer, x)) < 1e-12


def test_oracle_05_exact_for_a_deep_linear_network_with_squared_loss() -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 3))).double()
    x = random(11, 5)
    sums = {name: FactorSums(layer, False, True) for name, layer in watch_layers(model, ["0", "1", "2"]).items()}
    # targets of unit variance: the Fisher at the outputs is the identity
    run_passes(model, batches(x, classes(11), 4), sums, lambda y, _: torch.eye(3).double()[:, None].expand(3, *y.shape))
    for name in ("0", "1", "2"):
        layer = cast(nn.Linear, model.get_submodule(name))
        total = torch.zeros(layer.weight.numel(), layer.weight.numel(), dtype=x.dtype)
        for sample in x.split(1):
            for y in model(sample)[0]:
                (dw,) = torch.autograd.grad(y, layer.weight, retain_graph=True)
                total += torch.outer(dw.flatten(), dw.flatten()) / len(x)
        assert relative(kronecker(sums[name].factors(len(x))), total) < 1e-12


def test_oracle_06_not_exact_where_it_cannot_be() -> None:
    model, x = mlp(), random(16, 5)
    found = collect_factors(model, [(x, classes(16))], ["0"], fisher="exact")["0"]
    assert relative(kronecker(found), brute_force_fisher(model, cast(nn.Linear, model[0]), x)) > 0.01
    layer = cast(nn.Conv2d, seeded(lambda: nn.Conv2d(3, 4, 3)).double())
    net, images = add_head(layer, 4), random(8, 3, 7, 7)
    wide = collect_factors(net, [(images, classes(8))], ["0"], fisher="exact", full=True)["0"]
    assert relative(kronecker(wide), brute_force_fisher(net, layer, images)) > 0.1


def test_oracle_12_drawn_labels_tend_to_all_classes_like_one_over_the_root_of_their_number() -> None:
    model, x, labels = mlp(), random(64, 5), classes(64)
    exact = collect_factors(model, [(x, labels)], ["0"], fisher="exact")["0"].outputs
    draws = [1, 4, 16, 64]
    errors = []
    for count in draws:
        tries = [
            collect_factors(model, [(x, labels)], ["0"], fisher="mc", labels=count, generator=generator(seed))["0"]
            for seed in range(12)
        ]
        errors.append(sum(relative(each.outputs, exact) for each in tries) / 12)
    logs = torch.tensor([draws, errors], dtype=torch.float64).log()
    centred = logs - logs.mean(1, keepdim=True)
    slope = float((centred[0] * centred[1]).sum() / (centred[0] ** 2).sum())
    assert slope == pytest.approx(-0.5, abs=0.15)


def test_shared_layers_and_tokens_count_like_positions() -> None:
    model, x = seeded(Shared).double(), random(3, 4, 6, 5)
    found = collect_factors(model, batches(x, classes(3), 2), ["convolution", "tokens"], fisher="exact")
    reference = seeded(lambda: Shared(inplace=False)).double()
    for name, calls in (("convolution", 6 * 5 + 3 * 5), ("tokens", 3 * 5)):
        expected = torch.zeros_like(found[name].outputs[0])
        for weight, g in gradients_by_sample(reference, reference.get_submodule(name), x):
            rows = g[0].flatten(1) if name == "convolution" else g[0].T
            expected += weight * rows @ rows.T / (3 * calls)
        torch.testing.assert_close(found[name].outputs[0], expected, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_activations_in_place_and_frozen_weights_change_nothing(inplace: bool, frozen: bool) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(inplace), nn.Conv2d(5, 6, 3), nn.ReLU(inplace), nn.Flatten())

    model, x, labels = seeded(build).double().requires_grad_(not frozen), random(4, 3, 5, 5), classes(4)
    found = collect_factors(model, [(x, labels)], ["0", "2"], fisher="empirical")
    reference = seeded(build).double()
    first = F.conv2d(x, cast(Tensor, reference[0].weight), cast(Tensor, reference[0].bias))  # type: ignore[index]
    second = F.conv2d(first.relu(), cast(Tensor, reference[2].weight), cast(Tensor, reference[2].bias))  # type: ignore[index]
    loss = F.cross_entropy(second.relu().flatten(1), labels, reduction="sum")
    for name, g in zip(("0", "2"), torch.autograd.grad(loss, [first, second]), strict=True):
        expected = torch.einsum("bohw,bphw->op", g, g) / g[:, 0].numel()
        torch.testing.assert_close(found[name].outputs[0], expected, rtol=1e-12, atol=0)
    moments = collect_second_moments(model, [(x, labels)], ["2"], {}, fisher="empirical")["2"]
    assert moments.shape == (1, 6, 9, 5) and moments.gt(0).any()


def test_a_short_last_batch_weighs_less() -> None:
    model, x, labels = seeded(NETS["vgg"], trained=True).double(), random(7, *IMAGE), classes(7)
    names = ["0.0", "4.0", "7"]
    for full in (False, True):
        one = collect_factors(model, [(x, labels)], names, fisher="exact", full=full)
        many = collect_factors(model, batches(x, labels, 3), names, fisher="exact", full=full)
        for name in names:
            torch.testing.assert_close(one[name].inputs, many[name].inputs, rtol=1e-12, atol=1e-15)
            torch.testing.assert_close(one[name].outputs, many[name].outputs, rtol=1e-12, atol=1e-18)
        assert one["7"].samples == many["7"].samples == 7


@pytest.mark.parametrize("net", NETS)
def test_every_network_and_layout(net: str) -> None:
    model, x, labels = seeded(NETS[net], trained=True), random(6, *IMAGE, dtype=torch.float32), classes(6)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    precise = copy.deepcopy(model).double()
    wide = x.contiguous(memory_format=torch.channels_last)
    fishers: list[Fisher | None] = ["exact", None]
    for fisher in fishers:
        expected = collect_factors(precise, [(x.double(), labels)], names, fisher=fisher)
        for images in (x, wide):
            found = collect_factors(model, [(images, labels)], names, fisher=fisher)
            assert list(found) == names
            for name in names:
                for side in ("inputs", "outputs"):
                    a, b = getattr(found[name], side), getattr(expected[name], side)
                    assert a.dtype == torch.float64 and a.shape == b.shape
                    assert torch.equal(a, a.mT)
                    assert (a - b).norm() <= 1e-5 * b.norm()
                assert (found[name].outputs.shape[1] == 0) == (fisher is None)


def test_of_a_small_kernel_and_a_linear_layer_both_covariances_are_the_same() -> None:
    model, x = seeded(NETS["depthwise"], trained=True), random(3, *IMAGE, dtype=torch.float32)
    names = ["1.body.0.0", "5"]
    narrow = collect_factors(model, [(x, classes(3))], names, fisher=None)
    wide = collect_factors(model, [(x, classes(3))], names, fisher=None, full=True)
    assert all(torch.equal(narrow[name].inputs, wide[name].inputs) for name in names)
    depthwise = collect_factors(model, [(x, classes(3))], ["1.body.1.0"], fisher="exact", full=True)["1.body.1.0"]
    assert depthwise.inputs.shape == (16, 9, 9) and depthwise.outputs.shape == (16, 1, 1)
