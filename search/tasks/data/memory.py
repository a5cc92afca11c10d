"""Data sets that fit in memory: from arrays to three parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from methods.contract.classification import Classification
from methods.contract.inputs import Inputs, Target, batch_size, take, tensors
from methods.contract.task import Task
from search.tasks.data.parts import Data
from search.tasks.data.sizes import SplitSizes
from search.tasks.data.splits import Augment, Augmentation, TensorSplit
from search.tasks.data.stratify import part_size, random_parts, stratify
from spaces import InputError


@dataclass(frozen=True)
class Examples:
    """Inputs and their targets.

    Attributes:
        inputs: ``[examples, channels, ...]``, uint8 or float32, or a tuple or dict of such tensors.
        targets: Labels ``[examples]``, int64, or whatever the task takes.
    """

    inputs: Inputs
    targets: Target


@dataclass(frozen=True)
class Source:
    """A whole data set before it is split.

    Attributes:
        name: The name it was asked for by.
        outputs: Number of classes, or of numbers to predict.
        train: What training examples are drawn from; those of validation and test too, where there are none.
        test: The official test set, or ``None``.
        validation: The official validation set, or ``None``.
        mean: Mean of each channel; for uint8 inputs in units of 255. ``None`` measures mean and standard
            deviation on the training part.
        std: Standard deviation of each channel, like ``mean``.
        augmentation: What happens to training inputs.
        validation_size: Share of the validation part if the user names none.
        test_size: Share of the test part if the user names none and there is no official test set.
        task: What the data are for.
    """

    name: str
    outputs: int
    train: Examples
    test: Examples | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augmentation: Augmentation | Augment = Augmentation()
    validation_size: float = 0.1
    test_size: float = 0.2
    validation: Examples | None = None
    task: Task = field(default_factory=Classification)


def split_in_memory(source: Source, sizes: SplitSizes, augmentation: Augmentation | Augment | None = None) -> Data:
    """Draw the parts of a data set, each class with its share.

    Args:
        source: The whole data set, on the CPU.
        sizes: Sizes asked for, and the seed.
        augmentation: What happens to training inputs instead of the data set's own.

    Returns:
        The three parts.

    Raises:
        InputError: If the sizes cannot be had, or name the size of a part that is given.
    """
    given = {"test": source.test, "validation": source.validation}
    for part, size in (("test", sizes.test), ("validation", sizes.validation)):
        if given[part] is not None and size is not None:
            raise InputError(f"data {source.name!r} has a {part} set of its own: leave split.{part} = {size:g} out")
    wanted = {
        "validation": source.validation_size if sizes.validation is None else sizes.validation,
        "test": source.test_size if sizes.test is None else sizes.test,
    }
    missing = [part for part in wanted if given[part] is None]
    counts = [part_size(wanted[part], batch_size(source.train.targets), part) for part in missing]
    *drawn, train = _draw(source, counts, sizes.seed) if counts else [source.train]
    parts = dict(zip(missing, drawn, strict=True))
    validation, test = (given[part] or parts[part] for part in ("validation", "test"))
    mean, std = (source.mean, source.std) if source.mean and source.std else _statistics(train.inputs)
    fill = source.task.fill if source.task.spatial else None
    chosen = source.augmentation if augmentation is None else augmentation
    training = TensorSplit(train.inputs, train.targets, mean, std, chosen, fill)
    held_out = [TensorSplit(part.inputs, part.targets, mean, std, fill=fill) for part in (validation, test)]
    example, _ = next(training.batches(1))
    return Data(source.name, source.outputs, training, held_out[0], held_out[1], example)


def _draw(source: Source, counts: list[int], seed: int) -> list[Examples]:
    """Draw parts of these sizes; the last one is what is left."""
    generator = torch.Generator().manual_seed(seed)
    targets = source.train.targets
    if source.task.stratified:
        drawn = stratify(targets, counts, generator)
    else:
        drawn = random_parts(batch_size(targets), counts, generator)
    return [Examples(take(source.train.inputs, index), take(targets, index)) for index in drawn]


def _statistics(inputs: Inputs) -> tuple[Any, Any]:
    """Measure mean and standard deviation of each channel of each tensor."""
    if isinstance(inputs, Tensor):
        return _channel_statistics(inputs)
    found = [_channel_statistics(each) if _is_scaled(each) else (None, None) for each in tensors(inputs)]
    return [mean for mean, _ in found], [std for _, std in found]


def _is_scaled(tensor: Tensor) -> bool:
    """Whether a tensor holds measurements; whole numbers of other types are names of things."""
    return tensor.ndim > 1 and (tensor.dtype == torch.uint8 or tensor.is_floating_point())


def _channel_statistics(inputs: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
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
