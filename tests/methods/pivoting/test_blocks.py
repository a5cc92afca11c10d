"""Layers of blocks against the masked dense layers that they stand for."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from methods.network.cost import count
from methods.pivoting.arrangement import Arrangement, PivotSpec, find_reading
from methods.pivoting.blocks import PivotedConv2d, PivotedLinear, count_moved_bytes, dense, keep_blocks

ROWS, COLUMNS = 24, 16


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def shuffle_order(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def halves(name: str) -> PivotSpec:
    """Specifications of each kind of reading, with rows in place or not."""
    plain = torch.arange(ROWS)
    four, two = torch.arange(4), torch.arange(2)
    return {
        "natural": PivotSpec(torch.arange(COLUMNS).reshape(4, 4), four, plain),
        "shuffle": PivotSpec(torch.arange(COLUMNS).reshape(4, 4).T.contiguous(), four, plain),
        "slabs": PivotSpec(torch.tensor([[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 8, 9, 10, 11]]), two, plain),
        "index": PivotSpec(shuffle_order(COLUMNS, 1).reshape(4, 4), four, plain),
        "placed": PivotSpec(shuffle_order(COLUMNS, 2).reshape(4, 4), four, shuffle_order(ROWS, 3)),
        "summed": PivotSpec(
            torch.arange(COLUMNS).reshape(4, 4)[[0, 2, 1, 3, 1]], torch.tensor([0, 0, 1, 2, 2]), shuffle_order(ROWS, 4)
        ),
    }[name]


KINDS = ("natural", "shuffle", "slabs", "index", "placed", "summed")
LAYERS: dict[str, Callable[[bool], tuple[nn.Conv2d | nn.Linear, tuple[int, ...]]]] = {
    "3x3": lambda bias: (nn.Conv2d(COLUMNS, ROWS, 3, padding=1, bias=bias), (2, COLUMNS, 7, 6)),
    "stride": lambda bias: (nn.Conv2d(COLUMNS, ROWS, (3, 2), 2, 1, bias=bias), (3, COLUMNS, 7, 8)),
    "same": lambda bias: (nn.Conv2d(COLUMNS, ROWS, 3, padding="same", dilation=2, bias=bias), (2, COLUMNS, 7, 6)),
    "1x1": lambda bias: (nn.Conv2d(COLUMNS, ROWS, 1, stride=2, bias=bias), (2, COLUMNS, 6, 6)),
    "linear": lambda bias: (nn.Linear(COLUMNS, ROWS, bias=bias), (5, COLUMNS)),
    "tokens": lambda bias: (nn.Linear(COLUMNS, ROWS, bias=bias), (2, 3, COLUMNS)),
}


def layer_for(name: str, bias: bool, dtype: torch.dtype = torch.float64) -> tuple[nn.Conv2d | nn.Linear, Tensor]:
    layer, shape = LAYERS[name](bias)
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters()):
            parameter.copy_(numbers(*parameter.shape, seed=seed))
    return layer.to(dtype), numbers(*shape, seed=9, dtype=dtype)


def mask_layer(layer: nn.Conv2d | nn.Linear, spec: PivotSpec) -> nn.Conv2d | nn.Linear:
    """The slow, obvious twin: multiply the weight with the mask."""
    with torch.no_grad():
        kept = spec.mask(COLUMNS).to(layer.weight.dtype)
        layer.weight.mul_(kept.reshape(ROWS, COLUMNS, *[1] * (layer.weight.ndim - 2)))
    return layer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["3x3", "1x1", "linear"])
def test_a_norm_behind_the_blocks_is_folded_into_them(name: str, kind: str) -> None:
    """Scale and shift of every output, wherever its rows lie and however many blocks add up to it."""
    for bias in (False, True):
        layer, x = layer_for(name, bias)
        blocks = keep_blocks(layer, halves(kind))
        shape = (1, ROWS, 1, 1) if x.ndim == 4 else (1, ROWS)
        scale, shift = numbers(ROWS, seed=5), numbers(ROWS, seed=6)
        expected = blocks(x) * scale.reshape(shape) + shift.reshape(shape)
        blocks.scale_outputs(scale, shift)
        torch.testing.assert_close(blocks(x), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_oracle_01_blocks_equal_the_masked_dense_layer(name: str, kind: str) -> None:
    for bias in (False, True):
        layer, x = layer_for(name, bias)
        spec = halves(kind)
        blocks = keep_blocks(layer, spec)
        expected = mask_layer(layer, spec)(x)
        assert blocks.arrangement.reading == {"placed": "index", "summed": "slabs"}.get(kind, kind)
        torch.testing.assert_close(blocks(x), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(dense(blocks)(x), expected, rtol=0, atol=1e-12)
        assert torch.equal(blocks.arrangement.spec().mask(COLUMNS), spec.mask(COLUMNS))
        assert blocks.weight.numel() == int(spec.mask(COLUMNS).sum()) * layer.weight[0, 0].numel()


@torch.no_grad()
def test_oracle_01_in_lower_precision() -> None:
    spec = halves("placed")
    for name in LAYERS:
        layer, x = layer_for(name, True, torch.float32)
        expected = mask_layer(layer, spec)(x)
        found = keep_blocks(layer, spec)(x)
        assert (found - expected).abs().max() <= 1e-5 * max(7, float(expected.abs().max())) / 7
        with torch.autocast("cpu", torch.bfloat16):
            low = keep_blocks(layer, spec)(x)
        assert low.dtype == torch.bfloat16
        assert (low.float() - expected).abs().max() <= 2e-2 * expected.abs().max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_all_executions_agree(name: str, kind: str) -> None:
    layer, x = layer_for(name, bias=True)
    blocks = keep_blocks(layer, halves(kind)).eval()
    found = blocks.equal_forms()
    assert next(iter(found)) in ("grouped", "bmm") and "masked" in found
    for way in found.values():
        torch.testing.assert_close(way.eval()(x), blocks(x), rtol=0, atol=1e-12)


def test_oracle_06_operations_executed_are_operations_kept() -> None:
    for name, kind in (("stride", "summed"), ("1x1", "shuffle"), ("linear", "summed"), ("tokens", "placed")):
        layer, x = layer_for(name, bias=True, dtype=torch.float32)
        blocks = keep_blocks(layer, halves(kind))
        kept = int(halves(kind).mask(COLUMNS).sum())
        total = count(nn.Sequential(layer), x[:1]).flops
        assert count(nn.Sequential(blocks), x[:1]).flops * ROWS * COLUMNS == total * kept
        for way, module in blocks.equal_forms().items():
            if not way.startswith("masked"):
                assert count(nn.Sequential(module), x[:1]).flops * ROWS * COLUMNS == total * kept, (name, kind, way)


def test_oracle_09_identity_is_a_grouped_convolution_bit_for_bit() -> None:
    layer, x = layer_for("3x3", bias=True, dtype=torch.float32)
    blocks = keep_blocks(layer, halves("natural"))
    grouped = nn.Conv2d(COLUMNS, ROWS, 3, padding=1, groups=4)
    grouped.load_state_dict({"weight": blocks.weight, "bias": blocks.bias})
    assert torch.equal(blocks(x), grouped(x))
    one = PivotSpec(torch.arange(COLUMNS)[None], torch.zeros(1, dtype=torch.long), torch.arange(ROWS))
    assert torch.equal(keep_blocks(layer, one)(x), layer(x))


@pytest.mark.parametrize("kind", KINDS)
def test_settings_build_the_same_layer(kind: str) -> None:
    for name in ("stride", "same", "linear"):
        layer, x = layer_for(name, bias=kind != "slabs")
        blocks = keep_blocks(layer, halves(kind))
        settings = json.loads(json.dumps(blocks.settings()))
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
        build: Callable[..., PivotedConv2d | PivotedLinear] = type(blocks)
        again = build(**given).double()
        again.load_state_dict(blocks.state_dict())
        assert torch.equal(again(x), blocks(x))
        assert again.settings() == blocks.settings() and type(blocks).__name__ in repr(blocks)


def test_channels_last_stays() -> None:
    for kind in ("natural", "shuffle"):
        layer, x = layer_for("3x3", bias=True, dtype=torch.float32)
        blocks = keep_blocks(layer, halves(kind)).to(memory_format=torch.channels_last)
        y = blocks(x.contiguous(memory_format=torch.channels_last))
        assert y.is_contiguous(memory_format=torch.channels_last)


def test_gradients_reach_every_weight() -> None:
    for name in LAYERS:
        for kind in KINDS:
            layer, x = layer_for(name, bias=True)
            blocks = keep_blocks(layer, halves(kind))
            twin = mask_layer(layer, halves(kind))
            blocks(x).square().sum().backward()
            twin(x).square().sum().backward()
            assert blocks.weight.grad is not None and twin.weight.grad is not None
            kept = halves(kind).mask(COLUMNS)
            mine, theirs = blocks.weight.grad.flatten().sort().values, twin.weight.grad[kept].flatten().sort().values
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_bytes_moved_are_those_of_gathers() -> None:
    spec = PivotSpec(shuffle_order(COLUMNS, 5).reshape(2, 8), torch.arange(2), torch.arange(COLUMNS))
    model = nn.Sequential(*[keep_blocks(nn.Conv2d(COLUMNS, COLUMNS, 3, padding=1), spec) for _ in range(2)])
    assert count_moved_bytes(model, numbers(3, COLUMNS, 4, 4, dtype=torch.float32)) == 2 * COLUMNS * 16 * 4


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_are_the_inputs_of_blocks(kind: str) -> None:
    layer, x = layer_for("3x3", bias=False)
    arrangement = keep_blocks(layer, halves(kind)).arrangement
    pieces = arrangement.pieces(x, 1)
    assert torch.equal(torch.cat(pieces, 1), arrangement.read(x, 1))
    assert [piece.shape[1] for piece in pieces] == [arrangement.width] * arrangement.blocks


def test_readings_are_recognised() -> None:
    assert find_reading(torch.arange(6).reshape(2, 3), 6)[0] == "natural"
    assert find_reading(torch.arange(6).reshape(3, 2).T, 6)[0] == "shuffle"
    kind, slabs = find_reading(torch.tensor([[4, 5, 0, 1], [0, 1, 2, 3]]), 6)
    assert kind == "slabs" and slabs.tolist() == [2, 0, 0, 1]
    assert find_reading(torch.tensor([[1, 2], [3, 4]]), 6)[0] == "index"


def test_misfits_are_errors() -> None:
    with pytest.raises(ValueError, match="do not make a layer from 16 to 24"):
        Arrangement(16, 24, blocks=3, width=4, clusters=3, reading="natural", slab=0, placed=False)
    with pytest.raises(ValueError, match="of 2 groups"):
        PivotedConv2d.from_layer(nn.Conv2d(16, 24, 3, groups=2), halves("natural"))
    with pytest.raises(ValueError, match="'reflect'"):
        PivotedConv2d.from_layer(nn.Conv2d(16, 24, 3, padding=1, padding_mode="reflect"), halves("natural"))
    assert isinstance(keep_blocks(nn.Linear(16, 24), halves("natural")), PivotedLinear)
