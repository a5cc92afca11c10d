"""A loaded data set: its three parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from methods.contract.data import Split
from methods.contract.inputs import Inputs


class StoredSplit(Split, Protocol):
    """A split that knows what it holds."""

    def fingerprint(self) -> str:
        """Return a hash of what the split holds.

        Returns:
            Hexadecimal digits; equal for equal content.
        """


@dataclass(frozen=True)
class Data:
    """A data set in three parts.

    Attributes:
        name: The name it was asked for by.
        outputs: Number of classes, or of numbers to predict: what a network is built with.
        train: What networks are trained on.
        validation: What search and method decisions look at.
        test: What is looked at once, for the finished front.
        example: One training input, normalised and not augmented, ``[1, channels, ...]`` (or a tuple or dict of such
            tensors), on the CPU.
    """

    name: str
    outputs: int
    train: StoredSplit
    validation: StoredSplit
    test: StoredSplit
    example: Inputs
