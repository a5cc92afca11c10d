"""Layers of dense blocks.

A pivoted layer reads its inputs block by block and multiplies each block with a small dense matrix (or a bank of
small filters). Only the blocks are stored: a layer of density ``1/8`` has an eighth of the weights and runs an
eighth of the multiply–accumulates. A layer lists other ways to run it, made of the modules of
``methods.pivoting.executions``; which one is fastest depends on shape, batch, precision and device:
``search.speed.tuner`` measures it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.contract.inputs import Inputs, call, take
from methods.pivoting.arrangement import Arrangement, PivotSpec, arrange, blocks_of
from methods.pivoting.executions import PORTIONS, ChannelsLast, SeparateConvs
from methods.pivoting.portions import InPortions


class PivotedConv2d(nn.Module):
    """A convolution of dense blocks: inputs read block by block, then a grouped convolution.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        kernel_size: Of the filters.
        stride: Of the filters.
        padding: Zeros around the image, or ``"same"`` or ``"valid"``.
        dilation: Of the filters.
        bias: Whether a bias is added.
        **arrangement: The other arguments of :class:`Arrangement`.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int] | str,
        dilation: tuple[int, int],
        bias: bool,
        **arrangement: Any,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.arrangement = Arrangement(in_channels, out_channels, **arrangement)
        blocks, width = self.arrangement.blocks, self.arrangement.width
        self.weight = nn.Parameter(torch.zeros(blocks * self.arrangement.height, width, *kernel_size))
        self.register_parameter("bias", nn.Parameter(torch.zeros(out_channels)) if bias else None)

    @staticmethod
    def from_layer(layer: nn.Conv2d, spec: PivotSpec) -> PivotedConv2d:
        """Keep the blocks of a dense convolution.

        Args:
            layer: The dense layer, of one group, padded with zeros.
            spec: Which entries are kept.

        Returns:
            A layer that computes what the dense one does with all other entries zero.

        Raises:
            ValueError: If the layer is grouped or padded with something else than zeros.
        """
        if layer.groups != 1 or layer.padding_mode != "zeros":
            raise ValueError(f"a convolution of {layer.groups} groups, padding {layer.padding_mode!r}, has no blocks")
        keep_blocks = PivotedConv2d(
            layer.in_channels,
            layer.out_channels,
            _pair(layer.kernel_size),
            _pair(layer.stride),
            layer.padding if isinstance(layer.padding, str) else _pair(layer.padding),
            _pair(layer.dilation),
            layer.bias is not None,
            **arrange(spec, layer.in_channels),
        )
        _fill(keep_blocks, spec, layer.weight, layer.bias)
        return keep_blocks

    def settings(self) -> dict[str, Any]:
        """Return what builds a layer of the same shapes.

        Returns:
            Arguments by name, plain JSON.
        """
        pairs = ("kernel_size", "stride", "padding", "dilation")
        shape = {n: v if isinstance(v := getattr(self, n), str) else list(v) for n in pairs}
        widths = {"in_channels": self.in_channels, "out_channels": self.out_channels, "bias": self.bias is not None}
        return widths | shape | self.arrangement.settings()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve block by block.

        Args:
            x: Activations ``[batch, in_channels, height, width]``.

        Returns:
            Activations ``[batch, out_channels, height', width']``.
        """
        return self.convolve(self.arrangement.read(x, 1))

    def convolve(self, blocks: Tensor) -> Tensor:
        """Convolve inputs that are in the order of the blocks.

        Args:
            blocks: ``[batch, blocks * width, height, width]``.

        Returns:
            The layer's outputs.
        """
        summed = len(self.arrangement.sums) > 0
        bias = None if summed else self.bias
        y = F.conv2d(blocks, self.weight, bias, self.stride, self.padding, self.dilation, self.arrangement.blocks)
        y = self.arrangement.collect(y, 1)
        if summed and self.bias is not None:
            y = y + self.bias.to(y.dtype)[:, None, None]
        return self.arrangement.place(y, 1)

    def scale_outputs(self, scale: Tensor, shift: Tensor) -> None:
        """Multiply every output channel, and add to it.

        Args:
            scale: ``[out_channels]``.
            shift: ``[out_channels]``.
        """
        _scale_rows(self, scale, shift)

    def equal_forms(self) -> dict[str, nn.Module]:
        """Build the ways to run this layer.

        Returns:
            By name: ``"grouped"`` is the layer itself, ``"masked"`` the dense layer with zeros outside the blocks,
            ``"separate"`` one convolution per block; all three also with channels last (``"..._nhwc"``).
        """
        ways = {
            "grouped": copy.deepcopy(self),
            "masked": dense(self),
            "separate": SeparateConvs(copy.deepcopy(self)),
        }
        return ways | {f"{name}_nhwc": ChannelsLast(copy.deepcopy(way)) for name, way in ways.items()}

    def forms_with_tail(self, tail: Sequence[nn.Module]) -> dict[str, nn.Module]:
        """Build the ways to run this layer together with what follows.

        Args:
            tail: What follows; not changed.

        Returns:
            ``"portions"``: the layer itself and its tail, on a few images at a time.
        """
        return {PORTIONS: InPortions(copy.deepcopy(self), copy.deepcopy(tuple(tail)))}

    def extra_repr(self) -> str:
        """Return the numbers that are shown when the layer is printed."""
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"


class PivotedLinear(nn.Module):
    """A linear layer of dense blocks: inputs read block by block, then one matrix product per block.

    Args:
        in_features: Features that come in.
        out_features: Features that go out.
        bias: Whether a bias is added.
        **arrangement: The other arguments of :class:`Arrangement`.
    """

    bias: nn.Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool, **arrangement: Any) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.arrangement = Arrangement(in_features, out_features, **arrangement)
        blocks, width = self.arrangement.blocks, self.arrangement.width
        self.weight = nn.Parameter(torch.zeros(blocks, self.arrangement.height, width))
        self.register_parameter("bias", nn.Parameter(torch.zeros(out_features)) if bias else None)

    @staticmethod
    def from_layer(layer: nn.Linear, spec: PivotSpec) -> PivotedLinear:
        """Keep the blocks of a dense layer.

        Args:
            layer: The dense layer.
            spec: Which entries are kept.

        Returns:
            A layer that computes what the dense one does with all other entries zero.
        """
        shape = arrange(spec, layer.in_features)
        keep_blocks = PivotedLinear(layer.in_features, layer.out_features, bias=layer.bias is not None, **shape)
        _fill(keep_blocks, spec, layer.weight, layer.bias)
        return keep_blocks

    def settings(self) -> dict[str, Any]:
        """Return what builds a layer of the same shapes.

        Returns:
            Arguments by name, plain JSON.
        """
        widths = {"in_features": self.in_features, "out_features": self.out_features, "bias": self.bias is not None}
        return widths | self.arrangement.settings()

    def forward(self, x: Tensor) -> Tensor:
        """Multiply block by block.

        Args:
            x: ``[..., in_features]``.

        Returns:
            ``[..., out_features]``.
        """
        arrangement = self.arrangement
        inputs = arrangement.read(x, x.ndim - 1).reshape(-1, arrangement.blocks, arrangement.width)
        y = torch.bmm(inputs.transpose(0, 1), self.weight.transpose(1, 2))  # [blocks, rows of x, height]
        y = arrangement.collect(y.transpose(0, 1).flatten(1), 1)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        return arrangement.place(y, 1).reshape(*x.shape[:-1], self.out_features)

    def scale_outputs(self, scale: Tensor, shift: Tensor) -> None:
        """Multiply every output channel, and add to it.

        Args:
            scale: ``[out_features]``.
            shift: ``[out_features]``.
        """
        _scale_rows(self, scale, shift)

    def equal_forms(self) -> dict[str, nn.Module]:
        """Build the ways to run this layer.

        Returns:
            By name: ``"bmm"`` is the layer itself, ``"masked"`` the dense layer with zeros outside the blocks.
        """
        return {"bmm": copy.deepcopy(self), "masked": dense(self)}

    def extra_repr(self) -> str:
        """Return the numbers that are shown when the layer is printed."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def _scale_rows(layer: Pivoted, scale: Tensor, shift: Tensor) -> None:
    """Multiply the rows of all blocks with the scale of the output that they go to, and move the bias."""
    spec = layer.arrangement.spec()
    rows = spec.rows.to(scale.device)  # whose scale each row of the bias has
    by_weight = rows.reshape(-1, spec.height)[spec.clusters.to(scale.device)].flatten()
    weight = layer.weight.detach()
    by_row = weight.reshape(len(by_weight), -1) * scale[by_weight][:, None]
    bias = shift[rows] if layer.bias is None else layer.bias.detach() * scale[rows] + shift[rows]
    layer.weight = nn.Parameter(by_row.reshape(weight.shape))
    layer.bias = nn.Parameter(bias.to(weight.dtype))


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    return value[0], value[1]


