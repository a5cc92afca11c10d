"""Regression with two inputs: a small image and four numbers; the network gives two numbers.

The image shows a bright spot, the numbers are measurements beside it; to be predicted are the spot's distance from the
middle and a mixture of both inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TwoInputs(nn.Module):
    """Convolutions for the image, a layer for the numbers, and a common head.

    Args:
        outputs: How many numbers are predicted.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        self.numbers = nn.Sequential(nn.Linear(4, 32), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(32 * 16 + 32, 64), nn.ReLU(), nn.Linear(64, outputs))

    def forward(self, image: Tensor, numbers: Tensor) -> Tensor:
        """Predict.

        Args:
            image: ``[batch, 1, 16, 16]``.
            numbers: ``[batch, 4]``.

        Returns:
            ``[batch, outputs]``.
        """
        both = torch.cat([self.image(image), self.numbers(numbers)], dim=1)
        predicted: Tensor = self.head(both)
        return predicted


def network(outputs: int) -> nn.Module:
    """Build the network.

    Args:
        outputs: How many numbers are predicted.

    Returns:
        The network.
    """
    return TwoInputs(outputs)


def data() -> tuple[dict[str, Tensor], Tensor]:
    """Draw examples.

    Returns:
        Inputs by the names of the network's arguments, and targets ``[800, 2]``.
    """
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(800, 2, generator=generator) * 10 + 3
    grid = torch.arange(16.0)
    rows, columns = grid[None, :, None] - places[:, 0, None, None], grid[None, None, :] - places[:, 1, None, None]
    image = torch.exp(-(rows**2 + columns**2) / 4)[:, None]
    numbers = torch.randn(800, 4, generator=generator)
    distance = (places - 8).norm(dim=1) / 4
    mixture = numbers[:, 0] * distance + numbers[:, 1]
    targets = torch.stack([distance, mixture], dim=1)
    return {"image": image, "numbers": numbers}, targets
