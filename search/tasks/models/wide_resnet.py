"""Wide residual networks (Zagoruyko, Komodakis 2016, arXiv 1605.07146).

Pre-activation blocks: batch norm and ReLU come before each convolution. Where the shape changes, the shortcut
is a 1x1 convolution of the activated input, as in the authors' code; there is no dropout, as in the paper's
networks for CIFAR without "dropout" in their names.
"""

from __future__ import annotations

from torch import Tensor, nn

from search.tasks.models.initialise import initialise_he_normal, seed_defaults


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, beside a shortcut.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block.

        Args:
            x: Sums of earlier blocks, not activated, ``[batch, in_channels, height, width]``.

        Returns:
            ``[batch, out_channels, height / stride, width / stride]``, rounded up, not activated.
        """
        active = self.relu(self.bn1(x))
        out = self.conv2(self.relu(self.bn2(self.conv1(active))))
        return out + (x if self.shortcut is None else self.shortcut(active))  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """Wide residual network of three stages.

    Args:
        blocks: Blocks per stage.
        widen: Times the widths of 16, 32 and 64 channels.
        classes: Number of classes.
        channels: Channels of the images.
    """

    def __init__(self, blocks: int, widen: int, classes: int, channels: int) -> None:
        super().__init__()
        first, second, third = 16 * widen, 32 * widen, 64 * widen
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.layer1 = _stage(blocks, 16, first, 1)
        self.layer2 = _stage(blocks, first, second, 2)
        self.layer3 = _stage(blocks, second, third, 2)
        self.bn = nn.BatchNorm2d(third)
        self.relu = nn.ReLU()
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
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.fc(self.pool(self.relu(self.bn(x))).flatten(1))  # type: ignore[no-any-return]


def _stage(blocks: int, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    first = PreActivationBlock(in_channels, out_channels, stride)
    rest = (PreActivationBlock(out_channels, out_channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def wrn28_10(classes: int, channels: int = 3, seed: int = 0) -> WideResNet:
    """Build WRN-28-10: 36.5 M parameters and 5.2 G multiply–accumulates at 32 px.

    Args:
        classes: Number of classes.
        channels: Channels of the images.
        seed: Decides the initial weights.

    Returns:
        The network.
    """
    with seed_defaults(seed):
        return WideResNet(4, 10, classes, channels)
