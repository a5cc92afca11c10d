"""Normalising inputs channel by channel, on the device they are on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Normalisation:
    """Subtracts the mean of each channel and divides by its standard deviation.

    Args:
        mean: Mean of each channel; for uint8 inputs in units of 255.
        std: Standard deviation of each channel, likewise.
        like: Inputs of the kind to be normalised, ``[examples, channels, ...]``: their type, rank and device
            count.

    Raises:
        ValueError: If there is not one mean and one standard deviation per channel.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], like: Tensor) -> None:
        if like.ndim < 2 or not like.shape[1] == len(mean) == len(std):
            raise ValueError(f"inputs {list(like.shape)} need a mean and a std per channel, not {mean}, {std}")
        unit = 255.0 if like.dtype == torch.uint8 else 1.0
        shape = (-1, *[1] * (like.ndim - 2))
        middle = torch.tensor(mean, dtype=torch.float64).view(shape)
        spread = torch.tensor(std, dtype=torch.float64).view(shape)
        # (x / unit - mean) / std = x * scale + shift: two passes over the data instead of three
        self.scale = (1 / (unit * spread)).to(like.device, torch.float32)
        self.shift = (-middle / spread).to(like.device, torch.float32)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Normalise.

        Args:
            inputs: ``[batch, channels, ...]``; not changed.

        Returns:
            ``[batch, channels, ...]``, float32.
        """
        # Always a new tensor, so that the in-place steps do not touch the data.
        return inputs.to(torch.float32, copy=True).mul_(self.scale).add_(self.shift)
