"""MobileNetV2 for small images (Sandler, Howard, Zhu, Zhmoginov, Chen 2018, arXiv 1801.04381).

The form common at 32 px, of github.com/kuangliu/pytorch-cifar: stem and second stage have stride 1 instead of
2, ReLU takes the place of ReLU6, the first block expands as well (once), and blocks of stride 1 that change
the number of channels have a projection shortcut. 2.30 M parameters with 10 classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from search.tasks.models.initialise import initialise_he_normal, seed_defaults

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and stride of each stage (table 2 of the paper, second stride changed)."""


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter each channel, project by a linear 1x1 convolution.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        expansion: How many times the channels are expanded in between.
        stride: Stride of the depthwise convolution; a shortcut exists only at stride 1.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = expansion * in_channels
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module | None = None
        if stride == 1 and in_channels == out_channels:
            self.shortcut = nn.Identity()
        elif stride == 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block.

        Args:
            x: Activations ``[batch, in_channels, height, width]``.

        Returns:
            ``[batch, out_channels, height / stride, width / stride]``, rounded up, without ReLU.
        """
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return out if self.shortcut is None else out + self.shortcut(x)  # type: ignore[no-any-return]


class MobileNetV2(nn.Module):
    """Stem, seven stages of inverted residuals, a wide 1x1 convolution, one linear layer.

    Args:
        classes: Number of classes.
        channels: Channels of the images.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.relu = nn.ReLU()
        blocks: list[nn.Module] = []
        width = 32
        for expansion, out_channels, depth, stride in STAGES:
            for number in range(depth):
                blocks.append(InvertedResidual(width, out_channels, expansion, stride if number == 0 else 1))
                width = out_channels
        self.layers = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(width, 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(1280, classes)
        initialise_he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify.

        Args:
            x: Images ``[batch, channels, height, width]``.

        Returns:
            Logits ``[batch, classes]``.
        """
        x = self.layers(self.relu(self.bn1(self.conv1(x))))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.fc(self.pool(x).flatten(1))  # type: ignore[no-any-return]


def mobilenetv2(classes: int, channels: int = 3, seed: int = 0) -> MobileNetV2:
    """Build MobileNetV2 for 32 px: 2.30 M parameters and 91 M multiply–accumulates.

    Args:
        classes: Number of classes.
        channels: Channels of the images.
        seed: Decides the initial weights.

    Returns:
        The network.
    """
    with seed_defaults(seed):
        return MobileNetV2(classes, channels)
