"""Smaller kernels: of a kernel whose outer positions are gone, a rectangle is left, which any library runs faster.

A convolution with the kernel ``W`` is one with the slice ``W[:, :, i0:i1, k0:k1]`` on an input with fewer (or more)
zeros around it, if the rest of ``W`` is zero. With the dilation ``d`` in the direction of columns, padding ``p`` on
the left becomes ``p - k0 d`` and on the right ``p - (width - k1) d``; negative numbers crop.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Window:
    """A rectangle of positions of a kernel: rows ``top`` to ``bottom - 1``, columns ``left`` to ``right - 1``.

    Attributes:
        top: First row.
        bottom: Row after the last one.
        left: First column.
        right: Column after the last one.
    """

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """How many positions it has."""
        return (self.bottom - self.top) * (self.right - self.left)

    def mask(self, height: int, width: int) -> Tensor:
        """Mark its positions.

        Args:
            height: Height of the kernel.
            width: Width of the kernel.

        Returns:
            ``[height, width]``, boolean.
        """
        inside = torch.zeros(height, width, dtype=torch.bool)
        inside[self.top : self.bottom, self.left : self.right] = True
        return inside


def find_largest_area(height: int, width: int, positions: int) -> int:
    """Return the most positions that a rectangle can have.

    Args:
        height: Height of the kernel.
        width: Width of the kernel.
        positions: How many positions there is room for, at least 1.

    Returns:
        The largest product of a height and a width that is at most ``positions``.

    Example:
        >>> [find_largest_area(3, 3, positions) for positions in range(1, 10)]
        [1, 2, 3, 4, 4, 6, 6, 6, 9]
    """
    return max(rows * min(width, positions // rows) for rows in range(1, min(height, positions) + 1))


def find_nearest_window(kept: Tensor, l1: Tensor) -> Window:
    """Replace a choice of positions by a rectangle that costs as much as possible, but no more.

    Of the rectangles with the most positions that the number of chosen ones allows, it is the one that has most of
    these; then the one with the largest norm; then the upper and left one.

    Args:
        kept: Which positions were chosen, at least one, ``[height, width]``.
        l1: Norms of the positions, ``[height, width]``.

    Returns:
        The rectangle.

    Example:
        >>> kept = torch.tensor([[False, True, True], [False, True, True], [False, False, True]])
        >>> find_nearest_window(kept, kept.float())
        Window(top=0, bottom=2, left=1, right=3)
    """
    chosen, norms = kept.cpu(), l1.detach().cpu().double()
    height, width = chosen.shape
    area = find_largest_area(height, width, int(chosen.sum()))

    def rank(window: Window) -> tuple[int, float]:
        inside = window.mask(height, width)
        return -int(chosen[inside].sum()), -float(norms[inside].sum())

    return min((window for window in _windows(height, width) if window.area == area), key=rank)


def _windows(height: int, width: int) -> Iterator[Window]:
    for top in range(height):
        for bottom in range(top + 1, height + 1):
            for left in range(width):
                for right in range(left + 1, width + 1):
                    yield Window(top, bottom, left, right)


def slice_kernel(convolution: nn.Conv2d, window: Window) -> nn.Module:
    """Make a convolution's kernel smaller.

    Args:
        convolution: A convolution that pads with zeros; not changed.
        window: The positions that stay.

    Returns:
        A layer that computes the same as the convolution would with the other positions at zero: a convolution,
        behind a layer that pads and crops where both sides of the input need different padding.
    """
    height, width = convolution.kernel_size
    down, across = int(convolution.dilation[0]), int(convolution.dilation[1])
    (top, bottom), (left, right) = _padding(convolution)
    vertical = (top - window.top * down, bottom - (height - window.bottom) * down)
    horizontal = (left - window.left * across, right - (width - window.right) * across)
    even = all(first == last >= 0 for first, last in (vertical, horizontal))
    kernel = convolution.weight.detach()[:, :, window.top : window.bottom, window.left : window.right]
    smaller = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        (kernel.shape[2], kernel.shape[3]),
        (convolution.stride[0], convolution.stride[1]),
        (vertical[0], horizontal[0]) if even else 0,
        (down, across),
        convolution.groups,
        bias=convolution.bias is not None,
        device="meta",
    )
    smaller.weight = nn.Parameter(kernel.clone(memory_format=torch.contiguous_format), convolution.weight.requires_grad)
    smaller.bias = copy.deepcopy(convolution.bias)
    smaller.train(convolution.training)
    if even:
        return smaller
    pad = nn.ZeroPad2d((*horizontal, *vertical)).train(convolution.training)
    return nn.Sequential(OrderedDict(pad=pad, conv=smaller)).train(convolution.training)


def _padding(convolution: nn.Conv2d) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the padding above and below, left and right."""
    sides = []
    for direction in range(2):
        padding = convolution.padding
        if padding == "same":
            total = convolution.dilation[direction] * (convolution.kernel_size[direction] - 1)
            sides.append((total // 2, total - total // 2))
        else:
            each = 0 if isinstance(padding, str) else int(padding[direction])
            sides.append((each, each))
    return sides[0], sides[1]


def cut_kernels(model: nn.Module, windows: Mapping[str, Window]) -> nn.Module:
    """Make the kernels of a network smaller.

    Args:
        model: The network; not changed.
        windows: The positions that stay, by name of convolution; those that are whole are not touched.

    Returns:
        A copy with smaller kernels.
    """
    smaller = copy.deepcopy(model)
    for name, window in windows.items():
        convolution = smaller.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        if window.area == convolution.weight[0, 0].numel():
            continue
        layer = slice_kernel(convolution, window)
        for place, module in list(smaller.named_modules(remove_duplicate=False)):
            if module is convolution:  # it may be used in several places
                smaller.set_submodule(place, layer)
    return smaller
