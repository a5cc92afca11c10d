"""Convolutions of small maps with fewer multiplications: exact, and faster where many images are waiting.

What lies behind a layer runs for every candidate, so that its convolutions are all that greedy selection waits for.
Late layers have maps of 4x4, 2x2 or 1x1 pixels, where a 3x3 kernel mostly meets zeros of the padding, and where one
tile of a minimal filtering algorithm (Winograd 1980; for networks Andrew Lavin, Scott Gray: "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016, arXiv 1509.09308) is the whole map. Along one dimension, with ``x`` the
pixels, ``w`` the kernel and ``y`` what comes out::

    y = A ((G w) * (B x)),    products per pixel: 1 of 3 (n = 1), 1.5 (n = 2), 1.5 (n = 4)

and in two dimensions the Kronecker products of these matrices. Numbers differ from those of the direct sum by
rounding alone.

Activations lie in memory pixel by pixel, ``[height, width, images, channels]``, so that all transforms are matrix
products. Pooling takes maxima of whole slices.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from functools import reduce
from math import gcd

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

LEAST_CHANNELS = 256
"""With fewer channels, inputs or outputs, the transforms cost what the products save."""

TABLE_BYTES = 20 << 20
"""Transformed activations are computed in tables of at most this size, which stay near the processor and are reused."""

_CONVOLVED = 16
"""A convolution of so many images goes to oneDNN, whose single-precision products are the fastest on most machines."""

Matrix = tuple[tuple[float, ...], ...]

INPUTS: Mapping[int, Matrix] = {
    1: ((1,),),
    2: ((1, 1), (0, 1), (1, 0)),
    4: ((0, -5, 0, 1), (-4, -4, 1, 1), (4, -4, -1, 1), (-2, -1, 2, 1), (2, -1, -2, 1), (4, 0, -5, 0)),
}
"""``B`` by number of pixels: what the pixels are multiplied with (columns that meet padding are left out)."""

KERNELS: Mapping[int, Matrix] = {
    1: ((0, 1, 0),),
    2: ((0, 1, 0), (0, -1, 1), (1, -1, 0)),
    4: (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
}
"""``G``: what the kernel is multiplied with."""

OUTPUTS: Mapping[int, Matrix] = {
    1: ((1,),),
    2: ((1, 1, 0), (1, 0, 1)),
    4: ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
}
"""``A``: what the products are multiplied with."""


def is_for_small_maps(module: nn.Module) -> bool:
    """Tell whether a layer is a convolution that small maps can be computed faster for.

    Args:
        module: The layer.

    Returns:
        Whether it has a 3x3 kernel that keeps the size of the map, many channels, and is on the CPU.
    """
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (3, 3)
        and module.stride == module.dilation == (1, 1)
        and module.padding in ((1, 1), "same")
        and module.padding_mode == "zeros"
        and module.groups == 1
        and min(module.in_channels, module.out_channels) >= LEAST_CHANNELS
        and module.weight.device.type == "cpu"
    )


class SmallMaps:
    """A convolution with few products where the map is small.

    Args:
        convolution: One that is :func:`is_for_small_maps`.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        self._convolution = convolution
        self._known: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: ``[images, inputs, height, width]``.

        Returns:
            ``[images, outputs, height, width]``.
        """
        height, width = size = (int(x.shape[2]), int(x.shape[3]))
        if height not in INPUTS or width not in INPUTS:
            plain: Tensor = self._convolution(x)
            return plain
        if size not in self._known:
            self._known[size] = self._transform(x, size)
        y = self._apply_filters(x.permute(2, 3, 0, 1).flatten(0, 1), size)
        return y.view(height, width, *y.shape[1:]).permute(2, 3, 0, 1)

    def _transform(self, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Prepare kernels and bias for one size of maps."""
        with torch.no_grad():
            own = self._convolution.bias
            bias = x.new_zeros(self._convolution.out_channels) if own is None else own.detach()
            return transform_kernels(self._convolution.weight, *size).to(x), bias

    def _apply_filters(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """Convolve ``[pixels, images, inputs]``."""
        kernels, bias = self._known[size]
        count, inputs, outputs = *pixels.shape[1:], len(bias)
        before, after = (_both(table, size).to(pixels) for table in (INPUTS, OUTPUTS))
        flat = pixels.reshape(len(pixels), -1)
        y: Tensor = bias.repeat(len(after), count)
        at_once = max(1, TABLE_BYTES // (count * max(inputs, outputs) * pixels.element_size()))
        parts = zip(before.split(at_once), after.split(at_once, dim=1), kernels.split(at_once), strict=True)
        for into, out_of, weights in parts:
            points = (into @ flat).view(-1, count, inputs)
            products = torch.stack([_product(point, weight) for point, weight in zip(points, weights, strict=True)])
            y.addmm_(out_of, products.flatten(1))
        return y.view(-1, count, outputs)


def transform_kernels(weight: Tensor, height: int, width: int) -> Tensor:
    """Transform kernels, in float64.

    Args:
        weight: ``[outputs, inputs, 3, 3]``.
        height: Rows of the map.
        width: Columns of the map.

    Returns:
        ``G w`` with one matrix per product, ``[products, outputs, inputs]``, float64.
    """
    return torch.einsum(
        "pt,oit->poi", _both(KERNELS, (height, width)), weight.detach().double().flatten(2)
    ).contiguous()


def pool_windows(x: Tensor, height: int, width: int) -> Tensor:
    """Pool windows that do not overlap, the maximum of each.

    Args:
        x: ``[images, channels, rows, columns]``; windows tile the map.
        height: Rows of a window.
        width: Columns of a window.

    Returns:
        ``[images, channels, rows / height, columns / width]``.
    """
    places = [x[:, :, row::height, column::width] for row in range(height) for column in range(width)]
    return reduce(torch.maximum, places)


def find_faster(graph: fx.GraphModule, nodes: Container[fx.Node]) -> dict[fx.Node, Callable[[Tensor], Tensor]]:
    """Find the nodes of a network that may run faster, and how.

    Args:
        graph: The network, in eval mode.
        nodes: Those that may be looked at.

    Returns:
        What stands in for a node, as a function of its only input.
    """
    found: dict[fx.Node, Callable[[Tensor], Tensor]] = {}
    for node in graph.graph.nodes:
        if node not in nodes or node.op != "call_module" or len(node.all_input_nodes) != 1 or len(node.args) != 1:
            continue
        module = graph.get_submodule(str(node.target))
        if is_for_small_maps(module):
            assert isinstance(module, nn.Conv2d)
            found[node] = SmallMaps(module)
        elif isinstance(module, nn.MaxPool2d) and (window := _tiles(module)) is not None:
            found[node] = _pooling(module, *window)
    return found


def _both(table: Mapping[int, Matrix], size: tuple[int, int]) -> Tensor:
    """Return the matrix for both dimensions of a map."""
    one, other = (torch.tensor(table[length], dtype=torch.float64) for length in size)
    return torch.kron(one, other)


def _product(rows: Tensor, weight: Tensor) -> Tensor:
    """Multiply ``[images, inputs]`` with ``[outputs, inputs]``, transposed."""
    count = len(rows)
    images = gcd(count, _CONVOLVED)
    shaped = rows.view(images, 1, count // images, -1).permute(0, 3, 1, 2)
    return F.conv2d(shaped, weight[:, :, None, None]).permute(0, 2, 3, 1).reshape(count, -1)


def _tiles(pool: nn.MaxPool2d) -> tuple[int, int] | None:
    """Return the window of a pooling whose windows do not overlap."""
    window, stride = (one if isinstance(one, tuple) else (one, one) for one in (pool.kernel_size, pool.stride))
    plain = pool.padding in (0, (0, 0)) and pool.dilation in (1, (1, 1)) and not pool.return_indices
    return window if plain and window == stride else None


def _pooling(pool: nn.MaxPool2d, height: int, width: int) -> Callable[[Tensor], Tensor]:
    def apply(x: Tensor) -> Tensor:
        whole = x.ndim == 4 and x.shape[2] % height == 0 and x.shape[3] % width == 0
        y: Tensor = pool_windows(x, height, width) if whole else pool(x)
        return y

    return apply
