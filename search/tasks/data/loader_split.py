"""Splits of images: decoded and augmented by workers, normalised on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from methods.contract.data import Batch
from methods.contract.recipe import derive_seed
from search.tasks.data.augmentations import ResizedCrop
from search.tasks.data.images import LabelledImages
from search.tasks.data.normalise import Normalisation
from search.tasks.data.splits import Augment, Augmentation
from search.tasks.image_format import IMAGENET, ImageFormat
from search.tasks.models.initialise import seed_defaults

Key = tuple[int, int]
"""Index of an image, and the seed of its augmentation."""


class LoaderSplit:
    """One part of a data set as images that are read when they are needed (a :class:`methods.contract.data.Split`).

    For training, a random part of 8 to 100 % of the area is resized to a square and half of the images are
    mirrored (Szegedy et al. 2015, arXiv 1409.4842). Otherwise the image is resized so that the shorter side
    is 8/7 of the square's (or as the format says), and the middle is taken. Each image is augmented from a seed of
    its own, so that the number of workers makes no difference.

    Args:
        images: The images.
        side: Side of the square that networks see, in pixels.
        workers: Processes that decode images, 0 to decode in this process; by default as many as torch may
            use threads, so that a trial stays within its cores.
        device: Where inputs are normalised and handed out.
        augmentation: What happens to training images instead: changes batches of uint8 images that were resized and cut
            as for evaluation.
        form: How images are made ready: interpolation, crop, mean and standard deviation.
    """

    def __init__(
        self,
        images: LabelledImages,
        side: int,
        workers: int | None = None,
        device: str = "cpu",
        augmentation: Augmentation | Augment | None = None,
        form: ImageFormat = IMAGENET,
    ) -> None:
        self.images, self.side, self.workers, self.device = images, side, workers, torch.device(device)
        self.form = form
        self.augmentation = None if isinstance(augmentation, ResizedCrop) else augmentation  # the usual one
        like = torch.empty((1, 3, side, side), dtype=torch.uint8, device=device)
        self._normalised = Normalisation(form.mean, form.std, like)

    @property
    def examples(self) -> int:
        """How many examples the split holds."""
        return len(self.images.labels)

    def to(self, device: str) -> LoaderSplit:
        """Return the split with its batches on a device.

        Args:
            device: ``"cpu"``, ``"cuda"`` and so on.

        Returns:
            The same images, handed out there.
        """
        return LoaderSplit(self.images, self.side, self.workers, device, self.augmentation, self.form)

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

        Args:
            batch_size: Examples per batch.
            seed: Decides order and augmentation entirely.
            start: Index of the first batch to yield.

        Yields:
            Inputs ``[batch, 3, side, side]`` (float32, normalised) and labels ``[batch]`` (int64).
        """
        transform = v2.Compose([
            v2.RandomResizedCrop(self.side, interpolation=self._interpolation, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ])
        keys = ShuffledKeys(self.examples, batch_size, seed, start)
        if self.augmentation is None:
            yield from self._yield_batches(transform, keys)
            return
        for step, (images, labels) in enumerate(self._images(self._make_still_transform(), keys), start):
            generator = torch.Generator().manual_seed(derive_seed(seed, step, 1))
            if not isinstance(self.augmentation, Augmentation):
                images, labels = self.augmentation(images, labels, generator)
            yield self._normalised(images), labels

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield every example once, in stored order, never augmented.

        Args:
            batch_size: Examples per batch; the last batch may be smaller.

        Yields:
            Inputs ``[batch, 3, side, side]`` (float32, normalised) and labels ``[batch]`` (int64).
        """
        starts = range(0, self.examples, batch_size)
        keys = [[(i, 0) for i in range(s, min(s + batch_size, self.examples))] for s in starts]
        yield from self._yield_batches(self._make_still_transform(), keys)

    def fingerprint(self) -> str:
        """Return a hash of what the split holds: names, labels and contents of the images.

        Returns:
            Hexadecimal digits; equal for equal images, labels and size.
        """
        own: tuple[object, ...] = () if self.augmentation is None else (self.augmentation,)
        own += () if self.form == IMAGENET else (self.form,)
        digest = hashlib.sha256(repr((self.side, self.images.key(), *own)).encode())
        digest.update(self.images.labels.numpy().data)
        digest.update(self.images.content().encode())
        return digest.hexdigest()

    @property
    def _interpolation(self) -> v2.InterpolationMode:
        return v2.InterpolationMode(self.form.interpolation)

    def _make_still_transform(self) -> v2.Compose:
        """The middle of the resized image."""
        return v2.Compose([
            v2.Resize(round(self.side / self.form.crop), self._interpolation, antialias=True),
            v2.CenterCrop(self.side),
            v2.PILToTensor(),
        ])

    def _yield_batches(self, transform: v2.Compose, keys: Any) -> Iterator[Batch]:
        for images, labels in self._images(transform, keys):
            yield self._normalised(images), labels

    def _images(self, transform: v2.Compose, keys: Any) -> Iterator[tuple[Any, Any]]:
        """Yield images of uint8 and labels, on the device."""
        loader: DataLoader[tuple[Tensor, int]] = DataLoader(
            _Decoded(self.images, transform),
            batch_sampler=keys,
            num_workers=torch.get_num_threads() if self.workers is None else self.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator().manual_seed(0),  # torch would draw from its global generator
        )
        for images, labels in loader:
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


class _Decoded(Dataset[tuple[Tensor, int]]):
    """Images by key; runs in workers."""

    def __init__(self, images: LabelledImages, transform: v2.Compose) -> None:
        self.images, self.transform = images, transform

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        index, seed = key
        image = self.images.read(index)
        with seed_defaults(seed):  # torchvision's transforms draw from torch's global generator
            return self.transform(image), int(self.images.labels[index])


class ShuffledKeys:
    """Batches of keys in the order of one epoch."""

    def __init__(self, examples: int, batch_size: int, seed: int, start: int) -> None:
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self.steps = range(start, max(1, examples // batch_size))

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Sequence[Key]]:
        order = torch.randperm(self.examples, generator=torch.Generator().manual_seed(self.seed))
        for step in self.steps:
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            generator = torch.Generator().manual_seed(derive_seed(self.seed, step))
            seeds = torch.randint(2**62, chosen.shape, generator=generator)
            yield list(zip(chosen.tolist(), seeds.tolist(), strict=True))
