"""Rewriting a layer into three parts: rotation into input directions, small core, rotation out of output directions.

``W`` is replaced by ``Q_G core Q_A^T`` with ``core = Q_G^T W Q_A``, where ``Q_A`` and ``Q_G`` hold the kept columns of
orthogonal matrices: a 1x1 layer, a core with the kernel of the original, and a 1x1 layer that carries the bias. With
all columns kept this is the original layer. The bias is not rotated: a constant input channel would be wrong where
the core pads with zeros (Wang, Grosse, Fidler, Zhang, 2019, arXiv 1905.05934, section 4).

A *chain* is an ``nn.Sequential`` of convolutions, or of linear layers, with nothing between them. Its members can be
multiplied out (:func:`merge_layers`); :func:`realisations` lists all ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, combinations, pairwise
from math import gcd, prod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from methods.eigendamage.kronecker import blocks, rotate, undo_blocks
from methods.eigendamage.rotation_cost import SEGMENTS, Segments

Layer = nn.Conv2d | nn.Linear
L = TypeVar("L", nn.Conv2d, nn.Linear)

_GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "padding_mode")


@dataclass(frozen=True)
class Parts:
    """The three parts of a layer as tensors, float64.

    Attributes:
        first: ``[groups, columns, 1, inputs]``.
        core: ``[groups, rows, offsets, columns]``.
        last: ``[groups, outputs, 1, rows]``.
    """

    first: Tensor
    core: Tensor
    last: Tensor


def core_name(model: nn.Module, name: str) -> str:
    """Return the name of the module that does the layer's own work.

    Args:
        model: A network in which layers were rewritten into three parts.
        name: Name of the layer in the dense network.

    Returns:
        The name of its core, or the name itself if it was not rewritten.
    """
    return f"{name}.1" if isinstance(model.get_submodule(name), nn.Sequential) else name


def core_of(module: nn.Module) -> Layer:
    """Return the layer that is rotated: the core of a rewritten layer, else the layer.

    Args:
        module: A convolution or linear layer, or one rewritten into three parts.

    Returns:
        The convolution or linear layer.
    """
    core = module[1] if isinstance(module, nn.Sequential) else module
    assert isinstance(core, nn.Conv2d | nn.Linear)
    return core


def parts(module: nn.Module, columns: Tensor, rows: Tensor) -> Parts:
    """Rotate a layer and keep some directions.

    A layer that has three parts already keeps three: the new bases are those of its core, and are folded into the
    old rotations, which need not be orthogonal any more.

    Args:
        module: A convolution or linear layer, or one rewritten into three parts.
        columns: Kept columns of ``Q_A`` of the core, ``[groups, inputs, columns]``.
        rows: Kept columns of ``Q_G`` of the core, ``[groups, outputs, rows]``.

    Returns:
        The three parts.
    """
    layer = core_of(module)
    groups, weight = groups_of(layer), layer.weight
    columns, rows = (basis.to(weight.device, torch.float64) for basis in (columns, rows))
    core = rotate(blocks(weight, groups), columns, rows)
    if not isinstance(module, nn.Sequential):
        return Parts(columns.mT[:, :, None, :], core, rows[:, :, None, :])
    first, last = (blocks(_layer(module[place]).weight, groups)[:, :, 0] for place in (0, 2))
    return Parts((columns.mT @ first)[:, :, None, :], core, (last @ rows)[:, :, None, :])


def three_part(module: nn.Module, found: Parts) -> nn.Sequential:
    """Build the three-part form of a layer.

    Args:
        module: The layer that is replaced (or its present three-part form), for geometry, bias, type and device.
        found: The weights.

    Returns:
        A chain of three layers; the kernel, stride, padding and dilation are those of the core, except that the
        first part of a pointwise convolution carries stride and padding.
    """
    layer, bias = core_of(module), bias_of(module)
    if isinstance(layer, nn.Linear):
        weights = [undo_blocks(each, ()) for each in (found.first, found.core, found.last)]
        return nn.Sequential(*map(linear, weights, (None, None, bias), (layer.weight,) * 3))
    own = geometry(layer)
    plain: dict[str, Any] = {"kernel_size": (1, 1)}
    places: tuple[dict[str, Any], ...] = (plain, own, plain)
    if prod(layer.kernel_size) == 1:
        outer = module[0] if isinstance(module, nn.Sequential) else layer
        assert isinstance(outer, nn.Conv2d)
        places = (geometry(outer), plain, plain)
    tensors = (found.first, found.core, found.last)
    return nn.Sequential(
        *(
            convolution(undo_blocks(tensor, place["kernel_size"]), offset, layer.groups, place, layer.weight)
            for tensor, place, offset in zip(tensors, places, (None, None, bias), strict=True)
        )
    )


def merge_layers(first: Layer, second: Layer) -> Layer:
    """Multiply out two layers that follow each other with nothing between them.

    Args:
        first: A layer without a bias.
        second: A layer of the same kind. Of two convolutions one must be pointwise with stride 1 and no padding.

    Returns:
        One layer with the same output.

    Raises:
        ValueError: If the two cannot be one layer of their kind.
    """
    if first.bias is not None:
        raise ValueError("the first of two layers to be multiplied out has a bias")
    before, after = first.weight.detach().double(), second.weight.detach().double()
    if isinstance(first, nn.Linear) and isinstance(second, nn.Linear):
        return linear(after @ before, second.bias, second.weight)
    if not (isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)):
        raise ValueError(f"a {type(first).__name__} and a {type(second).__name__} cannot be multiplied out")
    groups = gcd(first.groups, second.groups)
    one, other = _with_fewer_groups(before, first.groups, groups), _with_fewer_groups(after, second.groups, groups)
    if _plain(first):
        place, product = geometry(second), torch.einsum("gmoi,gnkm->gnki", one, other)
    elif _plain(second):
        place, product = geometry(first), torch.einsum("gmki,gnom->gnki", one, other)
    else:
        raise ValueError("of two convolutions to be multiplied out one must be pointwise, of stride 1, not padding")
    return convolution(undo_blocks(product, place["kernel_size"]), second.bias, groups, place, second.weight)


def realise(chain: nn.Sequential, segments: Segments) -> nn.Module:
    """Multiply out some neighbours of a chain.

    Args:
        chain: Convolutions, or linear layers.
        segments: How many layers become one, in order.

    Returns:
        A shorter chain, or one layer, with the same output; nothing is shared with the old one.
    """
    layers = [_layer(module) for module in chain]
    bounds = [0, *accumulate(segments)]
    built = [
        reduce(merge_layers, layers[start + 1 : end], _copy_layer(layers[start])) for start, end in pairwise(bounds)
    ]
    return built[0] if len(built) == 1 else nn.Sequential(*built)


def realisations(layer: nn.Module) -> list[nn.Module]:
    """List all chains that compute the same as a rewritten layer, so that the fastest can be chosen by the clock.

    Args:
        layer: A chain of convolutions, or of linear layers.

    Returns:
        For three parts: three layers, two in either way, and one; the chain itself comes first (as a copy) and
        the single dense layer last. Other modules have no realisation but themselves.
    """
    if not isinstance(layer, nn.Sequential) or not all(isinstance(part, nn.Conv2d | nn.Linear) for part in layer):
        return [layer]
    return [realise(layer, segments) for segments in segmentations(len(layer))]


def segmentations(length: int) -> tuple[Segments, ...]:
    """List the ways to multiply out neighbours of a chain.

    Args:
        length: Layers of the chain.

    Returns:
        How many layers become one, in order; the chain itself comes first, the single layer last.

    Example:
        >>> segmentations(2)
        ((1, 1), (2,))
    """
    if length == len(SEGMENTS[0]):
        return SEGMENTS
    cuts = [(*inner, length) for many in range(length - 1, -1, -1) for inner in combinations(range(1, length), many)]
    return tuple(tuple(b - a for a, b in pairwise((0, *cut))) for cut in cuts)


def rotations(block: nn.Module, segments: Segments) -> list[nn.Parameter]:
    """Return the weights of a rewritten layer that do nothing but rotate.

    Args:
        block: The layer in the form of :func:`realise`.
        segments: That form.

    Returns:
        The weights of the first and the last part as far as they were not multiplied out with the core.
    """
    if not isinstance(block, nn.Sequential):
        return []
    ends = ((0, segments[0]), (-1, segments[-1]))
    # Of a layer that joins several parts nothing is a pure rotation.
    return [weight for place, joined in ends if joined == 1 and isinstance(weight := block[place].weight, nn.Parameter)]


def bias_of(module: nn.Module) -> Tensor | None:
    """Return the bias of a layer, or of the last part of a rewritten one.

    Args:
        module: The layer.

    Returns:
        ``[outputs]``, or None.
    """
    return _layer(module[-1] if isinstance(module, nn.Sequential) else module).bias


def groups_of(layer: Layer) -> int:
    """Return the groups of a layer.

    Args:
        layer: A convolution or a linear layer.

    Returns:
        1 for a linear layer.
    """
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def geometry(layer: nn.Conv2d) -> dict[str, Any]:
    """Read how a convolution moves over its input.

    Args:
        layer: The convolution.

    Returns:
        Keyword arguments of another one.
    """
    return {name: getattr(layer, name) for name in _GEOMETRY}


def convolution(weight: Tensor, bias: Tensor | None, groups: int, place: dict[str, Any], like: Tensor) -> nn.Conv2d:
    """Build a convolution from its weight, without drawing random numbers.

    Args:
        weight: ``[outputs, inputs / groups, *kernel]``.
        bias: ``[outputs]``, or None.
        groups: Its groups.
        place: Its :func:`geometry`.
        like: Tensor of the type and on the device to use.

    Returns:
        The convolution in eval mode.
    """
    outputs, inputs = weight.shape[:2]
    layer = nn.Conv2d(inputs * groups, outputs, groups=groups, bias=bias is not None, device="meta", **place)
    return _filled(layer, weight, bias, like)


def linear(weight: Tensor, bias: Tensor | None, like: Tensor) -> nn.Linear:
    """Build a linear layer from its weight, without drawing random numbers.

    Args:
        weight: ``[outputs, inputs]``.
        bias: ``[outputs]``, or None.
        like: Tensor of the type and on the device to use.

    Returns:
        The layer in eval mode.
    """
    return _filled(nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta"), weight, bias, like)


def _filled(layer: L, weight: Tensor, bias: Tensor | None, like: Tensor) -> L:
    with torch.no_grad():
        # A tensor of its own, with the plain strides: those of a 1x1 kernel are ambiguous, and kernels differ by them.
        plain = torch.empty(weight.shape, dtype=like.dtype, device=like.device)
        layer.weight = nn.Parameter(plain.copy_(weight))
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().to(like, copy=True))
    return layer.eval()


def _copy_layer(layer: Layer) -> Layer:
    if isinstance(layer, nn.Linear):
        return linear(layer.weight, layer.bias, layer.weight)
    return convolution(layer.weight, layer.bias, layer.groups, geometry(layer), layer.weight)


def _layer(module: nn.Module) -> Layer:
    assert isinstance(module, nn.Conv2d | nn.Linear)
    return module


def _plain(layer: nn.Conv2d) -> bool:
    """Whether a convolution only mixes the channels of every pixel."""
    return prod(layer.kernel_size) == prod(layer.stride) == 1 and layer.padding in ((0, 0), "valid", "same")


def _with_fewer_groups(weight: Tensor, groups: int, fewer: int) -> Tensor:
    """Write the weight of a grouped convolution with fewer groups, as blocks with zeros between the old groups."""
    block = blocks(weight, groups)
    times = groups // fewer
    _, outputs, offsets, inputs = block.shape
    wide = block.new_zeros(fewer, times, outputs, offsets, times, inputs)
    for place, part in enumerate(block.view(fewer, times, outputs, offsets, inputs).unbind(1)):
        wide[:, place, :, :, place] = part
    return wide.view(fewer, times * outputs, offsets, times * inputs)
