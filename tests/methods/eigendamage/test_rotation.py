"""Rewritten layers: equal to the layer, to each other, and as expensive as the formulas say."""

from __future__ import annotations

import copy
import io
import itertools
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from methods.curvature.covariances import Factors
from methods.eigendamage.kronecker import damage, directions, eigenbases
from methods.eigendamage.rotation import (
    build_three_parts,
    core_name,
    core_of,
    list_realisations,
    parts,
    rotations,
)
from methods.eigendamage.rotation_cost import Form, Forms, Realise, Shape, survey
from methods.eigendamage.separable import decompose, separable
from methods.network.chains import SEGMENTS, blocks, groups_of, merge_layers, realise
from methods.network.cost import Cost, count
from tests.methods import cases

DOUBLE = torch.float64
Mode = Literal["zeros", "reflect", "circular"]


def make_orthogonal(groups: int, size: int, seed: int) -> Tensor:
    square = torch.randn(groups, size, size, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
    basis: Tensor = torch.linalg.qr(square)[0]
    return basis


def layer(build: Callable[[], nn.Module], dtype: torch.dtype = DOUBLE) -> nn.Module:
    return cases.seeded(build).to(dtype)


def conv(
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    bias: bool = True,
    mode: Mode = "zeros",
    inputs: int = 8,
    outputs: int = 12,
    padding: int | None = None,
    dilation: int = 1,
) -> nn.Module:
    padding = (kernel // 2 if kernel > 1 else 1) if padding is None else padding
    return layer(lambda: nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias, padding_mode=mode))


def rotate(module: nn.Module, columns: int | None = None, rows: int | None = None, seed: int = 0) -> nn.Sequential:
    core = core_of(module)
    groups = groups_of(core)
    _, written, _, read = blocks(core.weight, groups).shape
    bases = make_orthogonal(groups, read, seed), make_orthogonal(groups, written, seed + 1)
    return build_three_parts(module, parts(module, bases[0][:, :, :columns], bases[1][:, :, :rows]))


def images(channels: int = 8, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(2, channels, 9, 11, generator=torch.Generator().manual_seed(9), dtype=dtype)


def outputs(module: nn.Module, x: Tensor) -> Tensor:
    found = module(x)
    assert isinstance(found, Tensor)
    return found.detach()


GEOMETRIES = list(itertools.product((1, 3, 5), (1, 2), (1, 4), (True, False), ("zeros", "reflect", "circular")))


@pytest.mark.parametrize(("kernel", "stride", "groups", "bias", "mode"), GEOMETRIES)
def test_oracle_01_and_10_equal_outputs(kernel: int, stride: int, groups: int, bias: bool, mode: Mode) -> None:
    module, x = conv(kernel, stride, groups, bias, mode), images()
    whole = rotate(module)
    torch.testing.assert_close(outputs(whole, x), outputs(module, x), rtol=0, atol=1e-12)
    # With directions dropped: dense weights with them zeroed, and every way to multiply out.
    columns, rows = 1, 2
    small = rotate(module, columns, rows)
    zeroed = copy.deepcopy(module)
    core = core_of(zeroed)
    left = make_orthogonal(groups, 12 // groups, 1)[:, :, :rows]
    right = make_orthogonal(groups, 8 // groups, 0)[:, :, :columns]
    turned = torch.einsum("gor,gpr,gpdi,gis,gjs->godj", left, left, blocks(core.weight, groups), right, right)
    with torch.no_grad():
        core.weight.copy_(turned.transpose(2, 3).reshape(core.weight.shape))
    expected = outputs(zeroed, x)
    shape = survey(nn.Sequential(module, nn.Flatten()), x[:1]).shapes["0"]
    forms = list_realisations(small)
    assert len(forms) == 4
    for segments, form in zip(SEGMENTS, forms, strict=True):
        torch.testing.assert_close(outputs(form, x), expected, rtol=0, atol=1e-12)
        # Oracle 14: multiply-accumulates and parameters are those of the formulas.
        assert count(form, x[:1]) == shape.realisation_costs(columns, rows)[segments]
        assert core_of(forms[-1]).weight.shape == core.weight.shape


@pytest.mark.parametrize(("padding", "dilation", "kernel"), [(0, 2, 3), (2, 3, 3), (3, 1, 1), (0, 1, 2)])
def test_oracle_01_other_geometries(padding: int, dilation: int, kernel: int) -> None:
    module, x = conv(kernel, 2, 2, padding=padding, dilation=dilation), images()
    for form in list_realisations(rotate(module)):
        torch.testing.assert_close(outputs(form, x), outputs(module, x), rtol=0, atol=1e-12)


def test_oracle_01_padding_in_words_and_rectangles() -> None:
    x = images()
    modules = [
        layer(lambda: nn.Conv2d(8, 12, 3, padding="same")),
        layer(lambda: nn.Conv2d(8, 12, 1, padding="same")),
        layer(lambda: nn.Conv2d(8, 12, (1, 3), (2, 1), padding=(0, 1))),
    ]
    for module in modules:
        for form in list_realisations(rotate(module)):
            torch.testing.assert_close(outputs(form, x), outputs(module, x), rtol=0, atol=1e-12)


def test_oracle_01_float32() -> None:
    module, x = layer(lambda: nn.Conv2d(256, 256, 3, padding=1), torch.float32), images(256, torch.float32)
    for form in list_realisations(rotate(module)):
        assert core_of(form).weight.dtype == torch.float32
        torch.testing.assert_close(outputs(form, x), outputs(module, x), rtol=5e-6, atol=1e-4)


def test_oracle_10_linear_layers_and_tokens() -> None:
    module = layer(lambda: nn.Linear(6, 10))
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
    torch.testing.assert_close(outputs(rotate(module), x), outputs(module, x), rtol=0, atol=1e-12)
    small = rotate(module, 2, 3)
    shape = survey(nn.Sequential(module, nn.Flatten()), x[:1]).shapes["0"]
    assert shape.pixels_in == shape.pixels_out == 5
    for segments, form in zip(SEGMENTS, list_realisations(small), strict=True):
        torch.testing.assert_close(outputs(form, x), outputs(small, x), rtol=0, atol=1e-12)
        assert count(form, x[:1]) == shape.realisation_costs(2, 3)[segments]


def test_stride_of_pointwise_layers_comes_first() -> None:
    chain = rotate(conv(1, stride=2, padding=0), 4, 4)
    strides = [part.stride for part in chain if isinstance(part, nn.Conv2d)]
    assert strides == [(2, 2), (1, 1), (1, 1)]
    chain = rotate(conv(3, stride=2), 4, 4)
    strides = [part.stride for part in chain if isinstance(part, nn.Conv2d)]
    assert strides == [(1, 1), (2, 2), (1, 1)]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_oracle_11_two_rounds_are_one_if_factors_are_projected(groups: int, kernel: int) -> None:
    module, x = conv(kernel, 2, groups, inputs=8, outputs=12), images()
    core = core_of(module)

    def psd(size: int, seed: int) -> Tensor:
        half = torch.randn(groups, size, size, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
        return half @ half.mT

    factors = Factors(psd(8 // groups, 1), psd(12 // groups, 2), 1)
    basis = eigenbases({"a": factors})["a"]
    found = directions(damage(blocks(core.weight, groups), basis))

    def take_vectors(vectors: Tensor, order: Tensor, kept: int) -> Tensor:
        return vectors.gather(2, order[:, None, :kept].expand(-1, vectors.shape[1], -1))

    columns, rows = (8 // groups, 3, 2), (12 // groups, 5, 3)
    at_once = build_three_parts(
        module,
        parts(
            module,
            take_vectors(basis.inputs, found.columns, columns[2]),
            take_vectors(basis.outputs, found.rows, rows[2]),
        ),
    )
    kept = [take_vectors(basis.inputs, found.columns, columns[1]), take_vectors(basis.outputs, found.rows, rows[1])]
    first = build_three_parts(module, parts(module, *kept))
    projected = Factors(kept[0].mT @ factors.inputs @ kept[0], kept[1].mT @ factors.outputs @ kept[1], 1)
    again = eigenbases({"a": projected})["a"]
    # The order of the first round, found again among the eigenvalues, which are all different.
    orders = []
    for values, all_values, order, many in (
        (again.input_values, basis.input_values, found.columns, columns[2]),
        (again.output_values, basis.output_values, found.rows, rows[2]),
    ):
        wanted = all_values.gather(1, order[:, :many])
        orders.append((values[:, :, None] - wanted[:, None, :]).abs().argmin(1))
    second = build_three_parts(
        first,
        parts(
            first, take_vectors(again.inputs, orders[0], columns[2]), take_vectors(again.outputs, orders[1], rows[2])
        ),
    )
    assert len(second) == 3
    torch.testing.assert_close(outputs(second, x), outputs(at_once, x), rtol=0, atol=1e-10)
    torch.testing.assert_close(core_of(second).weight.abs(), core_of(at_once).weight.abs(), rtol=0, atol=1e-10)


def test_later_rounds_fold_into_rotations_that_were_trained() -> None:
    """They need not be orthogonal any more."""
    chain, x = rotate(conv(3, 2, 2), 3, 4), images()
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.mul_(1.5).add_(0.1)
    again = rotate(chain, seed=5)
    assert [core_name(nn.Sequential(each), "0") for each in (chain, conv(3))] == ["0.1", "0"]
    torch.testing.assert_close(outputs(again, x), outputs(chain, x), rtol=0, atol=1e-11)
    shapes = [[tuple(part.weight.shape) for part in each if isinstance(part, nn.Conv2d)] for each in (chain, again)]
    assert shapes[0] == shapes[1]


def shape_of(kernel: int, width: int = 8, pixels_in: int = 16, pixels_out: int = 16, bias: bool = False) -> Shape:
    return Shape(width, width, 1, kernel, pixels_in, pixels_out, bias, depth=0.0)


@pytest.mark.parametrize("realise", ["three_layer", "cheapest"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_oracle_14_guard_fires_exactly_at_break_even(kernel: int, stride: int, realise: Realise) -> None:
    shape = shape_of(kernel**2, 8, 64, 64 // stride**2)
    forms = Forms(realise)
    for columns, rows in itertools.product(range(1, 9), range(1, 9)):
        form = forms.choose_best(shape, columns, rows)
        costs = shape.realisation_costs(columns, rows)
        offered = SEGMENTS[:1] if realise == "three_layer" else SEGMENTS[:3]
        saving = [
            costs[segments]
            for segments in offered
            if costs[segments].params <= shape.dense.params
            and costs[segments].flops <= shape.dense.flops
            and costs[segments] != shape.dense
        ]
        assert (form.segments is None) == (not saving)
        assert form.cost == (min(saving, key=lambda cost: (cost.flops, cost.params)) if saving else shape.dense)


def test_oracle_14_break_even_fractions() -> None:
    """Of equal widths on both sides, in three layers: 0.414 for pointwise layers, 0.895 for 3x3."""
    for kernel, expected in ((1, 2**0.5 - 1), (3, 0.8951), (5, 0.9608), (7, 0.9798)):
        shape = shape_of(kernel**2, 1000)
        largest = max(r for r in range(1, 1001) if Forms("three_layer").choose_best(shape, r, r).segments)
        assert largest / 1000 == pytest.approx(expected, abs=1.1e-3)
    two = shape_of(1)
    assert Forms("cheapest").choose_best(two, 8, 4) == Form(None, two.dense), "8*4 + 4*8 weights are no fewer than 64"
    assert Forms("cheapest").choose_best(two, 8, 3).segments == (2, 1)


def test_cost_never_falls_when_more_is_kept() -> None:
    ways: tuple[Realise, ...] = ("three_layer", "cheapest")
    for kernel, way, share in itertools.product((1, 3), ways, (None, 0.5)):
        shape, forms = shape_of(kernel**2, 8, 64, 16), Forms(way, share)
        table = {(c, r): forms.choose_best(shape, c, r).cost.flops for c in range(1, 9) for r in range(1, 9)}
        for (c, r), flops in table.items():
            assert (
                flops <= min(table.get((c + 1, r), flops), table.get((c, r + 1), flops)) and flops <= shape.dense.flops
            )


def test_slides_example() -> None:
    """3x3, 512 to 512 channels at 32x32, cut to 32 directions: 0.7 % + 0.4 % + 0.7 % of the layer."""
    shape = shape_of(9, 512, 1024, 1024)
    cost = shape.realisation_costs(32, 32)[1, 1, 1]
    assert cost.flops / shape.dense.flops == pytest.approx(0.007 + 0.004 + 0.007, abs=5e-4)


def test_oracle_16_state_export_and_gradients() -> None:
    dtype = torch.float32
    block, x = rotate(layer(lambda: nn.Conv2d(8, 12, 3, padding=1), dtype), 4, 5), images(dtype=dtype)
    buffer = io.BytesIO()
    torch.save(block.state_dict(), buffer)
    buffer.seek(0)
    other = rotate(layer(lambda: nn.Conv2d(8, 12, 3, padding=1), dtype), 4, 5, seed=3)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(outputs(other, x), outputs(block, x))
    exported = torch.export.export(block, (x,)).module()
    assert torch.equal(outputs(exported, x), outputs(block, x))
    torch.autograd.backward(block(x).square().sum())
    assert all(p.grad is not None and bool(p.grad.any()) for p in block.parameters())
    assert len(list(block.parameters())) == 4 and block[2].bias is not None


def test_realisations_share_nothing() -> None:
    chain = rotate(conv(3), 4, 5)
    for form in list_realisations(chain):
        for mine, theirs in itertools.product(form.parameters(), chain.parameters()):
            assert mine.data_ptr() != theirs.data_ptr()
    single = conv(3)
    assert list_realisations(single) == [single]
    two = realise(chain, (2, 1))
    assert [len(form) if isinstance(form, nn.Sequential) else 1 for form in list_realisations(two)] == [2, 1]


def test_pure_rotations() -> None:
    chain = rotate(conv(3), 4, 5)
    found = {segments: rotations(realise(chain, segments), segments) for segments in SEGMENTS}
    assert {segments: [tuple(weight.shape) for weight in each] for segments, each in found.items()} == {
        (1, 1, 1): [(4, 8, 1, 1), (12, 5, 1, 1)],
        (2, 1): [(12, 5, 1, 1)],
        (1, 2): [(4, 8, 1, 1)],
        (3,): [],
    }


def test_only_neighbours_without_anything_between_are_multiplied_out() -> None:
    pointwise, wide, flat = conv(1, padding=0, outputs=8), conv(3, outputs=8), layer(lambda: nn.Linear(8, 8))
    with pytest.raises(ValueError, match="has a bias"):
        merge_layers(core_of(pointwise), core_of(wide))
    plain, other = conv(3, bias=False, outputs=8), conv(1, bias=False, outputs=8, padding=0)
    with pytest.raises(ValueError, match="one must be pointwise"):
        merge_layers(core_of(plain), core_of(wide))
    with pytest.raises(ValueError, match="a Conv2d and a Linear cannot"):
        merge_layers(core_of(other), core_of(flat))


# --- depthwise cores -----------------------------------------------------------------------------------------------


def test_canonical_decomposition_finds_what_is_there() -> None:
    generator = torch.Generator().manual_seed(0)
    u, d, v = (torch.randn(size, 4, generator=generator, dtype=DOUBLE) for size in (6, 9, 5))
    core = torch.einsum("rp,dp,sp->rds", u, d, v)
    found = decompose(core, 4, 300, torch.Generator().manual_seed(1))
    torch.testing.assert_close(torch.einsum("rp,dp,sp->rds", *found), core, rtol=0, atol=1e-8)
    lengths = torch.stack([factor.norm(dim=0) for factor in found])
    torch.testing.assert_close(lengths, lengths.mean(0).expand(3, -1), rtol=1e-9, atol=0)
    again = decompose(core, 4, 300, torch.Generator().manual_seed(1))
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (2, 2)])
def test_separable_form_is_what_was_decomposed(stride: int, groups: int) -> None:
    module, x = conv(3, stride, groups), images()
    bases = make_orthogonal(groups, 8 // groups, 0)[:, :, :3], make_orthogonal(groups, 12 // groups, 1)[:, :, :4]
    found = parts(module, *bases)
    separated = separable(module, found, 2, 40, torch.Generator().manual_seed(0))
    chain, error = separated.chain, separated.error
    exact = outputs(build_three_parts(module, found), x)
    assert 0 < error < 1
    assert float((outputs(chain, x) - exact).norm() / exact.norm()) < 3 * error
    shape = survey(nn.Sequential(module, nn.Flatten()), x[:1]).shapes["0"]
    assert count(chain, x[:1]) == shape.separable(2)
    for form in list_realisations(chain):
        torch.testing.assert_close(outputs(form, x), outputs(chain, x), rtol=0, atol=1e-12)
    better = separable(module, found, 12, 60, torch.Generator().manual_seed(0))
    assert better.error < 1e-5, "a core of 3 by 4 directions is a sum of 12 products"
    torch.testing.assert_close(outputs(better.chain, x), exact, rtol=0, atol=1e-4)
    assert better.missed.shape == separated.missed.shape == (groups, 4, 3)
    assert float(separated.missed.sum() / found.core.square().sum()) == pytest.approx(error**2)


def test_a_separable_core_has_the_share_of_channels_and_loses_directions_on_both_sides() -> None:
    shape = Shape(8, 8, 1, 9, 64, 64, bias=False, depth=0.0)
    for share, columns, rows, rank in ((0.5, 8, 6, 3), (0.25, 2, 8, 1), (0.25, 1, 1, 1), (1.0, 5, 7, 5)):
        form = Forms("cheapest", share).choose_best(shape, columns, rows)
        assert form.rank == rank
        # 1x1 from 8 channels to the rank, 9 weights for each channel of it, 1x1 to 8 channels; 64 positions each.
        assert form.cost.flops == 64 * (8 * rank + 9 * rank + rank * 8)
        assert form.segments == (1, 1, 1), "both sides lose directions: neither is multiplied out with the core"


def test_linear_layers_are_not_separable() -> None:
    module = layer(lambda: nn.Linear(4, 4))
    found = parts(module, make_orthogonal(1, 4, 0), make_orthogonal(1, 4, 1))
    with pytest.raises(ValueError, match="a Linear has no kernel"):
        separable(module, found, 2, 2, torch.Generator())


# --- finding layers ------------------------------------------------------------------------------------------------


class Odd(nn.Module):
    """Layers that cannot be rewritten, and one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(4, 8, 3, groups=4)
        self.up = nn.ConvTranspose2d(8, 4, 2)
        self.unused = nn.Linear(3, 3)
        self.tied = nn.Linear(4, 4)
        self.same = nn.Linear(4, 4)
        self.same.weight = self.tied.weight
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.depthwise(self.twice(self.twice(x))))
        return self.last(input=self.same(self.tied(x.mean((2, 3)))))  # type: ignore[no-any-return]


def test_every_layer_is_found_or_has_a_reason() -> None:
    found = survey(Odd(), torch.zeros(1, 4, 6, 6))
    assert list(found.shapes) == ["twice", "last"] and found.last == "last"
    twice = found.shapes["twice"]
    assert (twice.pixels_in, twice.pixels_out, twice.depth) == (72, 72, 0.0)
    assert twice.dense == Cost(72 * 9 * 16, 9 * 16 + 4)
    assert found.left.keys() == {"depthwise", "up", "unused", "tied", "same"}
    assert "ConvTranspose2d" in found.left["up"] and "depthwise" in found.left["depthwise"]
    assert "not executed" in found.left["unused"] and "several places" in found.left["tied"]


@pytest.mark.parametrize("net", list(cases.NETS))
def test_dense_costs_are_those_of_the_network(net: str) -> None:
    model, example = cases.seeded(cases.NETS[net]), torch.zeros(1, *cases.IMAGE)
    found = survey(model, example)
    for name, shape in found.shapes.items():
        module = model.get_submodule(name)
        assert shape.dense.params == sum(p.numel() for p in module.parameters())
        assert set(shape.realisation_costs(shape.columns, shape.rows)) == set(SEGMENTS)
    whole = count(model, example)
    if not found.left:
        assert sum(shape.dense.flops for shape in found.shapes.values()) == whole.flops
