"""A network and data of one's own, without any change to paretoprune's code.

    paretoprune sweep examples/own_network.toml

The configuration names the two functions below as ``examples.own_network:network`` and
``examples.own_network:data``; the folder that holds ``examples`` must be the working directory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

CLASSES = 4


def network(num_classes: int) -> nn.Module:
    """Build the network to be pruned.

    Args:
        num_classes: Number of classes.

    Returns:
        A network for images of 1 x 12 x 12 pixels.
    """
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, num_classes),
    )


def data() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw noisy images of a bar: horizontal, vertical, rising or falling.

    Returns:
        Images ``[800, 1, 12, 12]`` and labels ``[800]``; paretoprune splits them.
    """
    draw = np.random.default_rng(0)
    labels = np.arange(800) % CLASSES
    images = draw.integers(0, 90, size=(800, 1, 12, 12))
    steps = np.arange(12)
    for image, label in zip(images, labels, strict=True):
        place = draw.integers(2, 10)
        rows, columns = [(place, steps), (steps, place), (steps, steps), (steps, steps[::-1])][label]
        image[0, rows, columns] += 120
    return images.astype(np.uint8), labels.astype(np.int64)
