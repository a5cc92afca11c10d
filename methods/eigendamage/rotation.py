"""Rewriting a layer into three parts: rotation into input directions, small core, rotation out of output directions.

``W`` is replaced by ``Q_G core Q_A^T`` with ``core = Q_G^T W Q_A``, where ``Q_A`` and ``Q_G`` hold the kept columns of
orthogonal matrices: a 1x1 layer, a core with the kernel of the original, and a 1x1 layer that carries the bias. With
all columns kept this is the original layer. The bias is not rotated: a constant input channel would be wrong where
the core pads with zeros (Wang, Grosse, Fidler, Zhang, 2019, arXiv 1905.05934, section 4).

A *chain* is an ``nn.Sequential`` of convolutions, or of linear layers, with nothing between them. Its members can be
multiplied out (:func:`merge_layers`); :func:`list_realisations` lists all ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from methods.eigendamage.kronecker import rotate
from methods.network.chains import (
    Layer,
    Segments,
    blocks,
    convolution,
    geometry,
    groups_of,
    linear,
    narrow_type,
    realise,
    segmentations,
    undo_blocks,
)


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
    first, last = (blocks(narrow_type(module[place]).weight, groups)[:, :, 0] for place in (0, 2))
    return Parts((columns.mT @ first)[:, :, None, :], core, (last @ rows)[:, :, None, :])


def build_three_parts(module: nn.Module, found: Parts) -> nn.Sequential:
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


def list_realisations(layer: nn.Module) -> list[nn.Module]:
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
    return narrow_type(module[-1] if isinstance(module, nn.Sequential) else module).bias
