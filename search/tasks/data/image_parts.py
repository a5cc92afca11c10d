"""From images with labels to three parts, whatever they are read from."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

import torch

from search.tasks.data.images import LabelledImages, check_images
from search.tasks.data.loader_split import LoaderSplit
from search.tasks.data.parts import Data
from search.tasks.data.sizes import SplitSizes
from search.tasks.data.splits import Augment, Augmentation
from search.tasks.data.stratify import part_size, stratify
from search.tasks.image_format import ImageFormat
from spaces import InputError

SIDE = 224
"""Side of the images in pixels; less where the images are smaller."""

SHARES = {"validation": 0.1, "test": 0.2}
"""Shares of parts that are not given."""

MEASURED = 64
"""Images, evenly spaced, whose sides are looked at."""


def image_data(
    name: str,
    classes: int,
    pool: LabelledImages,
    given: Mapping[str, LabelledImages],
    sizes: SplitSizes,
    augmentation: Augmentation | Augment | None,
    form: ImageFormat,
) -> Data:
    """Split images in three, and look whether all can be read.

    Args:
        name: The name the data were asked for by.
        classes: How many classes there are.
        pool: What training images are drawn from, and those of parts that are not given.
        given: ``validation`` and ``test``, where the data have them.
        sizes: Sizes of the parts that are drawn (10 % for validation and 20 % for test by default), and the seed that
            draws them.
        augmentation: What happens to training images instead of the usual.
        form: How images are made ready.

    Returns:
        The three parts, images ``[3, side, side]``; the side is that of the format, or else 224 pixels, or the median
        of the shorter sides of some training images where that is less.
    """
    parts = {**given, **_draw_parts(pool, sizes, given)}
    check_images([pool, *given.values()])
    side = form.side or _measure_side(parts["train"])
    train = LoaderSplit(parts["train"], side, augmentation=augmentation, form=form)
    validation, test = (LoaderSplit(parts[part], side, form=form) for part in ("validation", "test"))
    first = LoaderSplit(parts["train"].part(torch.tensor([0])), side, workers=0, form=form)
    example, _ = next(first.batches(1))
    return Data(name, classes, train, validation, test, example)


def _draw_parts(
    pool: LabelledImages, sizes: SplitSizes, given: Mapping[str, LabelledImages]
) -> dict[str, LabelledImages]:
    """Draw the parts that are not given; the rest is for training."""
    asked = {"validation": sizes.validation, "test": sizes.test}
    for part, images in given.items():
        if asked[part] is not None:
            raise InputError(f"the {part} part is {images.place}: leave split.{part} = {asked[part]:g} out")
    parts = [part for part in asked if part not in given]
    counts = [part_size(asked[part] or SHARES[part], len(pool.labels), part) for part in parts]
    drawn = stratify(pool.labels, counts, torch.Generator().manual_seed(sizes.seed))
    return {part: pool.part(index) for part, index in zip([*parts, "train"], drawn, strict=True)}


def _measure_side(images: LabelledImages) -> int:
    count = len(images.labels)
    shorter = [images.measure_side(number) for number in range(0, count, max(1, count // MEASURED))]
    return min(SIDE, round(median(shorter)))
