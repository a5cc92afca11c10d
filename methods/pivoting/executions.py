"""Modules that run a layer of blocks in other ways, with the same output up to rounding.

They know the layers only by what they read of them; the layers themselves list these ways as their equal forms.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.pivoting.arrangement import Arrangement


class ConvolutionOfBlocks(Protocol):
    """What is read of a convolution of dense blocks.

    Attributes:
        arrangement: Which channels the blocks read and where their outputs go.
        weight: The blocks, ``[blocks * height, width, kernel height, kernel width]``.
        bias: ``[out_channels]``, or ``None``.
        stride: Of the filters.
        padding: Zeros around the image, or ``"same"`` or ``"valid"``.
        dilation: Of the filters.
    """

    arrangement: Arrangement
    weight: nn.Parameter
    bias: nn.Parameter | None
    stride: tuple[int, int]
    padding: tuple[int, int] | str
    dilation: tuple[int, int]


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

    def __init__(self, layer: ConvolutionOfBlocks) -> None:
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


def _finish(layer: ConvolutionOfBlocks, y: Tensor) -> Tensor:
    """Add up blocks, add the bias, and put rows in their places."""
    y = layer.arrangement.collect(y, 1)
    if layer.bias is not None:
        y = y + layer.bias.to(y.dtype)[:, None, None]
    return layer.arrangement.place(y, 1)


PORTIONS = "portions"
"""The way that runs a layer and what follows it on a few images at a time."""