Pivoted = PivotedConv2d | PivotedLinear


def keep_blocks(layer: nn.Conv2d | nn.Linear, spec: PivotSpec) -> Pivoted:
    """Keep the blocks of a dense layer.

    Args:
        layer: The dense layer.
        spec: Which entries are kept.

    Returns:
        The layer of blocks.
    """
    return (
        PivotedConv2d.from_layer(layer, spec) if isinstance(layer, nn.Conv2d) else PivotedLinear.from_layer(layer, spec)
    )


def dense(layer: Pivoted) -> nn.Conv2d | nn.Linear:
    """Return the dense layer with zeros outside the blocks: the slow, obvious twin.

    Args:
        layer: A layer of blocks.

    Returns:
        A layer of ``torch.nn`` that computes the same.
    """
    arrangement, spec = layer.arrangement, layer.arrangement.spec()
    kernel = layer.weight.shape[2:] if isinstance(layer, PivotedConv2d) else ()
    blocks = layer.weight.detach().reshape(arrangement.blocks, arrangement.height, arrangement.width, *kernel)
    twin: nn.Conv2d | nn.Linear
    if isinstance(layer, PivotedConv2d):
        shape = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        twin = nn.utils.skip_init(nn.Conv2d, *shape, bias=layer.bias is not None)
    else:
        twin = nn.utils.skip_init(nn.Linear, layer.in_features, layer.out_features, layer.bias is not None)
    twin.to(blocks.device, blocks.dtype)
    weight = torch.zeros_like(twin.weight)
    rows = spec.rows.reshape(-1, spec.height).to(weight.device)
    for cluster, columns, block in zip(spec.clusters.tolist(), spec.columns.to(weight.device), blocks, strict=True):
        weight[rows[cluster][:, None], columns[None, :]] = block
    with torch.no_grad():
        twin.weight.copy_(weight)
        if layer.bias is not None and twin.bias is not None:
            twin.bias.copy_(arrangement.place(layer.bias, 0))
    return twin.train(layer.training)


