"""Splits held in memory as tensors; normalised and augmented in whole batches on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.contract.data import Batch
from methods.contract.inputs import (
    Inputs,
    Target,
    batch_size,
    get_first_tensor,
    leaves,
    map_tensors,
    move,
    take,
    tensors,
)
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


Augment = Callable[[Inputs, Target, torch.Generator], tuple[Inputs, Target]]
"""Changes a batch of training inputs and their targets at random."""


class TensorSplit:
    """One part of a data set as tensors (a :class:`methods.contract.data.Split`).

    Args:
        inputs: ``[examples, channels, ...]``, uint8 or float32, on the device to compute on; or a tuple or dict of such
            tensors.
        targets: Labels ``[examples]``, int64, or whatever the task takes, on the same device.
        mean: Mean of each channel; for uint8 inputs in units of 255. For several tensors one such sequence each, in
            order, or ``None`` for a tensor that is handed out as it is.
        std: Standard deviation of each channel, likewise.
        augmentation: What happens to the inputs of :meth:`epoch`; only for images ``[.., height, width]``.
        fill: Where targets are maps ``[examples, height, width]`` that are cropped and mirrored with the images: what
            is put outside; ``None`` for other targets.

    Raises:
        ValueError: If the tensors are empty or do not belong together.
    """

    def __init__(
        self,
        inputs: Inputs,
        targets: Target,
        mean: Sequence[Any],
        std: Sequence[Any],
        augmentation: Augmentation | Augment | None = None,
        fill: int | None = None,
    ) -> None:
        one, several = get_first_tensor(targets), tensors(inputs)
        lengths = {len(each) for each in (*several, one)}
        if lengths == {0} or len(lengths) > 1 or any(each.device != one.device for each in several):
            shapes = ", ".join(str(list(each.shape)) for each in several)
            raise ValueError(f"inputs {shapes} do not belong to labels {list(one.shape)}")
        self.inputs: Any = inputs  # one of the forms of Inputs
        self.targets, self.fill = targets, fill
        self.augmentation = augmentation or Augmentation()
        self._mean, self._std = mean, std
        given = [(mean, std)] if isinstance(inputs, Tensor) else zip(mean, std, strict=True)
        self._normalisations = [
            None if middle is None else Normalisation(middle, spread, each)
            for (middle, spread), each in zip(given, several, strict=True)
        ]

    @property
    def examples(self) -> int:
        """How many examples the split holds."""
        return batch_size(self.targets)

    def to(self, device: str) -> TensorSplit:
        """Return the split on a device.

        Args:
            device: ``"cpu"``, ``"cuda"`` and so on.

        Returns:
            A split that shares what lies there already.
        """
        inputs, targets = move(self.inputs, device), move(self.targets, device)
        return TensorSplit(inputs, targets, self._mean, self._std, self.augmentation, self.fill)

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
            Inputs (normalised) and targets.
        """
        order = torch.randperm(self.examples, generator=torch.Generator().manual_seed(seed))
        order = order.to(get_first_tensor(self.targets).device)
        for step in range(start, self.steps(batch_size)):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            generator = torch.Generator().manual_seed(derive_seed(seed, step))
            inputs, targets = self._augment(take(self.inputs, chosen), take(self.targets, chosen), generator)
            yield self._normalise(inputs), targets

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield every example once, in stored order, never augmented.

        Args:
            batch_size: Examples per batch; the last batch may be smaller.

        Yields:
            Inputs (normalised) and targets.
        """
        for begin in range(0, self.examples, batch_size):
            part = slice(begin, begin + batch_size)
            yield self._normalise(take(self.inputs, part)), take(self.targets, part)

    def fingerprint(self) -> str:
        """Return a hash of what the split holds.

        Returns:
            Hexadecimal digits; equal for equal inputs, targets, normalisation and augmentation.
        """
        names = list(self.inputs) if isinstance(self.inputs, Mapping) else []
        kinds = [part for each in tensors(self.inputs) for part in (each.shape, each.dtype)]
        digest = hashlib.sha256(repr((*kinds, self.augmentation, *names)).encode())
        found = leaves((self.inputs, self.targets))
        known = [each for each in self._normalisations if each is not None]
        for tensor in (*found, *(part for each in known for part in (each.scale, each.shift))):
            digest.update(tensor.contiguous().cpu().numpy().data)
        return digest.hexdigest()

    def _augment(self, inputs: Inputs, targets: Target, generator: torch.Generator) -> tuple[Inputs, Target]:
        if not isinstance(self.augmentation, Augmentation):
            return self.augmentation(inputs, targets, generator)
        if self.augmentation == Augmentation():
            return inputs, targets
        crop = RandomCrop(get_first_tensor(inputs), self.augmentation, generator)
        inputs = map_tensors(inputs, lambda tensor: crop(tensor) if crop.is_on_same_pixels(tensor) else tensor)
        if self.fill is not None:
            targets = crop(targets[:, None], self.fill)[:, 0]
        return inputs, targets

    def _normalise(self, inputs: Inputs) -> Inputs:
        known = iter(self._normalisations)

        def change(tensor: Tensor) -> Tensor:
            normalisation = next(known)
            return tensor if normalisation is None else normalisation(tensor)

        changed: Inputs = map_tensors(inputs, change)
        return changed


class RandomCrop:
    """One random crop and mirroring for each image of a batch, for all tensors that lie on the same pixels.

    Args:
        images: ``[batch, channels, height, width]``; only the shape counts.
        augmentation: What to do.
        generator: A CPU generator; how many numbers are drawn depends on the batch size alone.
    """

    def __init__(self, images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> None:
        batch, _, height, width = images.shape
        padding = augmentation.padding
        corners = torch.randint(2 * padding + 1, (2, batch, 1), generator=generator)
        mirrored = torch.rand((batch, 1), generator=generator) < (0.5 if augmentation.flip else 0.0)
        top, left, mirrored = (t.to(images.device, non_blocking=True) for t in (*corners, mirrored))
        rows = torch.arange(height, device=images.device) + top
        columns = torch.arange(width, device=images.device)
        columns = torch.where(mirrored, width - 1 - columns, columns) + left
        self._shape, self._padding = (batch, height, width), padding
        self._pixels = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]

    def is_on_same_pixels(self, tensor: Tensor) -> bool:
        """Tell whether a tensor lies on these pixels.

        Args:
            tensor: Any tensor.

        Returns:
            Whether it is ``[batch, channels, height, width]`` with this batch, height and width.
        """
        return tensor.ndim == 4 and (len(tensor), *tensor.shape[2:]) == self._shape

    def __call__(self, images: Tensor, fill: int = 0) -> Tensor:
        """Crop and mirror all images at once.

        Args:
            images: ``[batch, channels, height, width]`` of any type.
            fill: What is outside of them.

        Returns:
            Images of the same shape and type.
        """
        # One gather over flattened pixels does crop and mirror together, without a loop over images.
        padded = F.pad(images, (self._padding,) * 4, value=fill).flatten(2)
        batch, height, width = self._shape
        index = self._pixels.view(batch, 1, height * width).expand(-1, images.shape[1], -1)
        return padded.gather(2, index).view(images.shape)


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Crop and mirror each image of a batch at random, all images at once.

    Args:
        images: ``[batch, channels, height, width]`` of any type.
        augmentation: What to do.
        generator: A CPU generator; how many numbers are drawn depends on the batch size alone.

    Returns:
        Images of the same shape and type.
    """
    return images if augmentation == Augmentation() else RandomCrop(images, augmentation, generator)(images)
