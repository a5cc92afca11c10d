"""Splits held in memory as one tensor; normalised and augmented in whole batches on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.contract.data import Batch
from methods.contract.recipe import derive_seed
from search.tasks.data.normalise import Normalisation


@dataclass(frozen=True)
class Augmentation:
    """What happens to training images.

    Attributes:
        padding: Black pixels added on every side before a crop of the old size at a random place; 0 for none.
        flip: Whether half of the images are mirrored, left to right.
    """

    padding: int = 0
    flip: bool = False


class TensorSplit:
    """One part of a data set as one tensor (a :class:`methods.contract.data.Split`).

    Args:
        inputs: ``[examples, channels, ...]``, uint8 or float32, on the device to compute on.
        labels: ``[examples]``, int64, on the same device.
        mean: Mean of each channel; for uint8 inputs in units of 255.
        std: Standard deviation of each channel; for uint8 inputs in units of 255.
        augmentation: What happens to the inputs of :meth:`epoch`; only for images ``[.., height, width]``.

    Raises:
        ValueError: If the tensors are empty or do not belong together.
    """

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation | None = None,
    ) -> None:
        if len(inputs) == 0 or labels.shape != (len(inputs),) or inputs.device != labels.device:
            raise ValueError(f"inputs {list(inputs.shape)} do not belong to labels {list(labels.shape)}")
        self.inputs, self.labels = inputs, labels
        self.augmentation = augmentation or Augmentation()
        self._mean, self._std = mean, std
        self._normalised = Normalisation(mean, std, inputs)

    @property
    def examples(self) -> int:
        """How many examples the split holds."""
        return len(self.labels)

    def to(self, device: str) -> TensorSplit:
        """Return the split on a device.

        Args:
            device: ``"cpu"``, ``"cuda"`` and so on.

        Returns:
            A split that shares what lies there already.
        """
        inputs, labels = self.inputs.to(device), self.labels.to(device)
        return TensorSplit(inputs, labels, self._mean, self._std, self.augmentation)

    def steps(self, batch_size: int) -> int:
        """Return how many batches one shuffled epoch has (an incomplete last batch is left out).

        Args:
            batch_size: Examples per batch; a split with fewer examples makes one batch of all.

        Returns:
            Batches per epoch, at least 1.
        """
        return max(1, self.examples // batch_size)

    def epoch(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Yield one epoch in random order, augmented.

        Random numbers are drawn on the CPU, so that every device sees the same batches.

        Args:
            batch_size: Examples per batch.
            seed: Decides order and augmentation entirely.
            start: Index of the first batch to yield.

        Yields:
            Inputs ``[batch, channels, ...]`` (float32, normalised) and labels ``[batch]`` (int64).
        """
        order = torch.randperm(self.examples, generator=torch.Generator().manual_seed(seed))
        order = order.to(self.labels.device)
        for step in range(start, self.steps(batch_size)):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            generator = torch.Generator().manual_seed(derive_seed(seed, step))
            images = augment(self.inputs[chosen], self.augmentation, generator)
            yield self._normalised(images), self.labels[chosen]

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield every example once, in stored order, never augmented.

        Args:
            batch_size: Examples per batch; the last batch may be smaller.

        Yields:
            Inputs ``[batch, channels, ...]`` (float32, normalised) and labels ``[batch]`` (int64).
        """
        for inputs, labels in zip(self.inputs.split(batch_size), self.labels.split(batch_size), strict=True):
            yield self._normalised(inputs), labels

    def fingerprint(self) -> str:
        """Return a hash of what the split holds.

        Returns:
            Hexadecimal digits; equal for equal inputs, labels, normalisation and augmentation.
        """
        digest = hashlib.sha256(repr((self.inputs.shape, self.inputs.dtype, self.augmentation)).encode())
        for tensor in (self.inputs, self.labels, self._normalised.scale, self._normalised.shift):
            digest.update(tensor.contiguous().cpu().numpy().data)
        return digest.hexdigest()


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Crop and mirror each image of a batch at random, all images at once.

    Args:
        images: ``[batch, channels, height, width]`` of any type.
        augmentation: What to do.
        generator: A CPU generator; how many numbers are drawn depends on the batch size alone.

    Returns:
        Images of the same shape and type.
    """
    if augmentation == Augmentation():
        return images
    batch, channels, height, width = images.shape
    padding = augmentation.padding
    corners = torch.randint(2 * padding + 1, (2, batch, 1), generator=generator)
    mirrored = torch.rand((batch, 1), generator=generator) < (0.5 if augmentation.flip else 0.0)
    top, left, mirrored = (t.to(images.device, non_blocking=True) for t in (*corners, mirrored))
    rows = torch.arange(height, device=images.device) + top
    columns = torch.arange(width, device=images.device)
    columns = torch.where(mirrored, width - 1 - columns, columns) + left
    # One gather over flattened pixels does crop and mirror together, without a loop over images.
    padded = F.pad(images, (padding,) * 4).flatten(2)
    pixels = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]
    index = pixels.view(batch, 1, height * width).expand(-1, channels, -1)
    return padded.gather(2, index).view(images.shape)
