"""Data sets by name.

Needs no torch until a data set is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from methods.contract.named import is_reference, list_known_names, load_named
from search.tasks.data.sizes import SplitSizes
from spaces import InputError, explain_unknown_name

if TYPE_CHECKING:
    from methods.contract.task import Task
    from search.tasks.data.parts import Data
    from search.tasks.image_format import ImageFormat

DATA: dict[str, str] = {
    "cifar10": "search.tasks.data.cifar:cifar10",
    "cifar100": "search.tasks.data.cifar:cifar100",
    "digits": "search.tasks.data.digits:digits",
    "fashion_mnist": "search.tasks.data.mnist:fashion_mnist",
    "imagefolder": "search.tasks.data.imagefolder:imagefolder",
    "mnist": "search.tasks.data.mnist:mnist",
}
"""Where the loader of each data set is: ``loader(root, sizes, augmentation)``."""

FROM_FILES = ("imagefolder",)
"""Data sets whose images are resized and normalised as the network needs it: their loaders take ``form``."""

HF = "hf:"
"""What stands before a folder of Hugging Face's ``datasets``."""

GROUP = "paretoprune.data"
"""The entry-point group in which other packages list functions that return arrays."""


def load_data(
    name: str,
    root: Path,
    split: SplitSizes,
    task: Task | None = None,
    augment: str | None = None,
    form: ImageFormat | None = None,
) -> Data:
    """Load a data set and split it.

    Args:
        name: A name in :data:`DATA`, ``hf:FOLDER`` (see :mod:`search.tasks.data.hf_datasets`), or
            ``package.module:function`` for a function of the user's that returns arrays (see
            :mod:`search.tasks.data.arrays`).
        root: Where data sets lie, or are downloaded to.
        split: Sizes of the validation and test parts, and the seed that draws them.
        task: What the data are for; classification by default, and always for the data sets of ours.
        augment: What happens to training images: ``"cifar"``, ``"imagenet"``, ``"none"`` or
            ``package.module:function``; ``None`` for the data set's own.
        form: How images of a folder are made ready; ``None`` for the data's own. Other data come ready.

    Returns:
        The three parts, on the CPU.

    Raises:
        InputError: If the name is unknown, the data cannot be had, or it cannot be split as asked.
    """
    from methods.contract.classification import Classification
    from search.tasks.data.augmentations import load_augmentation

    task = Classification() if task is None else task
    change = load_augmentation(augment, task)
    if name in DATA:
        if not task.stratified:
            raise InputError(f"data {name!r} has one class per example: task = {task.name!r} needs data of its own")
        module, _, function = DATA[name].partition(":")
        loader: Callable[..., Data] = getattr(import_module(module), function)
        own = {"form": form} if name in FROM_FILES and form is not None else {}
        return loader(root, split, change, **own)
    if name.startswith(HF):
        from search.tasks.data.hf_datasets import hf_data

        return hf_data(name.removeprefix(HF), split, task, change, form)
    if is_reference(name) or name in list_known_names({}, GROUP):
        from search.tasks.data.arrays import user_data

        return user_data(load_named("data", name, {}, GROUP), name, split, task, change)
    raise InputError(
        explain_unknown_name("data", name, [*list_known_names(DATA, GROUP), "hf:FOLDER", "package.module:function"])
    )
