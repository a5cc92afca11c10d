"""VGG with batch norm for small images (Simonyan, Zisserman 2015, arXiv 1409.1556).

The convolutions of configurations D (13) and E (16), each with batch norm, and the small classifier of two
linear layers that the pruning literature uses at 32 px (Li et al. 2017, arXiv 1608.08710): VGG-16 has 15.0 M
parameters and 313 M multiply–accumulates. Convolutions have no bias; batch norm would cancel it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from search.tasks.models.initialise import initialise_he_normal, seed_defaults

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the five stages; each ends in 2x2 max pooling."""


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, then two linear layers.

    Args:
        depths: Convolutions in each of the five stages.
        classes: Number of classes.
        channels: Channels of the images.
    """

    def __init__(self, depths: Sequence[int], classes: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, depth in zip(WIDTHS, depths, strict=True):
            for _ in range(depth):
                convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
                layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2, ceil_mode=True))  # rounds up, so that 28 px pass as well
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)  # 1x1 already at 32 px
        self.classifier = nn.Sequential(
            nn.Linear(channels, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, classes)
        )
        initialise_he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify.

        Args:
            x: Images ``[batch, channels, height, width]``.

        Returns:
            Logits ``[batch, classes]``.
        """
        return self.classifier(self.pool(self.features(x)).flatten(1))  # type: ignore[no-any-return]


def vgg16(classes: int, channels: int = 3, seed: int = 0) -> VGG:
    """Build VGG-16: 15.0 M parameters and 313 M multiply–accumulates at 32 px.

    Args:
        classes: Number of classes.
        channels: Channels of the images.
        seed: Decides the initial weights.

    Returns:
        The network.
    """
    with seed_defaults(seed):
        return VGG((2, 2, 3, 3, 3), classes, channels)


def vgg19(classes: int, channels: int = 3, seed: int = 0) -> VGG:
    """Build VGG-19: 20.3 M parameters and 398 M multiply–accumulates at 32 px.

    Args:
        classes: Number of classes.
        channels: Channels of the images.
        seed: Decides the initial weights.

    Returns:
        The network.
    """
    with seed_defaults(seed):
        return VGG((2, 2, 4, 4, 4), classes, channels)
