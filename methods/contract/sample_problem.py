"""A small problem to test methods on: a network of three convolutions, and images in four classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from methods.contract.data import Batch
from methods.network.anatomy import Anatomy
from methods.network.channels import channel_groups
from methods.network.cost import CostModel

CLASSES = 4
IMAGE = (3, 8, 8)


@dataclass(frozen=True)
class TensorSplit:
    """A data set in memory, small and deterministic; a :class:`methods.contract.data.Split`.

    Attributes:
        inputs: ``[examples, ...]``.
        labels: ``[examples]``.
        noise: Standard deviation of what augmentation adds.
    """

    inputs: Tensor
    labels: Tensor
    noise: float = 0.0

    @property
    def examples(self) -> int:
        """How many examples the split holds."""
        return len(self.labels)

    def to(self, device: str) -> TensorSplit:
        """Return the split on a device.

        Args:
            device: Which one.

        Returns:
            A copy there.
        """
        return TensorSplit(self.inputs.to(device), self.labels.to(device), self.noise)

    def steps(self, batch_size: int) -> int:
        """Return how many batches one shuffled epoch has.

        Args:
            batch_size: Examples per batch.

        Returns:
            Batches, at least 1.
        """
        return max(1, self.examples // batch_size)

    def epoch(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Yield one epoch in random order, with noise.

        Args:
            batch_size: Examples per batch.
            seed: Decides order and noise.
            start: Index of the first batch.

        Yields:
            Inputs and labels.
        """
        order = torch.randperm(self.examples, generator=torch.Generator().manual_seed(seed))
        for index in range(start, self.steps(batch_size)):
            rows = order[index * batch_size : (index + 1) * batch_size]
            noise = torch.randn(
                (len(rows), *self.inputs.shape[1:]),
                generator=torch.Generator().manual_seed((seed + index + 1) % 2**63),
                dtype=self.inputs.dtype,
            )
            yield self.inputs[rows] + self.noise * noise.to(self.inputs.device), self.labels[rows]

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield every example once, in stored order.

        Args:
            batch_size: Examples per batch.

        Yields:
            Inputs and labels.
        """
        yield from zip(self.inputs.split(batch_size), self.labels.split(batch_size), strict=True)


def blobs(
    shape: tuple[int, ...], examples: int, seed: int = 0, noise: float = 0.1, dtype: torch.dtype = torch.float32
) -> TensorSplit:
    """Make noisy copies of one random pattern per class; the patterns are the same for every ``seed``.

    Args:
        shape: Shape of one example.
        examples: How many.
        seed: Decides the noise.
        noise: Standard deviation of what augmentation adds.
        dtype: Kind of numbers.

    Returns:
        The examples, classes in turn.
    """
    patterns = torch.randn((CLASSES, *shape), generator=torch.Generator().manual_seed(12345), dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(examples) % CLASSES
    inputs = patterns[labels] + 0.5 * torch.randn((examples, *shape), generator=generator, dtype=dtype)
    return TensorSplit(inputs, labels, noise)


def chain_network() -> nn.Module:
    """Build three convolutions with batch norms, and a classifier.

    Returns:
        A network for images of 3 x 8 x 8.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 8), (8, 12), (12, 16)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES))


class ResidualNetwork(nn.Module):
    """A convolution, two residual blocks that keep its shape, and a classifier, for images of 3 x 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.block1, self.block2 = self._block(), self._block()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))

    @staticmethod
    def _block() -> nn.Sequential:
        layers: list[nn.Module] = []
        for inputs, outputs in ((8, 12), (12, 8)):
            layers += [nn.ReLU(), nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images.

        Args:
            x: ``[batch, 3, 8, 8]``.

        Returns:
            Logits ``[batch, classes]``.
        """
        x = self.stem(x)
        for block in (self.block1, self.block2):
            x = x + block(x)
        return self.head(x)  # type: ignore[no-any-return]


def build_seeded(build: Callable[[], nn.Module], seed: int = 0, trained: bool = False) -> nn.Module:
    """Build a network with weights, and batch-norm statistics, that depend on the seed alone.

    Args:
        build: Makes the network.
        seed: Decides every number in it.
        trained: Whether batch norms get random affine parameters and statistics, as if trained.

    Returns:
        The network in eval mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
        for module in model.modules() if trained else ():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.3, 0.3)
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@lru_cache
def find_anatomy(network: Callable[[], nn.Module]) -> Anatomy:
    """Find channel groups and cost of a network once, however many problems are made of it.

    Args:
        network: Builds a network for images of :data:`IMAGE`.

    Returns:
        What a :class:`methods.contract.method.Problem` takes as known.
    """
    model, example = build_seeded(network), torch.zeros(1, *IMAGE)
    groups = channel_groups(model, example)
    return Anatomy.from_groups(model, example, (), groups, CostModel(model, example, groups))
