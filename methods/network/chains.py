"""Chains of layers with nothing between them: which of their neighbours can be multiplied out, and into what.

Two linear layers in a row are one, and so are two convolutions of which one is pointwise. A chain of three layers has
four forms that answer the same, a chain of two has two. Which of them has the fewest multiply-accumulates is known
before anything is built; which is fastest depends on the machine, and is measured where a network is timed or exported.
"""

from __future__ import annotations

from functools import reduce
from itertools import accumulate, combinations, pairwise
from math import gcd, prod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Layer = nn.Conv2d | nn.Linear
L = TypeVar("L", nn.Conv2d, nn.Linear)
Segments = tuple[int, ...]
"""How many layers of a chain become one, in order."""

SEGMENTS: tuple[Segments, ...] = ((1, 1, 1), (2, 1), (1, 2), (3,))
"""The forms of a chain of three: the chain itself first, the single layer last."""

_GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "padding_mode")


def chains(model: nn.Module) -> dict[str, nn.Sequential]:
    """Find the chains of convolutions, or of linear layers, with nothing between them.

    Args:
        model: A network.

    Returns:
        The chains of two or three layers by name; a chain that is the whole network is left out, and one that
        has several places in it.
    """
    found: dict[str, nn.Sequential] = {}
    places: dict[int, int] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        places[id(module)] = places.get(id(module), 0) + 1
        if name and isinstance(module, nn.Sequential) and len(module) in (2, 3) and _can_be_merged(module):
            found[name] = module
    return {name: chain for name, chain in found.items() if places[id(chain)] == 1}


def forms(chain: nn.Sequential) -> dict[str, nn.Module]:
    """Build all layers and chains that compute the same.

    Args:
        chain: One of :func:`chains`.

    Returns:
        By name, such as ``"2+1"`` where the first two layers are one; the chain itself (a copy) comes first.
        Neighbours whose product is no layer of their kind are not multiplied out.
    """
    found: dict[str, nn.Module] = {}
    for segments in segmentations(len(chain)):
        try:
            found["+".join(map(str, segments))] = realise(chain, segments)
        except ValueError:
            continue  # two kernels with an extent, say
    return found


def _can_be_merged(chain: nn.Sequential) -> bool:
    """Whether all layers are of one kind that can be multiplied out, and only the last one has a bias."""
    kinds = {type(layer) for layer in chain}
    if kinds not in ({nn.Conv2d}, {nn.Linear}):
        return False
    return all(layer.bias is None for layer in list(chain)[:-1])


def realise(chain: nn.Sequential, segments: Segments) -> nn.Module:
    """Multiply out some neighbours of a chain.

    Args:
        chain: Convolutions, or linear layers.
        segments: How many layers become one, in order.

    Returns:
        A shorter chain, or one layer, with the same output; nothing is shared with the old one.
    """
    layers = [narrow_type(module) for module in chain]
    bounds = [0, *accumulate(segments)]
    built = [
        reduce(merge_layers, layers[start + 1 : end], _copy_layer(layers[start])) for start, end in pairwise(bounds)
    ]
    return built[0] if len(built) == 1 else nn.Sequential(*built)


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
    one, other = _reduce_groups(before, first.groups, groups), _reduce_groups(after, second.groups, groups)
    if _is_pixelwise(first):
        place, product = geometry(second), torch.einsum("gmoi,gnkm->gnki", one, other)
    elif _is_pixelwise(second):
        place, product = geometry(first), torch.einsum("gmki,gnom->gnki", one, other)
    else:
        raise ValueError("of two convolutions to be multiplied out one must be pointwise, of stride 1, not padding")
    return convolution(undo_blocks(product, place["kernel_size"]), second.bias, groups, place, second.weight)


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
    return _fill(layer, weight, bias, like)


def linear(weight: Tensor, bias: Tensor | None, like: Tensor) -> nn.Linear:
    """Build a linear layer from its weight, without drawing random numbers.

    Args:
        weight: ``[outputs, inputs]``.
        bias: ``[outputs]``, or None.
        like: Tensor of the type and on the device to use.

    Returns:
        The layer in eval mode.
    """
    return _fill(nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta"), weight, bias, like)


def blocks(weight: Tensor, groups: int) -> Tensor:
    """View a weight as blocks.

    Args:
        weight: ``[outputs, inputs / groups, *kernel]`` of a convolution, or ``[outputs, inputs]``.
        groups: Groups of the convolution.

    Returns:
        ``[groups, outputs / groups, offsets, inputs / groups]``, float64; one offset for a linear layer.
    """
    outputs, inputs = weight.shape[:2]
    return weight.detach().double().reshape(groups, outputs // groups, inputs, -1).transpose(2, 3)


def undo_blocks(block: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """Undo :func:`blocks`.

    Args:
        block: ``[groups, outputs, offsets, inputs]``.
        kernel: Sides of the kernel, their product the number of offsets; empty for a linear layer.

    Returns:
        ``[groups * outputs, inputs, *kernel]``.
    """
    groups, outputs, _, inputs = block.shape
    return block.transpose(2, 3).reshape(groups * outputs, inputs, *kernel).contiguous()


def _fill(layer: L, weight: Tensor, bias: Tensor | None, like: Tensor) -> L:
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


def narrow_type(module: nn.Module) -> Layer:
    """Narrow the type of a module that is known to be a convolution or a linear layer.

    Args:
        module: The layer.

    Returns:
        The same module.
    """
    assert isinstance(module, nn.Conv2d | nn.Linear)
    return module


def _is_pixelwise(layer: nn.Conv2d) -> bool:
    """Whether a convolution only mixes the channels of every pixel."""
    return prod(layer.kernel_size) == prod(layer.stride) == 1 and layer.padding in ((0, 0), "valid", "same")


def _reduce_groups(weight: Tensor, groups: int, fewer: int) -> Tensor:
    """Write the weight of a grouped convolution with fewer groups, as blocks with zeros between the old groups."""
    block = blocks(weight, groups)
    times = groups // fewer
    _, outputs, offsets, inputs = block.shape
    wide = block.new_zeros(fewer, times, outputs, offsets, times, inputs)
    for place, part in enumerate(block.view(fewer, times, outputs, offsets, inputs).unbind(1)):
        wide[:, place, :, :, place] = part
    return wide.view(fewer, times * outputs, offsets, times * inputs)
