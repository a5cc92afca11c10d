"""How images are made ready for a network: side, crop, interpolation, mean and standard deviation.

Trained weights expect the format that they were trained with. Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageFormat:
    """How images of a folder become inputs.

    Attributes:
        side: Side of the square that the network sees, in pixels; None for the usual one, less for smaller images.
        mean: Mean of each channel, of values from 0 to 1.
        std: Standard deviation of each channel, likewise.
        interpolation: ``"bilinear"``, ``"bicubic"``, ``"nearest"``, ``"box"``, ``"hamming"`` or ``"lanczos"``.
        crop: Side of the square as a share of the shorter side of the resized image.
    """

    side: int | None = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    crop: float = 7 / 8


IMAGENET = ImageFormat()
"""The format of torchvision's first weights: ImageNet's statistics."""

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
