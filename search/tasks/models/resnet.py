"""Residual networks for small images (He, Zhang, Ren, Sun 2016, arXiv 1512.03385, section 4.2).

A stem, three stages of basic blocks at full, half and quarter resolution, global average pooling, one linear
layer. The CIFAR networks have stages of 16, 32 and 64 channels and parameter-free shortcuts (option A). Two
variants use projection shortcuts (option B): the ResNet-32 of four times the widths in EigenDamage (Wang,
Grosse, Fidler, Zhang 2019, arXiv 1905.05934), and a ResNet-8 for 8x8 digits.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from methods.network.layers import ZeroPadShortcut
from search.tasks.models.initialise import initialise_he_normal, seed_defaults

Shortcut = Callable[[int, int, int], nn.Module]


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Build a projection shortcut (option B): 1x1 convolution and batch norm.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        stride: Every how many pixels one is kept, in both directions.

    Returns:
        The shortcut.
    """
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        stride: Stride of the first convolution and of the shortcut.
        shortcut: Builds the shortcut where the shape changes; elsewhere it is the identity.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block.

        Args:
            x: Activations ``[batch, in_channels, height, width]``.

        Returns:
            ``[batch, out_channels, height / stride, width / stride]``, rounded up.
        """
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.shortcut(x))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """Residual network of three stages.

    Args:
        blocks: Blocks per stage.
        widths: Channels of the three stages; the stem has as many as the first.
        classes: Number of classes.
        channels: Channels of the images.
        shortcut: Builds the shortcuts between stages.
    """

    def __init__(
        self, blocks: int, widths: tuple[int, int, int], classes: int, channels: int, shortcut: Shortcut
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        self.layer1 = _stage(blocks, first, first, 1, shortcut)
        self.layer2 = _stage(blocks, first, second, 2, shortcut)
        self.layer3 = _stage(blocks, second, third, 2, shortcut)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, classes)
        initialise_he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify.

        Args:
            x: Images ``[batch, channels, height, width]``.

        Returns:
            Logits ``[batch, classes]``.
        """
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.pool(x).flatten(1))  # type: ignore[no-any-return]


def _stage(blocks: int, in_channels: int, out_channels: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride, shortcut)
    rest = (BasicBlock(out_channels, out_channels, 1, shortcut) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def _cifar(depth: int, classes: int, channels: int, seed: int) -> ResNet:
    with seed_defaults(seed):
        return ResNet((depth - 2) // 6, (16, 32, 64), classes, channels, ZeroPadShortcut)


def resnet20(classes: int, channels: int = 3, seed: int = 0) -> ResNet:
    """Build ResNet-20: 0.27 M parameters and 40.6 M multiply–accumulates at 32 px.

    Args:
        classes: Number of classes.
        channels: Channels of the images.
        seed: Decides the initial weights.

    Returns:
        The network.
    """
    return _cifar(20, classes, channels, seed)


def resnet32(classes: int, channels: int = 3, seed: int = 0) -> ResNet:
    """Build ResNet-32: 0.46 M parameters and 68.9 M multiply–accumulates at 32 px.

    Args:
        classes: Number of classes.
        channels: Channels of the images.
        seed: Decides the initial weights.

    Returns:
        The network.
    """
    return _cifar(32, classes, channels, seed)


def resnet56(classes: int, channels: int = 3, seed: int = 0) -> ResNet:
    """Build ResNet-56: 0.85 M parameters and 125.5 M multiply–accumulates at 32 px.

    Args:
        classes: Number of classes.
        channels: Channels of the images.
        seed: Decides the initial weights.

    Returns:
        The network.
    """
    return _cifar(56, classes, channels, seed)


def resnet110(classes: int, channels: int = 3, seed: int = 0) -> ResNet:
    """Build ResNet-110: 1.73 M parameters and 253 M multiply–accumulates at 32 px.

    Args:
        classes: Number of classes.
        channels: Channels of the images.
        seed: Decides the initial weights.

    Returns:
        The network.
    """
    return _cifar(110, classes, channels, seed)


def resnet32_wide(classes: int, channels: int = 3, seed: int = 0) -> ResNet:
    """Build the ResNet-32 of EigenDamage: stages of 64, 128 and 256 channels, projection shortcuts.

    Args:
        classes: Number of classes.
        channels: Channels of the images.
        seed: Decides the initial weights.

    Returns:
        The network.
    """
    with seed_defaults(seed):
        return ResNet(5, (64, 128, 256), classes, channels, projection)


def digits_resnet(classes: int, channels: int = 1, seed: int = 0) -> ResNet:
    """Build the network for 8x8 digits: one block per stage, projection shortcuts, 78 k parameters.

    Args:
        classes: Number of classes.
        channels: Channels of the images.
        seed: Decides the initial weights.

    Returns:
        The network.
    """
    with seed_defaults(seed):
        return ResNet(1, (16, 32, 64), classes, channels, projection)
