"""Which positions of which dimension belong together: labels on every dimension of every tensor.

A *class* is a set of positions, of dimensions of any tensors, that can only be removed together. Each dimension of a
tensor carries an array with the class of each of its positions, or None where nothing can be removed (images have
rows, batches have examples). Operations move, join and unite classes (union-find); a class that meets something of
a fixed size is *pinned*, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Classes = NDArray[np.int64]
"""Class of each position; 0 for a position that stays."""


@dataclass(frozen=True)
class Dim:
    """Labels of one dimension of a tensor.

    Attributes:
        labels: Class of each position; None where no position can be removed.
        batch: Whether examples of the batch are counted along it, alone or with something else.
        parts: Which splits of a dimension it came from, and as which part: what attention calls its heads is seen
            only later, when it multiplies them one by one.
        sources: Dimensions of parameters that it was read from, as long as nothing depends on the input.
    """

    labels: Classes | None = None
    batch: bool = False
    parts: frozenset[tuple[int, int, int]] = frozenset()
    sources: frozenset[tuple[str, int]] = frozenset()

    def relabel(self, labels: Classes | None) -> Dim:
        """Return the same dimension with other labels."""
        return replace(self, labels=labels)


FREE = Dim()
"""A dimension without anything to remove."""


def test_for(members: Iterable[int]) -> Callable[[Classes], NDArray[np.bool_]]:
    """Make a test of whether classes are of a set: a look into a table, however many are asked for.

    Args:
        members: The set.

    Returns:
        A function from an array of classes to an array of truth values.
    """
    numbers = np.fromiter(members, dtype=np.int64)
    last = int(numbers.max(initial=-1)) + 1  # stands for all that are larger
    table = np.zeros(last + 1, dtype=bool)
    table[numbers] = True

    def test(labels: Classes) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = table[np.minimum(labels, last)]
        return found

    return test


class UnionFind:
    """Classes under union, with the reason why a class must stay."""

    def __init__(self) -> None:
        self._parent = np.zeros(1, dtype=np.int64)
        self._count = 1
        self._solid = np.zeros(1, dtype=bool)
        self.pinned: dict[int, str] = {}

    def make_classes(self, size: int, solid: bool = True) -> Classes:
        """Make new classes.

        Args:
            size: How many.
            solid: Whether they are channels of a parameter or buffer, and not of something of any size.

        Returns:
            Their numbers, ``[size]``.
        """
        start = self._count
        self._count += size
        if self._count > len(self._parent):
            grown = np.arange(max(2 * len(self._parent), self._count), dtype=np.int64)
            grown[: len(self._parent)] = self._parent
            self._parent = grown
            self._solid = np.resize(np.append(self._solid, False), len(grown))
        self._solid[start : self._count] = solid
        return np.arange(start, start + size, dtype=np.int64)

    def find(self, labels: Classes) -> Classes:
        """Return the representative of each class.

        Args:
            labels: Classes, of any shape.

        Returns:
            Their representatives, of the same shape.
        """
        roots = self._parent[labels]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                break
            roots = above
        self._parent[labels] = roots
        return roots

    def union(self, left: Classes, right: Classes, why: str) -> None:
        """Unite classes pair by pair; what is united with class 0 is pinned.

        Args:
            left: Classes.
            right: As many.
            why: The reason, should a class be pinned by this.
        """
        left, right = np.ravel(left), np.ravel(right)
        a, b = self.find(left), self.find(right)
        differ = a != b
        if not differ.any():
            return
        pairs = np.unique(np.stack([a[differ], b[differ]], axis=1), axis=0)
        for one, other in pairs.tolist():
            first, second = self._root(one), self._root(other)
            if first == second:
                continue
            if first == 0 or second == 0:
                self.pinned.setdefault(first or second, why)
                continue
            low, high = min(first, second), max(first, second)
            self._parent[high] = low
            self._solid[low] |= self._solid[high]
            if high in self.pinned:
                self.pinned.setdefault(low, self.pinned[high])

    def _root(self, one: int) -> int:
        while (above := int(self._parent[one])) != one:
            one = above
        return one

    def pin(self, labels: Classes | None, why: str) -> None:
        """Pin classes.

        Args:
            labels: Classes; None for nothing.
            why: The reason.
        """
        if labels is not None:
            for root in np.unique(self.find(np.ravel(labels))).tolist():
                if root:
                    self.pinned.setdefault(root, why)

    def has_solid(self, labels: Classes) -> bool:
        """Tell whether some of the classes are channels of a parameter or buffer.

        Args:
            labels: Classes.

        Returns:
            Whether there is one.
        """
        return bool(self._solid[self.find(labels)].any())

    def live(self, labels: Classes | None) -> Classes | None:
        """Return representatives, or None where every class is pinned.

        Args:
            labels: Classes.

        Returns:
            Their representatives.
        """
        if labels is None:
            return None
        roots = self.find(labels)
        if all(root == 0 or root in self.pinned for root in np.unique(roots).tolist()):
            return None
        return roots

    def unite(self, labels: Iterable[Classes | None], why: str) -> Classes | None:
        """Unite dimensions of the same size that an operation puts side by side.

        Args:
            labels: Their labels; None for one of a fixed size, which pins the others.
            why: The reason, should a class be pinned by this.

        Returns:
            The labels of all of them.
        """
        every = list(labels)
        found = [each for each in every if each is not None]
        if not found:
            return None
        for other in found[1:]:
            self.union(found[0], other, why)
        if len(found) < len(every):
            self.pin(found[0], why)
        return found[0]

    def tie(self, rows: Classes, why: str) -> Classes:
        """Unite all classes in each row.

        Args:
            rows: ``[rows, columns]``.
            why: The reason, should a class be pinned by this.

        Returns:
            One class per row.
        """
        for column in range(1, rows.shape[1]):
            self.union(rows[:, 0], rows[:, column], why)
        return rows[:, 0]
