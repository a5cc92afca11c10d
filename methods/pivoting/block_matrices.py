"""Matrices whose rows and columns are ordered and cut into blocks: what a pivot search works on.

An *order* of channels may be shared: the channels between two layers are rows of one matrix and columns of the
next. An order is therefore a *slot* of its own, to which the axes of any number of matrices refer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Structure = Literal["block_diag", "block_sparse", "bsr"]
Rule = Literal["slab", "stride"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Part:
    """A stretch of an axis that follows one slot.

    Attributes:
        slot: Number of the slot.
        channels: Its length.
        repeat: Consecutive entries of the axis per channel (pixels of a flattened map, else 1).
    """

    slot: int
    channels: int
    repeat: int = 1


@dataclass(frozen=True)
class Axis:
    """Rows or columns of a matrix, as positions that are shared out evenly over clusters.

    Attributes:
        parts: Which slots order the entries, one after the other.
        clusters: Number of clusters; divides the length.
        rule: Which positions make a cluster: a ``"slab"`` of neighbours, or every ``clusters``-th one, a
            ``"stride"``. Slabs and strides of one order cross evenly: a perfect shuffle lies between them.
    """

    parts: tuple[Part, ...]
    clusters: int
    rule: Rule = "slab"

    @property
    def size(self) -> int:
        """Number of entries."""
        return sum(part.channels * part.repeat for part in self.parts)

    @property
    def offsets(self) -> list[tuple[int, Part]]:
        """The parts with the entry at which each begins."""
        begins = np.cumsum([0, *(part.channels * part.repeat for part in self.parts)])
        return list(zip(begins.tolist(), self.parts, strict=False))

    def clusters_of_positions(self) -> Integers:
        """Return the cluster of each position, ``[size]``."""
        positions = np.arange(self.size)
        return positions % self.clusters if self.rule == "stride" else positions * self.clusters // self.size

    def entries(self, orders: Sequence[Integers]) -> Integers:
        """Return which entry lies at each position.

        Args:
            orders: Channel at each position, by slot.

        Returns:
            Entries of the matrix in its own order, ``[size]``.
        """
        found, offset = [], 0
        for part in self.parts:
            within = orders[part.slot][:, None] * part.repeat + np.arange(part.repeat)
            found.append(offset + within.ravel())
            offset += part.channels * part.repeat
        return np.concatenate(found)

    def clusters_of_entries(self, orders: Sequence[Integers]) -> Integers:
        """Return the cluster of each entry, ``[size]``.

        Args:
            orders: Channel at each position, by slot.

        Returns:
            Clusters, in the matrix's own order.
        """
        clusters = np.empty(self.size, dtype=np.int64)
        clusters[self.entries(orders)] = self.clusters_of_positions()
        return clusters


@dataclass(frozen=True)
class Matrix:
    """A matrix of scores to be pivoted.

    Attributes:
        scores: ``[rows, columns]``, ``>= 0``.
        rows: Its rows; ``size`` agrees with the scores.
        columns: Its columns.
        structure: ``"block_diag"``: as many clusters of rows as of columns, each reads its own;
            ``"block_sparse"``: every cluster of rows reads the same number of clusters of columns;
            ``"bsr"``: any blocks.
        blocks: How many blocks are kept.
        fixed: Blocks that are kept whatever the scores say, ``[row clusters, column clusters]``; chosen by the
            search if None.
    """

    scores: Floats
    rows: Axis
    columns: Axis
    structure: Structure
    blocks: int
    fixed: Booleans | None = None

    def __post_init__(self) -> None:
        if self.scores.shape != (self.rows.size, self.columns.size):
            raise ValueError(f"scores {self.scores.shape} do not fit axes ({self.rows.size}, {self.columns.size})")
        for axis in (self.rows, self.columns):
            if axis.size % axis.clusters:
                raise ValueError(f"{axis.clusters} clusters do not divide {axis.size} entries")
        least = max(self.rows.clusters, self.columns.clusters)
        if not least <= self.blocks <= self.rows.clusters * self.columns.clusters:
            raise ValueError(f"{self.blocks} blocks cannot reach {least} clusters")

    @property
    def density(self) -> float:
        """Share of the entries that is kept."""
        return self.blocks / (self.rows.clusters * self.columns.clusters)


@dataclass(frozen=True)
class Pivots:
    """What a search found.

    Attributes:
        orders: Channel at each position, by slot.
        kept: Kept blocks by matrix, ``[row clusters, column clusters]``.
        retained: Share of its scores that each matrix retains.
        trace: Sum of these shares after each sweep; it never falls.
    """

    orders: tuple[Integers, ...]
    kept: tuple[Booleans, ...]
    retained: tuple[float, ...]
    trace: tuple[float, ...]

    @property
    def total(self) -> float:
        """Sum of the retained shares."""
        return float(sum(self.retained))


def mask(matrix: Matrix, orders: Sequence[Integers], kept: Booleans) -> Booleans:
    """Return which entries of a matrix are kept.

    Args:
        matrix: The matrix.
        orders: Channel at each position, by slot.
        kept: Kept blocks.

    Returns:
        ``[rows, columns]`` in the matrix's own order.
    """
    rows, columns = matrix.rows.clusters_of_entries(orders), matrix.columns.clusters_of_entries(orders)
    found: Booleans = kept[rows[:, None], columns[None, :]]
    return found


def make_single_matrix(scores: Floats, structure: Structure, clusters: tuple[int, int], blocks: int) -> Matrix:
    """Make a matrix whose rows (slot 0) and columns (slot 1) are ordered freely.

    Args:
        scores: ``[rows, columns]``.
        structure: Which blocks may be kept.
        clusters: Clusters of rows and of columns.
        blocks: How many blocks are kept.

    Returns:
        The matrix; ``search([matrix], scores.shape)`` pivots it.
    """
    rows, columns = (Axis((Part(slot, scores.shape[slot]),), clusters[slot]) for slot in (0, 1))
    return Matrix(scores, rows, columns, structure, blocks)
