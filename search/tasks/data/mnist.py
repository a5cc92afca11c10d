"""MNIST (LeCun, Bottou, Bengio, Haffner 1998) and Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747).

60,000 training and 10,000 test images of 28x28. Not augmented.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from search.tasks.data.download import open_dataset
from search.tasks.data.memory import Examples, Source, split_in_memory
from search.tasks.data.parts import Data
from search.tasks.data.sizes import SplitSizes
from search.tasks.data.splits import Augment, Augmentation


def mnist(root: Path, sizes: SplitSizes, augmentation: Augmentation | Augment | None = None) -> Data:
    """Load MNIST; 10 % of the training images are for validation by default.

    Args:
        root: Folder that holds ``MNIST/raw``, or will.
        sizes: Size of the validation part, and the seed that draws it.
        augmentation: What happens to training images instead of the usual.

    Returns:
        The three parts, images ``[1, 28, 28]``.
    """
    from torchvision.datasets import MNIST

    train, test = open_dataset(MNIST, "mnist", root, "MNIST/raw")
    source = Source("mnist", 10, _examples(train), _examples(test), mean=(0.1307,), std=(0.3081,))
    return split_in_memory(source, sizes, augmentation)


def fashion_mnist(root: Path, sizes: SplitSizes, augmentation: Augmentation | Augment | None = None) -> Data:
    """Load Fashion-MNIST; 10 % of the training images are for validation by default.

    Args:
        root: Folder that holds ``FashionMNIST/raw``, or will.
        sizes: Size of the validation part, and the seed that draws it.
        augmentation: What happens to training images instead of the usual.

    Returns:
        The three parts, images ``[1, 28, 28]``.
    """
    from torchvision.datasets import FashionMNIST

    train, test = open_dataset(FashionMNIST, "fashion_mnist", root, "FashionMNIST/raw")
    source = Source("fashion_mnist", 10, _examples(train), _examples(test), mean=(0.2860,), std=(0.3530,))
    return split_in_memory(source, sizes, augmentation)


def _examples(dataset: Any) -> Examples:
    images: torch.Tensor = dataset.data
    return Examples(images.unsqueeze(1), dataset.targets.to(torch.int64))
