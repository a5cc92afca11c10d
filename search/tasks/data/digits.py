"""Handwritten digits of the UCI repository as shipped with scikit-learn: 1,797 images of 8x8, no download.

Alpaydin, Kaynak (1998), "Optical Recognition of Handwritten Digits", doi 10.24432/C50P49.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from search.records.errors import RunError
from search.tasks.data.memory import Examples, Source, split_in_memory
from search.tasks.data.parts import Data
from search.tasks.data.sizes import SplitSizes
from search.tasks.data.splits import Augment, Augmentation


def digits(root: Path, sizes: SplitSizes, augmentation: Augmentation | Augment | None = None) -> Data:
    """Load the digits: 60 % for training, 20 % for validation, 20 % for test by default.

    Args:
        root: Not used; the data comes with scikit-learn.
        sizes: Sizes of the parts, and the seed that draws them.
        augmentation: What happens to training images instead of the usual.

    Returns:
        The three parts, images ``[1, 8, 8]``.
    """
    table = torch.from_numpy(read_table())
    # Grey levels are 0..16; times 15 they fill a byte exactly.
    images = (table[:, :-1] * 15).to(torch.uint8).reshape(-1, 1, 8, 8)
    labels = table[:, -1].to(torch.int64)
    return split_in_memory(
        Source(
            name="digits",
            outputs=10,
            train=Examples(images, labels),
            mean=(0.2873,),
            std=(0.3539,),
            augmentation=Augmentation(padding=1),
            validation_size=0.2,
            test_size=0.2,
        ),
        sizes,
        augmentation,
    )


def read_table() -> NDArray[np.int64]:
    """Read scikit-learn's file of the digits; to import scikit-learn for it would take a second.

    Returns:
        ``[1797, 65]``: the 64 grey levels of an image, row by row, and its digit.

    Raises:
        RunError: If scikit-learn is not installed.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise RunError("the digits come with scikit-learn, which is not installed: pip install scikit-learn")
    return np.loadtxt(
        Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",", dtype=np.int64
    )
