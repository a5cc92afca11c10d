"""Folders of Hugging Face's ``datasets`` library, which is asked for only here; nothing is downloaded.

``hf:FOLDER`` names what ``save_to_disk`` wrote (one part, or several as a ``DatasetDict``), or a folder of files that
``datasets.load_dataset`` reads: parquet, CSV or JSON files, or images in folders of classes.

Parts are called ``train``, ``validation`` (or ``valid``, ``val``, ``dev``) and ``test``; those that are not there are
drawn from ``train``. The target is the column ``label``, ``labels`` or ``target``, or the only column of classes. Where
there is a column of images, that is the input, made ready like images of a folder; else all other columns are, as
arguments by their names (one column alone as the only argument).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from methods.contract.task import Task
from search.tasks.data.datasets import dataset_parts
from search.tasks.data.image_parts import image_data
from search.tasks.data.images import THREADS, explain_unreadable
from search.tasks.data.labels import check_labels
from search.tasks.data.parts import Data
from search.tasks.data.sizes import SplitSizes
from search.tasks.data.splits import Augment, Augmentation
from search.tasks.image_format import IMAGENET, ImageFormat
from spaces import InputError

TARGETS = ("label", "labels", "target")
"""Columns that are the target, in the order in which they are looked for."""

PARTS = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
"""Names of the parts."""

SAVED = ("dataset_dict.json", "state.json")
"""Files by which a folder of ``save_to_disk`` is known."""

CHUNK = 256
"""Images that are read at a time where all are looked at."""


@dataclass(frozen=True)
class HfImages:
    """A column of images, and their labels (:class:`search.tasks.data.images.LabelledImages`).

    Attributes:
        rows: The dataset with that column alone.
        column: Its name.
        index: Which rows, in order.
        labels: ``[images]``, int64.
        name: Where the rows come from, for messages.
    """

    rows: Any
    column: str
    index: tuple[int, ...]
    labels: Tensor
    name: str

    @property
    def place(self) -> str:
        """The part of the dataset, for messages."""
        return self.name

    def part(self, index: Tensor) -> HfImages:
        """Select some of the images.

        Args:
            index: Which ones, ``[n]``.

        Returns:
            Those images, in this order.
        """
        chosen = tuple(self.index[i] for i in index.tolist())
        return HfImages(self.rows, self.column, chosen, self.labels[index], self.name)

    def read(self, number: int) -> Image.Image:
        """Decode an image.

        Args:
            number: Which one.

        Returns:
            The image in three channels.
        """
        image: Image.Image = self.rows[self.index[number]][self.column]
        return image.convert("RGB")

    def measure_side(self, number: int) -> int:
        """Measure an image.

        Args:
            number: Which one.

        Returns:
            Its shorter side in pixels.
        """
        image: Image.Image = self.rows[self.index[number]][self.column]
        return min(image.size)

    def broken(self) -> Iterator[tuple[str, str]]:
        """Look for images that cannot be read.

        Yields:
            Row of the image, and what is wrong with it.
        """
        with ThreadPoolExecutor(THREADS) as pool:
            for start, stored in self._yield_stored():
                for place, wrong in enumerate(pool.map(_explain_unreadable, stored), start):
                    if wrong is not None:
                        yield f"row {self.index[place]} of {self.name}", wrong

    def key(self) -> object:
        """Name the images.

        Returns:
            Column and rows.
        """
        return (self.column, self.index)

    def content(self) -> str:
        """Hash what the images hold, as they are stored.

        Returns:
            Hexadecimal digits.
        """
        digest = hashlib.sha256()
        for _, stored in self._yield_stored():
            for each in stored:
                held = each["bytes"] if each["bytes"] is not None else Path(each["path"]).read_bytes()
                digest.update(f"{len(held)} ".encode())
                digest.update(held)
        return digest.hexdigest()

    def _yield_stored(self) -> Iterator[tuple[int, list[Any]]]:
        """Yield images as they are stored, not decoded, some at a time, with the number of the first."""
        raw = self.rows.cast_column(self.column, _library("").Image(decode=False))
        for start in range(0, len(self.index), CHUNK):
            yield start, list(raw[list(self.index[start : start + CHUNK])][self.column])


class Rows(Dataset[Any]):
    """Rows of numbers as a torch dataset: ``(inputs, target)``.

    Args:
        rows: The dataset.
        target: The column of the target.
        inputs: The columns of the inputs.
    """

    def __init__(self, rows: Any, target: str, inputs: Sequence[str]) -> None:
        self.rows = rows.select_columns([target, *inputs]).with_format("numpy")
        self.target, self.inputs = target, tuple(inputs)

    @property
    def targets(self) -> Any:
        """The targets of all rows."""
        return np.asarray(self.rows.select_columns([self.target])[:][self.target])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        row = {name: torch.as_tensor(np.asarray(value)) for name, value in self.rows[index].items()}
        several = {name: row[name] for name in self.inputs}
        return (row[self.inputs[0]] if len(several) == 1 else several), row[self.target]


def hf_data(
    place: str,
    sizes: SplitSizes,
    task: Task,
    augmentation: Augmentation | Augment | None = None,
    form: ImageFormat | None = None,
) -> Data:
    """Open a folder of Hugging Face's datasets.

    Args:
        place: The folder.
        sizes: Sizes of the parts that are drawn from ``train`` (10 % for validation and 20 % for test by default),
            and the seed that draws them.
        task: What the data are for; images are for classification.
        augmentation: What happens to training images instead of the usual; of other data, a function.
        form: How images are made ready; ``None`` for ImageNet's way.

    Returns:
        The three parts.

    Raises:
        InputError: If the package is missing, the folder cannot be read, has no part ``train`` or no target, or holds
            columns that are neither images nor numbers.
    """
    name = f"hf:{place}"
    library = _library(name)
    parts = _parts(_read(library, Path(place).expanduser(), name), name)
    train = parts["train"]
    target = _target(library, train.features, name)
    if not _is_numeric(library, train.features[target]):
        raise InputError(
            f"data {name!r}: the column {target!r} holds no numbers; dataset.class_encode_column({target!r}) before "
            "save_to_disk turns words into classes"
        )
    for part, rows in parts.items():
        if set(rows.features) != set(train.features):
            raise InputError(
                f"data {name!r}: the columns of part {part!r} ({', '.join(rows.features)}) are not those of 'train' "
                f"({', '.join(train.features)})"
            )
    images = [column for column, kind in train.features.items() if isinstance(kind, library.Image)]
    if not images:
        inputs = _numbers(library, train.features, target, name)
        found = {part: Rows(rows, target, inputs) for part, rows in parts.items()}
        return dataset_parts(name, found, sizes, task, augmentation)
    if len(images) > 1 or not task.stratified:
        raise InputError(
            f"data {name!r} has images ({', '.join(images)}), of which one column is read for classification; for "
            "anything else return a torch Dataset from package.module:function"
        )
    several = {part: _images(rows, images[0], target, task, f"part {part!r} of {name}") for part, rows in parts.items()}
    pool = several.pop("train")
    outputs = task.count_outputs(pool.labels, f"data {name!r}")
    for part, found_images in several.items():
        check_labels(found_images.labels, outputs, f"data {name!r}: part {part!r}", task)
    return image_data(name, outputs, pool, several, sizes, augmentation, form or IMAGENET)


def _library(name: str) -> Any:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise InputError(f"data {name!r} needs the package datasets: pip install 'datasets>=3.0'") from error


def _read(library: Any, folder: Path, name: str) -> Mapping[str, Any]:
    """Read the parts of a folder by their names."""
    if not folder.is_dir():
        raise InputError(
            f"data {name!r}: there is no folder {folder}; where there is a connection, "
            "`datasets.load_dataset(NAME).save_to_disk(FOLDER)` downloads a dataset of the Hub into one"
        )
    try:
        if any((folder / file).is_file() for file in SAVED):
            found = library.load_from_disk(str(folder))
        else:
            found = library.load_dataset(str(folder))
    except Exception as error:  # the library has an error for each kind of file
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"data {name!r}: datasets cannot read {folder}: {said[0]}") from error
    return found if isinstance(found, Mapping) else {"train": found}


def _parts(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Sort the parts by what they are for."""
    parts: dict[str, Any] = {}
    for part, known in PARTS.items():
        there = [each for each in known if each in found]
        if len(there) > 1:
            raise InputError(
                f"data {name!r}: {' and '.join(map(repr, there))} both look like the {part} part; keep one"
            )
        if there:
            parts[part] = found[there[0]]
    others = [each for each in found if not any(each in known for known in PARTS.values())]
    if others or "train" not in parts:
        raise InputError(
            f"data {name!r} has the parts {', '.join(map(repr, found))}; there must be 'train', and beside it nothing "
            "but 'validation' and 'test' (datasets.DatasetDict({'train': ..., 'test': ...}) names them)"
        )
    return parts


