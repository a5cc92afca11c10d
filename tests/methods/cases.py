"""Tiny networks and data for the tests of methods: deterministic, a few thousand weights at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.contract.data import Batch
from methods.network.layers import ZeroPadShortcut

CLASSES = 4


@dataclass(frozen=True)
class TensorSplit:
    """A data set in memory.

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
        return len(self.labels)

    def to(self, device: str) -> TensorSplit:
        return TensorSplit(self.inputs.to(device), self.labels.to(device), self.noise)

    def steps(self, batch_size: int) -> int:
        return max(1, self.examples // batch_size)

    def epoch(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
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
        yield from zip(self.inputs.split(batch_size), self.labels.split(batch_size), strict=True)


def blobs(
    shape: tuple[int, ...], examples: int, seed: int = 0, noise: float = 0.1, dtype: torch.dtype = torch.float32
) -> TensorSplit:
    """Noisy copies of one random pattern per class; the patterns are the same for every ``seed``."""
    patterns = torch.randn((CLASSES, *shape), generator=torch.Generator().manual_seed(12345), dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(examples) % CLASSES
    inputs = patterns[labels] + 0.5 * torch.randn((examples, *shape), generator=generator, dtype=dtype)
    return TensorSplit(inputs, labels, noise)


def plain_net() -> nn.Module:
    """Convolutions with biases, no norms."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 16, 16),
        nn.ReLU(),
        nn.Linear(16, CLASSES),
    )


def conv_bn(inputs: int, outputs: int, stride: int = 1, groups: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def vgg_net() -> nn.Module:
    """A VGG with batch norm."""
    return nn.Sequential(
        conv_bn(3, 8),
        nn.MaxPool2d(2),
        conv_bn(8, 12),
        nn.MaxPool2d(2),
        conv_bn(12, 16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


class Block(nn.Module):
    """Basic residual block; ``shortcut`` is a projection, zero padding or the identity."""

    def __init__(self, inputs: int, outputs: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if projection:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        elif stride > 1:
            self.shortcut = ZeroPadShortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def _residual(projection: bool) -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 8),
        Block(8, 8, 1, projection=False),
        Block(8, 16, 2, projection),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


def projection_net() -> nn.Module:
    """Residual, with a projection where the width changes."""
    return _residual(projection=True)


def zero_pad_net() -> nn.Module:
    """Residual, with :class:`ZeroPadShortcut` where the width changes."""
    return _residual(projection=False)


def grouped_net() -> nn.Module:
    """A grouped convolution between two plain ones."""
    return nn.Sequential(
        conv_bn(3, 16),
        conv_bn(16, 16, groups=2),
        conv_bn(16, 16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen, depthwise, project, add."""

    def __init__(self, inputs: int, outputs: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.body = nn.Sequential(
            conv_bn(inputs, hidden, kernel=1),
            conv_bn(hidden, hidden, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.add = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.add else y


def depthwise_net() -> nn.Module:
    """A small MobileNetV2."""
    return nn.Sequential(
        conv_bn(3, 8, stride=2),
        InvertedResidual(8, 8, 2),
        InvertedResidual(8, 12, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, CLASSES),
    )


def linear_net() -> nn.Module:
    """Linear layers only, on images."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 64, 24), nn.Tanh(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, CLASSES)
    )


IMAGE = (3, 8, 8)
NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain_net,
    "vgg": vgg_net,
    "projection": projection_net,
    "zero_pad": zero_pad_net,
    "grouped": grouped_net,
    "depthwise": depthwise_net,
    "linear": linear_net,
}


def seeded(build: Callable[[], nn.Module], seed: int = 0, trained: bool = False) -> nn.Module:
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
