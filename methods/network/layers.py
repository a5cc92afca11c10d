"""Layers of ours that take part in cutting and rebuilding, beside those of ``torch.nn``."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ZeroPadShortcut(nn.Module):
    """Parameter-free shortcut of CIFAR residual networks: subsample, then add channels of zeros.

    He, Zhang, Ren, Sun (2016), section 4.2, option A. Output channel ``o`` carries input channel
    ``source[o]``, or zeros where ``source[o] == in_channels``. Input and output channels can therefore be
    removed independently, as with a convolution, which keeps the stages of the network uncoupled.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out; at least ``in_channels``. The zeros are spread evenly on both
            sides.
        stride: Every how many pixels one is kept, in both directions.

    Raises:
        ValueError: If ``out_channels < in_channels``.
    """

    source: Tensor

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        if out_channels < in_channels:
            raise ValueError(f"out_channels = {out_channels} must be at least in_channels = {in_channels}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        front = (out_channels - in_channels) // 2
        source = torch.full((out_channels,), in_channels, dtype=torch.long)
        source[front : front + in_channels] = torch.arange(in_channels)
        self.register_buffer("source", source)

    def forward(self, x: Tensor) -> Tensor:
        """Subsample and pad.

        Args:
            x: Activations ``[batch, in_channels, height, width]``.

        Returns:
            ``[batch, out_channels, height / stride, width / stride]``, rounded up.
        """
        # A 1-pixel average pool is a strided copy that the tracer of channel dependencies reads as
        # elementwise; slicing would be read as slicing of channels.
        pixels = F.avg_pool2d(x, 1, self.stride)
        return F.pad(pixels, (0, 0, 0, 0, 0, 1)).index_select(1, self.source)

    def drop_inputs(self, index: list[int]) -> None:
        """Remove input channels; outputs that carried them become zero.

        Args:
            index: Input channels to remove.
        """
        kept = [c for c in range(self.in_channels) if c not in set(index)]
        # Position of each old input channel among the kept ones; dropped ones and zeros point at the pad.
        position = torch.full((self.in_channels + 1,), len(kept), dtype=torch.long)
        position[torch.tensor(kept, dtype=torch.long)] = torch.arange(len(kept))
        self.source = position.to(self.source.device)[self.source]
        self.in_channels = len(kept)

    def drop_outputs(self, index: list[int]) -> None:
        """Remove output channels.

        Args:
            index: Output channels to remove.
        """
        kept = [c for c in range(self.out_channels) if c not in set(index)]
        self.source = self.source[torch.tensor(kept, dtype=torch.long, device=self.source.device)]
        self.out_channels = len(kept)

    def silence(self, index: Tensor, side: Literal["out", "in"]) -> None:
        """Make channels carry zeros without removing them.

        Args:
            index: Channels to silence, ``[n]``.
            side: Whether ``index`` counts output or input channels.
        """
        silent = torch.isin(self.source, index) if side == "in" else torch.zeros_like(self.source, dtype=torch.bool)
        if side == "out":
            silent[index] = True
        self.source = self.source.masked_fill(silent, self.in_channels)
