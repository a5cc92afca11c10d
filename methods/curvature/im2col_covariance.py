"""The covariance of whole im2col columns, without most of its multiplications.

``A_full = sum_t u_t u_t^T`` consists of one block ``[channels, channels]`` for every pair of kernel entries
``(d, d')``: the sum over output positions ``t`` of ``x[s t + e d] x[s t + e d']^T``, with stride ``s`` and dilation
``e``. Two things are not computed twice:

* the block of ``(d', d)`` is the transpose of that of ``(d, d')``;
* moving both entries by ``n`` and the window of positions by ``m``, where ``e n = s m``, reads the same pairs of
  pixels, but for the border: the blocks differ by what the first ``m`` lines of positions of the one read, and the
  last ``m`` lines of the other.

Of the 81 blocks of a 3x3 kernel with stride 1, 13 are matrix products over whole images and 32 over single lines. No
approximation is made. (Derived here; the same displacement structure is known from fast solvers for linear prediction.)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement
from math import gcd, prod

import torch
from torch import Tensor, nn

from methods.curvature.im2col import CHUNK_BYTES, pads, windows

_Entry = tuple[int, int]
"""Row and column of a kernel entry."""
_Pair = tuple[_Entry, _Entry]


class Im2colCovariance:
    """Running sum of ``u u^T`` over samples and positions: in float32 at least over a chunk, in float64 over chunks.

    Args:
        layer: The convolution.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        self._layer = layer
        height, width = layer.kernel_size
        self._entries: list[_Entry] = [(row, column) for row in range(height) for column in range(width)]
        self._pairs: list[_Pair] = list(combinations_with_replacement(self._entries, 2))
        channels = layer.weight.shape[1]
        shape = (len(self._pairs), layer.groups, channels, channels)
        self._blocks = torch.zeros(shape, dtype=torch.float64, device=layer.weight.device)

    def add(self, x: Tensor) -> None:
        """Add the columns of a batch.

        Args:
            x: Input of the convolution, ``[batch, channels, height, width]``.
        """
        for columns in _chunks(self._layer, x):
            blocks: dict[_Pair, Tensor] = {}
            for pair, total in zip(self._pairs, self._blocks, strict=True):
                blocks[pair] = self._block(pair, blocks, columns, x.shape[2:])
                total += blocks[pair]

    def total(self) -> Tensor:
        """Put the blocks together.

        Returns:
            ``[groups, I/g * k * k, I/g * k * k]``, float64, symmetric, in the order of ``weight.flatten(1)``.
        """
        blocks = dict(zip(self._pairs, self._blocks, strict=True))
        for one, other in self._pairs:
            block = blocks[one, other]
            blocks[other, one] = block.mT if one != other else (block + block.mT) / 2
        _, groups, channels, _ = self._blocks.shape
        entries = len(self._entries)
        whole = self._blocks.new_empty(groups, channels, entries, channels, entries)
        for number, one in enumerate(self._entries):
            # Rows at a time, because blocks put in one by one would be written in strides.
            torch.stack([blocks[one, other] for other in self._entries], dim=-1, out=whole[:, :, number])
        return whole.reshape(groups, channels * entries, channels * entries)

    def _block(self, pair: _Pair, known: dict[_Pair, Tensor], columns: Tensor, size: torch.Size) -> Tensor:
        """Sum the products of what two kernel entries read: ``[groups, I/g, I/g]``."""
        for axis in (0, 1):
            stride, dilation = self._layer.stride[axis], self._layer.dilation[axis]
            entries, lines = stride // gcd(stride, dilation), dilation // gcd(stride, dilation)
            before = _shift(pair, axis, -entries)
            # Lines that overlap, or more of them than half of all, are no gain.
            if before in known and 2 * lines < columns.shape[axis - 2]:
                block = known[before]
                if self._reads_image(before, axis, range(lines), size[axis]):
                    block = block - _product(*self._lines(columns, before, axis, 0, lines))
                last = columns.shape[axis - 2] - lines
                if self._reads_image(pair, axis, range(last, last + lines), size[axis]):
                    block = block + _product(*self._lines(columns, pair, axis, last, lines))
                return block
        one, other = (columns[:, :, row, column].flatten(2) for row, column in pair)
        return _product(one, other)

    def _lines(self, columns: Tensor, pair: _Pair, axis: int, first: int, lines: int) -> list[Tensor]:
        """Return what both entries read at some lines of positions: ``[groups, I/g, samples * positions]`` each."""
        return [columns[:, :, row, column].narrow(axis + 3, first, lines).flatten(2) for row, column in pair]

    def _reads_image(self, pair: _Pair, axis: int, lines: range, length: int) -> bool:
        """Tell whether both entries read anything but zeros around the image at some lines of positions."""
        if self._layer.padding_mode != "zeros":
            return True
        stride, dilation, before = self._layer.stride[axis], self._layer.dilation[axis], pads(self._layer)[axis][0]
        read = [{stride * line + dilation * entry[axis] - before for line in lines} for entry in pair]
        return all(any(0 <= pixel < length for pixel in pixels) for pixels in read)


def _product(one: Tensor, other: Tensor) -> Tensor:
    return one @ other.mT


def _shift(pair: _Pair, axis: int, by: int) -> _Pair:
    (row, column), (other_row, other_column) = pair
    if axis == 0:
        return (row + by, column), (other_row + by, other_column)
    return (row, column + by), (other_row, other_column + by)


def _chunks(layer: nn.Conv2d, x: Tensor) -> Iterator[Tensor]:
    """Unroll some samples at a time: ``[groups, I/g, k, k, samples, out height, out width]``."""
    view = windows(layer, x.contiguous())  # copied nine times, so let pixels be neighbours
    dtype = torch.promote_types(x.dtype, torch.float32)
    samples = max(1, CHUNK_BYTES // (prod(view.shape[1:]) * dtype.itemsize))
    for chunk in view.split(samples):
        # [channels, k, k, samples, ...]
        columns = chunk.movedim(0, 3).to(dtype).contiguous()
        yield columns.unflatten(0, (layer.groups, -1))
