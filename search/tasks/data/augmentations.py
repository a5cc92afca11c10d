"""Augmentation by words: what happens to training images, whatever the data set."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.contract.inputs import Inputs, Target, check_inputs, get_first_tensor, map_tensors
from methods.contract.named import is_reference, kind_of, load_named
from methods.contract.task import Task
from search.tasks.data.rand_augment import InTurn, RandAugmented
from search.tasks.data.splits import Augment, Augmentation
from spaces import InputError, explain_unknown_name

WORDS = ("cifar", "imagenet", "randaugment", "none")


def load_augmentation(name: str | None, task: Task) -> Augmentation | Augment | None:
    """Read what the user wrote.

    Args:
        name: ``"cifar"`` (an eighth of the side is added around, cropped again, half of the images mirrored),
            ``"imagenet"`` (8 to 100 % of the area resized to the whole, half of the images mirrored; Szegedy et al.,
            2015, arXiv 1409.4842), ``"randaugment"`` (two random operations of 14; Cubuk et al., 2020, arXiv
            1909.13719), several of these as ``"cifar+randaugment"``, ``"none"``,
            ``package.module:function`` for a function ``(inputs,
            targets, generator) -> (inputs, targets)`` of whole batches, or ``None`` for the data set's own.
        task: What the data are for: maps of labels are changed with their images.

    Returns:
        What changes a batch; ``None`` where the data set decides.

    Raises:
        InputError: If there is no such word or function, or it would change images and not their maps of labels.
    """
    if name is None:
        return None
    if is_reference(name):
        return UserAugmentation(name)
    if "+" in name:
        parts = [load_augmentation(part.strip(), task) for part in name.split("+")]
        return InTurn([part for part in parts if callable(part)])
    if name == "randaugment" and task.spatial:
        raise InputError(
            f"augment = {name!r} moves images and not what a {task.name} task knows of their pixels; give another one "
            f"of {', '.join(WORDS)}, or package.module:function"
        )
    if name not in WORDS:
        raise InputError(explain_unknown_name("augment", name, [*WORDS, "package.module:function"]))
    fill = task.fill if task.spatial else None
    known: dict[str, Augmentation | Augment] = {
        "none": Augmentation(),
        "cifar": PaddedCrop(fill),
        "imagenet": ResizedCrop(fill),
        "randaugment": RandAugmented(),
    }
    return known[name]


class UserAugmentation:
    """A function of the user's, loaded wherever it is used.

    Args:
        reference: ``package.module:function``.
    """

    def __init__(self, reference: str) -> None:
        self.reference = reference
        load_named("augment", reference, {}, "paretoprune.augmentations")  # said at the start if it is not there

    def __call__(self, inputs: Inputs, targets: Target, generator: torch.Generator) -> tuple[Inputs, Target]:
        """Call it.

        Args:
            inputs: A batch as it is stored, before normalisation.
            targets: Its targets.
            generator: The only source of random numbers.

        Returns:
            Inputs and targets of the same number of examples.

        Raises:
            InputError: If it returns anything else.
        """
        function = load_named("augment", self.reference, {}, "paretoprune.augmentations")
        try:
            found = function(inputs, targets, generator)
        except Exception as error:  # anything may go wrong in somebody else's function
            raise InputError(
                f"augment {self.reference!r} failed on a batch: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise InputError(f"augment {self.reference!r} must return (inputs, targets), not {kind_of(found)}")
        changed = check_inputs(found[0], f"augment {self.reference!r}: inputs")
        given, left = len(get_first_tensor(inputs)), len(get_first_tensor(changed))
        if left != given:
            raise InputError(f"augment {self.reference!r} made {left} inputs of {given}; it must keep their number")
        return changed, found[1]

    def __repr__(self) -> str:
        return f"UserAugmentation({self.reference!r})"


class PaddedCrop:
    """Pads by an eighth of the side, crops the old size at a random place, mirrors half of the images.

    Args:
        fill: What is outside maps of labels; ``None`` where targets are no maps.
    """

    def __init__(self, fill: int | None) -> None:
        self.fill = fill

    def __call__(self, inputs: Inputs, targets: Target, generator: torch.Generator) -> tuple[Inputs, Target]:
        """Change a batch.

        Args:
            inputs: Images ``[batch, channels, height, width]``.
            targets: Their targets.
            generator: A CPU generator.

        Returns:
            Images and targets.
        """
        from search.tasks.data.splits import RandomCrop

        images = _images(inputs)
        crop = RandomCrop(images, Augmentation(max(1, max(images.shape[2:]) // 8), flip=True), generator)
        changed = map_tensors(inputs, lambda tensor: crop(tensor) if crop.is_on_same_pixels(tensor) else tensor)
        return changed, targets if self.fill is None else crop(targets[:, None], self.fill)[:, 0]

    def __repr__(self) -> str:
        return "PaddedCrop()"


class ResizedCrop:
    """Resizes a random rectangle of each image to the whole, and mirrors half of the images.

    The rectangle has 8 to 100 % of the area (25 to 100 % for maps of labels, whose objects must stay in sight) and
    sides in a proportion of 3/4 to 4/3.

    Args:
        fill: What is outside maps of labels; ``None`` where targets are no maps.
    """

    def __init__(self, fill: int | None) -> None:
        self.fill = fill

    def __call__(self, inputs: Inputs, targets: Target, generator: torch.Generator) -> tuple[Inputs, Target]:
        """Change a batch.

        Args:
            inputs: Images ``[batch, channels, height, width]``.
            targets: Their targets.
            generator: A CPU generator.

        Returns:
            Images and targets.
        """
        images = _images(inputs)
        grid = self._grid(len(images), images.shape[2], images.shape[3], generator).to(images.device)
        changed = map_tensors(
            inputs,
            lambda each: (
                _sample_grid(each, grid, "bilinear") if each.ndim == 4 and each.shape[2:] == images.shape[2:] else each
            ),
        )
        return changed, targets if self.fill is None else _sample_grid(targets[:, None], grid, "nearest")[:, 0]

    def _grid(self, batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Where each pixel comes from, ``[batch, height, width, 2]`` in -1..1."""
        draws = torch.rand((5, batch), generator=generator, dtype=torch.float64)
        least = 0.08 if self.fill is None else 0.25
        area = least + (1 - least) * draws[0]
        ratio = torch.exp((2 * draws[1] - 1) * torch.log(torch.tensor(4 / 3, dtype=torch.float64)))
        # Shares of the sides; clipped, as a rectangle cannot be longer than the image.
        wide, high = ((area * each).sqrt().clamp(max=1.0) for each in (ratio, 1 / ratio))
        left, top = (draws[2] * (1 - wide) * 2 - 1 + wide), (draws[3] * (1 - high) * 2 - 1 + high)  # the centres
        wide = torch.where(draws[4] < 0.5, -wide, wide)  # mirrored
        rows = (2 * torch.arange(height, dtype=torch.float64) + 1) / height - 1
        columns = (2 * torch.arange(width, dtype=torch.float64) + 1) / width - 1
        x = (left[:, None] + wide[:, None] * columns)[:, None, :].expand(batch, height, width)
        y = (top[:, None] + high[:, None] * rows)[:, :, None].expand(batch, height, width)
        return torch.stack([x, y], dim=3).to(torch.float32)

    def __repr__(self) -> str:
        return "ResizedCrop()"


def _images(inputs: Inputs) -> Tensor:
    images = get_first_tensor(inputs)
    if images.ndim != 4:
        raise InputError(
            f"augment: only images [examples, channels, height, width] can be cropped and mirrored, not "
            f"{list(images.shape)}; set augment = 'none'"
        )
    return images


def _sample_grid(images: Tensor, grid: Tensor, mode: Any) -> Tensor:
    """Read images at the places of a grid; type and range stay as they were."""
    found = F.grid_sample(images.to(torch.float32), grid, mode=mode, padding_mode="border", align_corners=False)
    if not images.is_floating_point():
        found = found.round()
    return found.to(images.dtype)
