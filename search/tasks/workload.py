"""A workload: which network is pruned, and on what data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from search.tasks.data.parts import Data
from search.tasks.data.sets import load_data
from search.tasks.data.sizes import SplitSizes
from search.tasks.models import build_model


@dataclass(frozen=True)
class Workload:
    """A network and its data, on the CPU.

    Attributes:
        model: A name of ours, ``torchvision:NAME`` or ``package.module:function``.
        data: The three parts.
        split: The sizes and the seed they were drawn by.
        seed: Decides the initial weights.
        weights: Trained weights of the dense network: a file or a torchvision enum; ``None`` if it is trained.
    """

    model: str
    data: Data
    split: SplitSizes
    seed: int
    weights: str | None = None

    @classmethod
    def load(
        cls, model: str, data: str, data_root: Path, split: SplitSizes, seed: int, weights: str | None = None
    ) -> Workload:
        """Load the data; networks are built by :meth:`build`.

        Args:
            model: A name of ours, ``torchvision:NAME`` or ``package.module:function``.
            data: A name of ours or ``package.module:function``.
            data_root: Where data sets lie, or are downloaded to.
            split: Sizes of the parts, and the seed that draws them.
            seed: Decides the initial weights.
            weights: A weight file or a torchvision enum; ``None`` to train.

        Returns:
            The workload.
        """
        return cls(model, load_data(data, data_root, split), split, seed, weights)

    @property
    def example(self) -> Tensor:
        """One input, ``[1, channels, ...]``."""
        return self.data.example

    def build(self) -> nn.Module:
        """Build the network; every call gives the same one.

        Returns:
            The network in training mode, with the user's weights or initial ones.
        """
        return build_model(self.model, self.data.classes, self.example.shape, self.seed, self.weights)
