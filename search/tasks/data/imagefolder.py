"""Folders of images, one folder per class: ``root/train/CLASS/*.jpeg``, and perhaps ``val`` and ``test``.

The test set is ``test/``, or else ``val/`` (as in ImageNet, whose validation images are what papers report),
or else drawn from ``train/``. The validation set is ``val/`` where there is a ``test/`` as well, or else drawn
from ``train/``. Inputs are normalised with ImageNet's statistics, which torchvision's weights expect.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from search.tasks.data.loader_split import ImageFiles, LoaderSplit
from search.tasks.data.parts import Data
from search.tasks.data.sizes import SplitSizes
from search.tasks.data.stratify import part_size, stratify
from spaces import InputError

SIDE = 224
"""Side of the images in pixels; less where the images are smaller."""
SHARES = {"validation": 0.1, "test": 0.2}
"""Shares of parts that have no folder."""


def imagefolder(root: Path, sizes: SplitSizes) -> Data:
    """Open folders of images.

    Args:
        root: Folder that holds ``train`` and perhaps ``val`` and ``test``.
        sizes: Sizes of the parts that are drawn from ``train`` (10 % for validation and 20 % for test by
            default), and the seed that draws them.

    Returns:
        The three parts, images ``[3, side, side]``; the side is 224 pixels, or the median of the shorter
        sides of some training images where that is less.

    Raises:
        InputError: If there is no ``train`` folder with images, the folders differ in their classes, or a
            size is named for a part that has a folder.
    """
    if not (root / "train").is_dir():
        raise InputError(
            f"data 'imagefolder' needs the folder {root / 'train'} with one folder of images per class; "
            "name the folder above it with --data-root"
        )
    classes, pool = _images(root / "train")
    given = {}
    for part, folder in _folders(root).items():
        others, given[part] = _images(folder)
        if others != classes:
            differ = ", ".join(sorted(set(classes) ^ set(others))[:5])
            raise InputError(f"{folder} and {root / 'train'} differ in their classes: {differ}")
    parts = given | _drawn(pool, sizes, given)
    side = _side(parts["train"])
    train, validation, test = (LoaderSplit(parts[p], side) for p in ("train", "validation", "test"))
    first = LoaderSplit(parts["train"].part(torch.tensor([0])), side, workers=0)
    example, _ = next(first.batches(1))
    return Data("imagefolder", len(classes), train, validation, test, example)


def _folders(root: Path) -> dict[str, Path]:
    val, test = root / "val", root / "test"
    if test.is_dir():
        return {"validation": val, "test": test} if val.is_dir() else {"test": test}
    return {"test": val} if val.is_dir() else {}


def _images(folder: Path) -> tuple[list[str], ImageFiles]:
    # Classes and images, both in order of name.
    try:
        found = ImageFolder(str(folder))
    except FileNotFoundError as error:  # torchvision's word for no classes, or a class without images
        raise InputError(f"{folder} must hold one folder of images per class: {error}") from error
    paths = tuple(str(Path(path).relative_to(folder)) for path, _ in found.samples)
    return found.classes, ImageFiles(folder, paths, torch.tensor(found.targets, dtype=torch.int64))


def _drawn(pool: ImageFiles, sizes: SplitSizes, given: Mapping[str, ImageFiles]) -> dict[str, ImageFiles]:
    # Only parts without a folder are drawn; the rest is for training.
    asked = {"validation": sizes.validation, "test": sizes.test}
    for part, files in given.items():
        if asked[part] is not None:
            raise InputError(f"the {part} part is the folder {files.folder}: leave split.{part} = {asked[part]:g} out")
    parts = [part for part in asked if part not in given]
    counts = [part_size(asked[part] or SHARES[part], len(pool.paths), part) for part in parts]
    drawn = stratify(pool.labels, counts, torch.Generator().manual_seed(sizes.seed))
    return {part: pool.part(index) for part, index in zip([*parts, "train"], drawn, strict=True)}


def _side(files: ImageFiles) -> int:
    shorter = []  # of up to 64 images, evenly spaced
    for path in files.paths[:: max(1, len(files.paths) // 64)]:
        with Image.open(files.folder / path) as image:  # reads the header only
            shorter.append(min(image.size))
    return min(SIDE, round(median(shorter)))
