"""Which input pixels a convolution reads: im2col without copies, and how often each pixel is read."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHUNK_BYTES = 256 * 2**20
"""Most memory that one piece of im2col, or of per-sample gradients, may take."""


def pads(layer: nn.Conv2d) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return how many pixels a convolution adds around its input.

    Args:
        layer: The convolution.

    Returns:
        Before and after, for the height and for the width.
    """
    if layer.padding == "valid":
        return (0, 0), (0, 0)
    if isinstance(layer.padding, str):  # "same": what cannot be shared evenly goes behind
        totals = [d * (k - 1) for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
        height, width = ((total // 2, total - total // 2) for total in totals)
        return height, width
    height, width = ((pad, pad) for pad in layer.padding)
    return height, width


def pad(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Pad as a convolution does.

    Args:
        layer: The convolution.
        x: ``[batch, channels, height, width]``, with any number of channels.

    Returns:
        The larger images; ``x`` itself where nothing is added.
    """
    (top, bottom), (left, right) = pads(layer)
    if not (top or bottom or left or right):
        return x
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(x, (left, right, top, bottom), mode=mode)


def windows(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Show what each entry of the kernel reads at each output position.

    Args:
        layer: The convolution.
        x: ``[batch, channels, height, width]``, with any number of channels.

    Returns:
        A view of the padded images, ``[batch, channels, kernel height, kernel width, out height, out width]``.
        Its entries ``[b, :, :, :, t, u]`` in row-major order are one column of im2col.
    """
    view = pad(layer, x)
    for dim in (2, 3):
        kernel, stride, dilation = layer.kernel_size[dim - 2], layer.stride[dim - 2], layer.dilation[dim - 2]
        # unfold appends the entries of the kernel as the last dimension
        view = view.unfold(dim, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    return view.permute(0, 1, 4, 5, 2, 3)


def read_counts(layer: nn.Conv2d, height: int, width: int) -> Tensor:
    """Count the pairs of output position and kernel entry that read each pixel.

    Args:
        layer: The convolution.
        height: Of its input.
        width: Of its input.

    Returns:
        ``[height, width]``, int64 on the CPU. Pixels that stand in for padding ("reflect", "circular",
        "replicate") are counted for that as well; zeros around the image belong to none.
    """
    sides = zip((height, width), layer.kernel_size, layer.stride, layer.dilation, pads(layer), strict=True)
    rows, columns = (_line_counts(*side, layer.padding_mode) for side in sides)
    return rows[:, None] * columns


def _line_counts(length: int, kernel: int, stride: int, dilation: int, pad: tuple[int, int], mode: str) -> Tensor:
    """Count the readers of each pixel of a line; the counts of an image are products of these."""
    line = torch.arange(1, length + 1, dtype=torch.float64)[None, None]  # 0 stands for a zero around the line
    wide = F.pad(line, pad, mode="constant" if mode == "zeros" else mode).long().flatten()
    positions = torch.arange(0, len(wide) - dilation * (kernel - 1), stride)
    read = wide[positions[:, None] + dilation * torch.arange(kernel)]
    return torch.bincount(read.flatten(), minlength=length + 1)[1:]
