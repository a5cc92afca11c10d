"""torchvision's data sets: opened where they lie, downloaded where they are missing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from spaces import InputError


def open_dataset(dataset: Callable[..., Any], name: str, root: Path, folder: str) -> tuple[Any, Any]:
    """Open the official training and test set of a data set of torchvision, downloading it if need be.

    Args:
        dataset: Class in ``torchvision.datasets``, called with ``root``, ``train`` and ``download``.
        name: The data set's name, for messages.
        root: Where data sets lie, or are downloaded to.
        folder: Folder below ``root`` in which the class looks, for messages.

    Returns:
        Training set and test set.

    Raises:
        InputError: If the files are not there and cannot be downloaded.
    """
    try:
        return dataset(root, train=True, download=False), dataset(root, train=False, download=False)
    except RuntimeError:  # torchvision's word for missing or damaged files
        pass
    try:
        with redirect_stdout(sys.stderr):  # torchvision prints, but stdout is for results
            return dataset(root, train=True, download=True), dataset(root, train=False, download=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"data {name!r} is not in {root.absolute()} and cannot be downloaded ({error}); "
            f"put its files into {root / folder}, or name the folder that holds {folder!r} with --data-root"
        ) from error
