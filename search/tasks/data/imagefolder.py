"""Folders of images, one folder per class: ``root/train/CLASS/*.jpeg``, and perhaps ``val`` and ``test``.

Without ``train/`` the folders of classes may lie in ``root`` itself, and all parts are drawn from them.

The test set is ``test/``, or else ``val/`` (as in ImageNet, whose validation images are what papers report),
or else drawn from ``train/``. The validation set is ``val/`` where there is a ``test/`` as well, or else drawn
from ``train/``. Inputs are normalised with ImageNet's statistics, which torchvision's weights expect, or as the
network's library says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from search.tasks.data.loader_split import ImageFiles, LoaderSplit
from search.tasks.data.parts import Data
from search.tasks.data.sizes import SplitSizes
from search.tasks.data.splits import Augment, Augmentation
from search.tasks.data.stratify import part_size, stratify
from search.tasks.image_format import IMAGENET, ImageFormat
from spaces import InputError

SIDE = 224
"""Side of the images in pixels; less where the images are smaller."""
SHARES = {"validation": 0.1, "test": 0.2}
"""Shares of parts that have no folder."""


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
    given = {}
    for part, folder in (_folders(root) if whole else {}).items():
        others, given[part] = _images(folder)
        if others != classes:
            differ = ", ".join(sorted(set(classes) ^ set(others))[:5])
            raise InputError(f"{folder} and {root / 'train'} differ in their classes: {differ}")
    parts = given | _drawn(pool, sizes, given)
    check_images([files.folder / path for files in (pool, *given.values()) for path in files.paths])
    side = form.side or _side(parts["train"])
    train = LoaderSplit(parts["train"], side, augmentation=augmentation, form=form)
    validation, test = (LoaderSplit(parts[p], side, form=form) for p in ("validation", "test"))
    first = LoaderSplit(parts["train"].part(torch.tensor([0])), side, workers=0, form=form)
    example, _ = next(first.batches(1))
    return Data("imagefolder", len(classes), train, validation, test, example)


def _has_classes(root: Path) -> bool:
    """Whether a folder holds folders of images that are not parts of a data set."""
    if not root.is_dir() or any((root / part).is_dir() for part in ("val", "test")):
        return False
    inside = (path for folder in root.iterdir() if folder.is_dir() for path in folder.iterdir())
    return any(path.suffix.lower() in IMG_EXTENSIONS for path in inside)


def check_images(paths: Sequence[Path]) -> None:
    """Open every image, so that a broken one is named before anything is trained.

    Headers and checksums are read, and the end of JPEG files, not all pixels: a thousand small images take a second.

    Args:
        paths: The files.

    Raises:
        InputError: If some cannot be read; the first ones are named.
    """
    with ThreadPoolExecutor(8) as pool:
        broken = [(path, why) for path, why in zip(paths, pool.map(_complaint, paths), strict=True) if why]
    if broken:
        listed = "; ".join(f"{path} ({why})" for path, why in broken[:3])
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise InputError(f"images that cannot be read: {listed}{more}; remove or replace them")


def _complaint(path: Path) -> str | None:
    """Say why an image cannot be read; None if it can."""
    try:
        with Image.open(path) as image:
            kind = image.format
            image.verify()
        if kind == "JPEG" and not _ends_as_jpeg(path):
            with Image.open(path) as image:
                image.load()  # only what looks cut off is decoded
    except Exception as error:  # decoders fail in any way on what is no image
        said = str(error).replace(str(path), "the file").splitlines() or [type(error).__name__]
        return said[0]
    return None


def _ends_as_jpeg(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-min(64, path.stat().st_size), 2)
        return b"\xff\xd9" in file.read()


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