def _target(library: Any, features: Mapping[str, Any], name: str) -> str:
    """Find the column of the target."""
    named = next((column for column in TARGETS if column in features), None)
    if named is not None:
        return named
    classes = [column for column, kind in features.items() if isinstance(kind, library.ClassLabel)]
    if len(classes) == 1:
        return classes[0]
    several = f" ({' and '.join(classes)} are columns of classes)" if classes else ""
    raise InputError(
        f"data {name!r} has the columns {', '.join(features)}{several}, none of them called 'label' or 'target'; "
        "dataset.rename_column(OLD, 'label') before save_to_disk says which one it is"
    )


def _numbers(library: Any, features: Mapping[str, Any], target: str, name: str) -> list[str]:
    """List the columns of the inputs, all of them numbers."""
    inputs = [column for column in features if column != target]
    words = [column for column in inputs if not _is_numeric(library, features[column])]
    if words or not inputs:
        what = f"columns that are no numbers: {', '.join(words)}" if words else f"no column beside {target!r}"
        raise InputError(
            f"data {name!r} has {what}; networks take images and numbers, so turn them into numbers or take them out "
            "(dataset.remove_columns) before save_to_disk"
        )
    return inputs


def _is_numeric(library: Any, kind: Any) -> bool:
    """Whether a column holds numbers or arrays of numbers."""
    if isinstance(kind, library.Value):
        return bool(kind.dtype.startswith(("int", "uint", "float", "bool")))
    if isinstance(kind, library.ClassLabel):
        return True
    inner = getattr(kind, "feature", None)  # a sequence of something
    if inner is not None:
        return _is_numeric(library, inner)
    if isinstance(kind, list):
        return len(kind) == 1 and _is_numeric(library, kind[0])
    return hasattr(kind, "shape") and hasattr(kind, "dtype")  # Array2D and its like


def _images(rows: Any, column: str, target: str, task: Task, where: str) -> HfImages:
    stored = np.asarray(rows.select_columns([target])[:][target])
    if stored.dtype.kind in "iu" and stored.size and int(stored.min()) < 0:
        raise InputError(f"{where} has examples without a label ({stored.min()}); leave that part out of the folder")
    labels = task.convert_target(stored, where)
    return HfImages(rows.select_columns([column]), column, tuple(range(len(rows))), labels, where)


def _explain_unreadable(stored: Mapping[str, Any] | None) -> str | None:
    """Say why a stored image cannot be read; None if it can."""
    if stored is None:
        return "it is missing"
    if stored["bytes"] is not None:
        return explain_unreadable(stored["bytes"])
    return explain_unreadable(Path(stored["path"]))
