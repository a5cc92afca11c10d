"""Data sets that fit in memory: from arrays to three parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from search.tasks.data.parts import Data
from search.tasks.data.sizes import SplitSizes
from search.tasks.data.splits import Augmentation, TensorSplit
from search.tasks.data.stratify import part_size, stratify
from spaces import InputError


@dataclass(frozen=True)
class Examples:
    """Inputs and their labels.

    Attributes:
        inputs: ``[examples, channels, ...]``, uint8 or float32.
        labels: ``[examples]``, int64.
    """

    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Source:
    """A whole data set before it is split.

    Attributes:
        name: The name it was asked for by.
        classes: Number of classes.
        train: What training and validation examples are drawn from; test examples too, where there is no
            official test set.
        test: The official test set, or ``None``.
        mean: Mean of each channel; for uint8 inputs in units of 255. ``None`` measures mean and standard
            deviation on the training part.
        std: Standard deviation of each channel, like ``mean``.
        augmentation: What happens to training inputs.
        validation_size: Share of the validation part if the user names none.
        test_size: Share of the test part if the user names none and there is no official test set.
    """

    name: str
    classes: int
    train: Examples
    test: Examples | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augmentation: Augmentation = Augmentation()
    validation_size: float = 0.1
    test_size: float = 0.2


def split_in_memory(source: Source, sizes: SplitSizes) -> Data:
    """Draw the parts of a data set, each class with its share.

    Args:
        source: The whole data set, on the CPU.
        sizes: Sizes asked for, and the seed.

    Returns:
        The three parts.

    Raises:
        InputError: If the sizes cannot be had, or name a test size beside an official test set.
    """
    if source.test is not None and sizes.test is not None:
        raise InputError(f"data {source.name!r} has a test set of its own: leave split.test = {sizes.test:g} out")
    labels = source.train.labels
    validation_size = source.validation_size if sizes.validation is None else sizes.validation
    counts = [part_size(validation_size, len(labels), "validation")]
    if source.test is None:
        test_size = source.test_size if sizes.test is None else sizes.test
        counts.append(part_size(test_size, len(labels), "test"))
    drawn = stratify(labels, counts, torch.Generator().manual_seed(sizes.seed))
    parts = [Examples(source.train.inputs[index], labels[index]) for index in drawn]
    train, validation = parts[-1], parts[0]
    test = source.test or parts[1]
    mean, std = source.mean, source.std
    if mean is None or std is None:
        mean, std = _statistics(train.inputs)

    training = TensorSplit(train.inputs, train.labels, mean, std, source.augmentation)
    held_out = [TensorSplit(part.inputs, part.labels, mean, std) for part in (validation, test)]
    example, _ = next(training.batches(1))
    return Data(source.name, source.classes, training, held_out[0], held_out[1], example)


def _statistics(inputs: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure mean and standard deviation of each channel; float inputs are taken as they are."""
    channels = inputs.shape[1]
    if inputs.dtype != torch.uint8:
        return (0.0,) * channels, (1.0,) * channels
    means, stds = [], []
    for channel in range(channels):  # one by one: a float copy of all would be four times the data
        values = inputs[:, channel].to(torch.float32) / 255
        means.append(float(values.mean()))
        stds.append(max(float(values.std()), 1 / 255))  # a constant channel must not be divided by 0
    return tuple(means), tuple(stds)
