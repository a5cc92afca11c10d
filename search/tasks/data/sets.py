"""Data sets by name.

Needs no torch until a data set is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from methods.contract.named import is_reference, known_names, load_named
from search.tasks.data.sizes import SplitSizes
from spaces import InputError, unknown_name

if TYPE_CHECKING:
    from search.tasks.data.parts import Data

DATA: dict[str, str] = {
    "cifar10": "search.tasks.data.cifar:cifar10",
    "cifar100": "search.tasks.data.cifar:cifar100",
    "digits": "search.tasks.data.digits:digits",
    "fashion_mnist": "search.tasks.data.mnist:fashion_mnist",
    "imagefolder": "search.tasks.data.imagefolder:imagefolder",
    "mnist": "search.tasks.data.mnist:mnist",
}
"""Where the loader of each data set is: ``loader(root, sizes)``."""

GROUP = "paretoprune.data"
"""The entry-point group in which other packages list functions that return arrays."""


def load_data(name: str, root: Path, split: SplitSizes) -> Data:
    """Load a data set and split it.

    Args:
        name: A name in :data:`DATA`, or ``package.module:function`` for a function of the user's that returns
            arrays (see :mod:`search.tasks.data.arrays`).
        root: Where data sets lie, or are downloaded to.
        split: Sizes of the validation and test parts, and the seed that draws them.

    Returns:
        The three parts, on the CPU.

    Raises:
        InputError: If the name is unknown, the data cannot be had, or it cannot be split as asked.
    """
    if name in DATA:
        module, _, function = DATA[name].partition(":")
        loader: Callable[[Path, SplitSizes], Data] = getattr(import_module(module), function)
        return loader(root, split)
    if is_reference(name) or name in known_names({}, GROUP):
        from search.tasks.data.arrays import user_arrays

        return user_arrays(load_named("data", name, {}, GROUP), name, split)
    raise InputError(unknown_name("data", name, [*known_names(DATA, GROUP), "package.module:function"]))
