"""Tiny networks and data for the tests of methods: deterministic, a few thousand weights at most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from methods.contract.analyses import Settings, Tensors
from methods.contract.sample_problem import CLASSES, IMAGE, TensorSplit, blobs, find_anatomy
from methods.contract.sample_problem import build_seeded as seeded
from methods.network.layers import ZeroPadShortcut

__all__ = ["CLASSES", "IMAGE", "NETS", "TensorSplit", "blobs", "find_anatomy", "seeded"]


def make_plain_net() -> nn.Module:
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


def make_zero_pad_net() -> nn.Module:
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


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": make_plain_net,
    "vgg": vgg_net,
    "projection": projection_net,
    "zero_pad": make_zero_pad_net,
    "grouped": grouped_net,
    "depthwise": depthwise_net,
    "linear": linear_net,
}


@dataclass
class Remembered:
    """Analyses that are computed once, and how often each was."""

    found: dict[str, Tensors] = field(default_factory=dict)
    computed: list[str] = field(default_factory=list)

    def get(self, name: str, settings: Settings, compute: Callable[[], Tensors]) -> Tensors:
        key = f"{name} {sorted(settings.items())}"
        if key not in self.found:
            self.computed.append(name)
            self.found[key] = compute()
        return self.found[key]
