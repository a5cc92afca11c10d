"""Ways to run a layer of blocks that give the same output.

Which of them is fastest depends on shape, batch, precision and device: ``methods.pivoting.dispatch`` measures it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from math import gcd
from typing import Any

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


class UnfoldedBmm(nn.Module):
    """One matrix product per block on the unfolded inputs (those of 1 x 1 filters need no unfolding).

    Args:
        layer: The layer of blocks; padded with a number of zeros.
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
        inputs = arrangement.read(x, 1)
        assert not isinstance(layer.padding, str)
        sides = [
            (side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for side, pad, dilation, kernel, stride in zip(
                x.shape[2:], layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True
            )
        ]
        if layer.kernel_size == (1, 1) and layer.padding == (0, 0):
            rows, columns = layer.stride
            pixels = inputs[:, :, ::rows, ::columns].flatten(2)
        else:
            pixels = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        weight = layer.weight.reshape(arrangement.blocks, arrangement.height, -1)
        # Channel-major: [blocks, width * kernel, batch * pixels].
        matrix = pixels.transpose(0, 1).reshape(arrangement.blocks, weight.shape[2], -1)
        y = torch.bmm(weight, matrix).reshape(-1, len(x), *sides).transpose(0, 1)
        return _finish(layer, y)


class BlockSparseLinear(nn.Module):
    """A linear layer as a block-compressed sparse matrix (PyTorch's BSR) times the transposed input.

    Args:
        layer: The layer of blocks.
    """

    matrix: Tensor

    def __init__(self, layer: PivotedLinear) -> None:
        super().__init__()
        self.layer = layer
        arrangement, spec = layer.arrangement, layer.arrangement.spec()
        self.slabs = arrangement.reading == "slabs"  # then the sparse matrix picks them itself
        width = arrangement.slab if self.slabs else arrangement.width
        read = torch.arange(arrangement.blocks * arrangement.width).reshape(arrangement.blocks, -1)
        columns, inputs = (spec.columns, arrangement.inputs) if self.slabs else (read, read.numel())
        whole = layer.weight.detach().new_zeros(arrangement.outputs, inputs)
        for cluster, block, weight in zip(spec.clusters.tolist(), columns, layer.weight.detach(), strict=True):
            whole[cluster * arrangement.height :][: arrangement.height, block.to(whole.device)] += weight
        with _beta():
            side = gcd(arrangement.height, width)  # MKL knows square blocks only
            self.register_buffer("matrix", whole.to_sparse_bsr((side, side)))

    def forward(self, x: Tensor) -> Tensor:
        """Run.

        Args:
            x: ``[..., in_features]``.

        Returns:
            ``[..., out_features]``.
        """
        layer, arrangement = self.layer, self.layer.arrangement
        inputs = x if self.slabs else arrangement.read(x, x.ndim - 1)
        y = (self.matrix @ inputs.reshape(-1, self.matrix.shape[1]).T).T
        if layer.bias is not None:
            y = y + layer.bias
        return arrangement.place(y, 1).reshape(*x.shape[:-1], layer.out_features)


def _finish(layer: PivotedConv2d, y: Tensor) -> Tensor:
    """Add up blocks, add the bias, and put rows in their places."""
    y = layer.arrangement.collect(y, 1)
    if layer.bias is not None:
        y = y + layer.bias.to(y.dtype)[:, None, None]
    return layer.arrangement.place(y, 1)


@contextmanager
def _beta() -> Generator[None]:
    """Let block-sparse tensors be made without the remark that they are new."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (BSR|CSR) tensor support is in beta state")
        yield


PORTIONS = "portions"
"""The way that runs a layer and what follows it on a few images at a time."""


def executions(layer: Pivoted, tail: Sequence[nn.Module] = ()) -> dict[str, nn.Module]:
    """List the ways to run a layer of blocks; all give the same output, up to rounding.

    Args:
        layer: The layer; not changed.
        tail: What follows a convolution and is run with it where that is a way of its own.

    Returns:
        By name: ``"masked"`` is the dense layer with zeros outside the blocks. For convolutions ``"grouped"``
        (the layer itself), ``"separate"``, ``"bmm"``, the first three with channels last (``"..._nhwc"``), and
        ``"portions"`` (the layer itself and its tail, on a few images at a time); for linear layers ``"bmm"``
        (the layer itself) and ``"bsr"``. The tail is part of ``"portions"`` alone.
    """

    def own() -> Any:
        return copy.deepcopy(layer)

    if isinstance(layer, PivotedLinear):
        return {"masked": dense(layer), "bmm": own(), "bsr": BlockSparseLinear(own())}
    ways: dict[str, nn.Module] = {
        "masked": dense(layer),
        "grouped": own(),
        "separate": SeparateConvs(own()),
        "masked_nhwc": ChannelsLast(dense(layer)),
        "grouped_nhwc": ChannelsLast(own()),
        "separate_nhwc": ChannelsLast(SeparateConvs(own())),
        PORTIONS: InPortions(own(), copy.deepcopy(tuple(tail))),
    }
    if not isinstance(layer.padding, str):
        ways["bmm"] = UnfoldedBmm(own())
    return ways
