"""Ways to run a layer of blocks that give the same output.

Which of them is fastest depends on shape, batch, precision and device: ``search.speed.tuner`` measures it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.pivoting.blocks import Pivoted, PivotedConv2d, PivotedLinear, dense
from methods.pivoting.portions import InPortions


class ChannelsLast(nn.Module):
    """A layer that runs with channels last in memory.

    Args:
        layer: What to run.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Run.

        Args:
            x: Activations in any memory format.

        Returns:
            Activations, channels last.
        """
        result: Tensor = self.layer(x.contiguous(memory_format=torch.channels_last))
        return result


class SeparateConvs(nn.Module):
    """One ordinary convolution per block, on a slice of the inputs; a shuffle is part of the slicing.

    Args:
        layer: The layer of blocks.
    """

    def __init__(self, layer: PivotedConv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Run.

        Args:
            x: ``[batch, in_channels, height, width]``.

        Returns:
            ``[batch, out_channels, height', width']``.
        """
        layer, arrangement = self.layer, self.layer.arrangement
        weights = layer.weight.split(arrangement.height)
        summed = len(arrangement.sums) > 0
        biases = (None,) * len(weights) if summed or layer.bias is None else layer.bias.split(arrangement.height)
        parts = [
            F.conv2d(piece, weight, bias, layer.stride, layer.padding, layer.dilation)
            for piece, weight, bias in zip(arrangement.pieces(x, 1), weights, biases, strict=True)
        ]
        y = torch.cat(parts, 1)
        return _finish(layer, y) if summed else arrangement.place(y, 1)


def _finish(layer: PivotedConv2d, y: Tensor) -> Tensor:
    """Add up blocks, add the bias, and put rows in their places."""
    y = layer.arrangement.collect(y, 1)
    if layer.bias is not None:
        y = y + layer.bias.to(y.dtype)[:, None, None]
    return layer.arrangement.place(y, 1)


PORTIONS = "portions"
"""The way that runs a layer and what follows it on a few images at a time."""


def executions(layer: Pivoted) -> dict[str, nn.Module]:
    """List the ways to run a layer of blocks by itself; all give the same output, up to rounding.

    Args:
        layer: The layer; not changed.

    Returns:
        By name: ``"grouped"`` for a convolution, ``"bmm"`` for a linear layer, is the layer itself; ``"masked"`` is
        the dense layer with zeros outside the blocks. For convolutions also ``"separate"``, and all three with
        channels last (``"..._nhwc"``).
    """
    if isinstance(layer, PivotedLinear):
        return {"bmm": copy.deepcopy(layer), "masked": dense(layer)}
    ways = {"grouped": copy.deepcopy(layer), "masked": dense(layer), "separate": SeparateConvs(copy.deepcopy(layer))}
    return ways | {f"{name}_nhwc": ChannelsLast(copy.deepcopy(way)) for name, way in ways.items()}


def executions_with_tail(layer: PivotedConv2d, tail: Sequence[nn.Module]) -> dict[str, nn.Module]:
    """List the ways to run a convolution of blocks together with what follows.

    Args:
        layer: The layer; not changed.
        tail: What follows; not changed.

    Returns:
        ``"portions"``: the layer itself and its tail, on a few images at a time.
    """
    return {PORTIONS: InPortions(copy.deepcopy(layer), copy.deepcopy(tuple(tail)))}
