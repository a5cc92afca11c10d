"""Folders of images, one folder per class: ``root/train/CLASS/*.jpeg``, and perhaps ``val`` and ``test``.

Without ``train/`` the folders of classes may lie in ``root`` itself, and all parts are drawn from them.

The test set is ``test/``, or else ``val/`` (or ``valid/``, ``validation/``; as in ImageNet, whose validation images are
what papers report), or else drawn from ``train/``. The validation set is ``val/`` where there is a ``test/`` as well,
or else drawn from ``train/``. Inputs are normalised with ImageNet's statistics, which torchvision's weights expect, or
as the network's library says.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from search.tasks.data.image_parts import image_data
from search.tasks.data.images import ImageFiles, LabelledImages
from search.tasks.data.parts import Data
from search.tasks.data.sizes import SplitSizes
from search.tasks.data.splits import Augment, Augmentation
from search.tasks.image_format import IMAGENET, ImageFormat
from spaces import InputError

VALIDATION = ("val", "valid", "validation")
"""Names of the folder that is for validation."""


def imagefolder(
    root: Path,
    sizes: SplitSizes,
    augmentation: Augmentation | Augment | None = None,
    form: ImageFormat = IMAGENET,
) -> Data:
    """Open folders of images.

    Args:
        root: Folder that holds ``train`` and perhaps ``val`` and ``test``, or one folder per class.
        sizes: Sizes of the parts that are drawn from ``train`` (10 % for validation and 20 % for test by
            default), and the seed that draws them.
        augmentation: What happens to training images instead of the usual.
        form: How images are made ready.

    Returns:
        The three parts, images ``[3, side, side]``; the side is that of the format, or else 224 pixels, or the median
        of the shorter sides of some training images where that is less.

    Raises:
        InputError: If there is no ``train`` folder with images, the folders differ in their classes, or a
            size is named for a part that has a folder.
    """
    whole = (root / "train").is_dir()
    if not whole and not _has_classes(root):
        raise InputError(
            f"data 'imagefolder' needs the folder {root / 'train'} with one folder of images per class, or such "
            f"folders in {root} itself; name the folder above them with --data-root"
        )
    classes, pool = _images(root / "train" if whole else root)
    given: dict[str, LabelledImages] = {}
    for part, folder in (_folders(root) if whole else {}).items():
        others, given[part] = _images(folder)
        if others != classes:
            differ = ", ".join(sorted(set(classes) ^ set(others))[:5])
            raise InputError(f"{folder} and {root / 'train'} differ in their classes: {differ}")
    return image_data("imagefolder", len(classes), pool, given, sizes, augmentation, form)


def _has_classes(root: Path) -> bool:
    """Whether a folder holds folders of images that are not parts of a data set."""
    if not root.is_dir() or any((root / part).is_dir() for part in (*VALIDATION, "test")):
        return False
    inside = (path for folder in root.iterdir() if folder.is_dir() for path in folder.iterdir())
    return any(path.suffix.lower() in IMG_EXTENSIONS for path in inside)


def _folders(root: Path) -> dict[str, Path]:
    """Folders of the parts beside ``train``."""
    found = [root / name for name in VALIDATION if (root / name).is_dir()]
    if len(found) > 1:
        raise InputError(f"{found[0]} and {found[1]} both look like the validation part; keep one of them")
    test = root / "test"
    if test.is_dir():
        return {"validation": found[0], "test": test} if found else {"test": test}
    return {"test": found[0]} if found else {}


def _images(folder: Path) -> tuple[list[str], ImageFiles]:
    # Classes and images, both in order of name.
    try:
        found = ImageFolder(str(folder))
    except FileNotFoundError as error:  # torchvision's word for no classes, or a class without images
        raise InputError(f"{folder} must hold one folder of images per class: {error}") from error
    paths = tuple(str(Path(path).relative_to(folder)) for path, _ in found.samples)
    return found.classes, ImageFiles(folder, paths, torch.tensor(found.targets, dtype=torch.int64))
