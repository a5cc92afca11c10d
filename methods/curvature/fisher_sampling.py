"""What a Fisher analysis looks at: which inputs, which targets, how many; all from a seed of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from methods.contract.analyses import Progress, Settings, ignore_progress
from methods.contract.data import Batch, Split
from methods.contract.inputs import batch_size, take
from methods.contract.recipe import derive_seed
from methods.curvature.fisher import Fisher


@dataclass(frozen=True)
class Sampling:
    """Which samples a Fisher matrix is estimated from.

    Attributes:
        fisher: Targets drawn from the network's own predictions, all outcomes weighted by them, or those of the data.
        labels: Labels drawn per input.
        samples: How many inputs.
        batch_size: How many at a time.
        seed: Decides inputs, their augmentation, and drawn labels.
    """

    fisher: Fisher
    labels: int
    samples: int
    batch_size: int
    seed: int

    @staticmethod
    def from_split(split: Split, fisher: Fisher, labels: int, samples: int, batch_size: int, seed: int) -> Sampling:
        """Describe a sampling with no more samples than there are.

        Args:
            split: Training data.
            fisher: Which labels.
            labels: Labels drawn per input.
            samples: How many inputs at most; one shuffled epoch has no more than all.
            batch_size: How many at a time.
            seed: Decides everything.

        Returns:
            The sampling. Those that look at the same things are equal.
        """
        batch_size = min(batch_size, split.examples)
        there = split.steps(batch_size) * batch_size
        return Sampling(fisher, labels if fisher == "mc" else 1, min(samples, there), batch_size, seed)

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """Return what decides an analysis, as JSON.

        Returns:
            All attributes.
        """
        settings: Settings = vars(self)
        return dict(settings)

    def generator(self) -> torch.Generator:
        """Return the source of drawn labels.

        Returns:
            A fresh CPU generator.
        """
        return torch.Generator().manual_seed(derive_seed(self.seed, 1))

    def batches(self, split: Split, what: str = "examples", progress: Progress = ignore_progress) -> Iterator[Batch]:
        """Yield the inputs.

        Args:
            split: Training data.
            what: What they are for.
            progress: Hears how many of the inputs have been worked on.

        Yields:
            Inputs and targets, ``samples`` in all.
        """
        left = self.samples
        for inputs, target in split.epoch(self.batch_size, derive_seed(self.seed, 0)):
            progress(what, self.samples - left, self.samples)
            yield take(inputs, slice(left)), take(target, slice(left))
            left -= batch_size(inputs)
            if left <= 0:
                return
