"""The data a method is given: one protocol, implemented by ``search.tasks``.

All randomness of an epoch (order and augmentation) is a function of one integer seed and the index of the
batch. A run that is stopped and continued in the middle of an epoch therefore sees the same batches as one
that was never stopped, without storing generator states.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from methods.contract.inputs import Target

Batch = tuple[Any, Target]
"""Inputs (:data:`methods.contract.inputs.Inputs`: a tensor, a tuple or a dict of tensors), and what the outputs are
compared with; the first dimension of every tensor is the batch."""


class Split(Protocol):
    """One part (train, validation or test) of a data set."""

    @property
    def examples(self) -> int:
        """How many examples the split holds."""

    def to(self, device: str) -> Split:
        """Return the split with its batches on a device.

        Args:
            device: ``"cpu"``, ``"cuda"`` and so on.

        Returns:
            Itself, or a copy that lives there.
        """

    def steps(self, batch_size: int) -> int:
        """Return how many batches one shuffled epoch has (an incomplete last batch is left out).

        Args:
            batch_size: Examples per batch.

        Returns:
            Batches per epoch, at least 1.
        """

    def epoch(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Yield one epoch in random order, augmented where the data set says so.

        Args:
            batch_size: Examples per batch.
            seed: Decides order and augmentation entirely.
            start: Index of the first batch to yield (to continue in the middle of an epoch).

        Yields:
            Inputs (normalised; a tensor ``[batch, ...]``, or a tuple or dict of such tensors) and targets (labels
            ``[batch]``, int64, where there are classes), on the device.
        """

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield every example once, in stored order, never augmented.

        Args:
            batch_size: Examples per batch; the last batch may be smaller.

        Yields:
            Inputs (normalised; a tensor ``[batch, ...]``, or a tuple or dict of such tensors) and targets (labels
            ``[batch]``, int64, where there are classes), on the device.
        """
