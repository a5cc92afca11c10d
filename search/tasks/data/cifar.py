"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32x32.

Augmented as in He et al. (2016): 4 pixels of padding, a random crop, and mirroring.
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


def cifar10(root: Path, sizes: SplitSizes, augmentation: Augmentation | Augment | None = None) -> Data:
    """Load CIFAR-10; 10 % of the training images are for validation by default.

    Args:
        root: Folder that holds ``cifar-10-batches-py``, or will.
        sizes: Size of the validation part, and the seed that draws it.
        augmentation: What happens to training images instead of the usual.

    Returns:
        The three parts, images ``[3, 32, 32]``.
    """
    from torchvision.datasets import CIFAR10

    train, test = open_dataset(CIFAR10, "cifar10", root, "cifar-10-batches-py")
    source = Source(
        name="cifar10",
        outputs=10,
        train=_examples(train),
        test=_examples(test),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        augmentation=Augmentation(padding=4, flip=True),
    )
    return split_in_memory(source, sizes, augmentation)


def cifar100(root: Path, sizes: SplitSizes, augmentation: Augmentation | Augment | None = None) -> Data:
    """Load CIFAR-100; 10 % of the training images are for validation by default.

    Args:
        root: Folder that holds ``cifar-100-python``, or will.
        sizes: Size of the validation part, and the seed that draws it.
        augmentation: What happens to training images instead of the usual.

    Returns:
        The three parts, images ``[3, 32, 32]``.
    """
    from torchvision.datasets import CIFAR100

    train, test = open_dataset(CIFAR100, "cifar100", root, "cifar-100-python")
    source = Source(
        name="cifar100",
        outputs=100,
        train=_examples(train),
        test=_examples(test),
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        augmentation=Augmentation(padding=4, flip=True),
    )
    return split_in_memory(source, sizes, augmentation)


def _examples(dataset: Any) -> Examples:
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return Examples(images, torch.tensor(dataset.targets, dtype=torch.int64))