def _fill(layer: Pivoted, spec: PivotSpec, weight: Tensor, bias: Tensor | None) -> None:
    """Take over weights, places, device and precision of a dense layer."""
    layer.to(weight.device, weight.dtype)
    with torch.no_grad():
        layer.arrangement.follow(spec)
        layer.weight.copy_(blocks_of(spec, weight).reshape(layer.weight.shape))
        if layer.bias is not None and bias is not None:
            layer.bias.copy_(bias[spec.rows.to(bias.device)])


def count_moved_bytes(model: nn.Module, example: Inputs) -> int:
    """Count the bytes that layers of blocks copy to bring channels into order, for one input.

    Args:
        model: The network; not changed.
        example: One input, ``[1, ...]``.

    Returns:
        Bytes written by reading (other than as channels lie) and placing.
    """
    moved: list[int] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, PivotedConv2d | PivotedLinear)
        arrangement = layer.arrangement
        if arrangement.reading != "natural":
            size = inputs[0].numel() // arrangement.inputs * arrangement.blocks * arrangement.width
            moved.append(size * inputs[0].element_size())
        if arrangement.placed:
            moved.append(output.numel() * output.element_size())

    layers = [m for m in model.modules() if isinstance(m, PivotedConv2d | PivotedLinear)]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            call(model, take(example, slice(1)))
    finally:
        for handle in handles:
            handle.remove()
    return sum(moved)
