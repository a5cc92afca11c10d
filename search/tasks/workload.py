"""A workload: which network is pruned, and on what data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from methods.contract.classification import Classification
from methods.contract.inputs import Inputs, call, dtypes_of, get_first_tensor, shapes_of
from methods.contract.loop import LoopTask
from methods.contract.task import Task
from search.tasks.data.augmentations import UserAugmentation
from search.tasks.data.own_loop import make_loop_data
from search.tasks.data.parts import Data
from search.tasks.data.sets import load_data
from search.tasks.data.sizes import SplitSizes
from search.tasks.models import build_with_fit
from search.tasks.models.formats import image_format
from search.tasks.models.weights import Fit
from spaces import InputError


def task_identity(task: Task) -> dict[str, Any]:
    """Describe what a task changes in a result, as JSON.

    Args:
        task: The task.

    Returns:
        ``{"task": text}``; nothing for plain classification, whose results were stored before there were other tasks.
    """
    kind, options = type(task), {name: repr(value) for name, value in sorted(vars(task).items())}
    if kind is Classification and not options:
        return {}
    # Results are stored under the place where our own classification was defined first.
    home = "methods.contract.task" if kind is Classification else kind.__module__
    return {"task": f"{home}.{kind.__qualname__} {options}"}


@dataclass(frozen=True)
class Workload:
    """A network and its data, on the CPU.

    Attributes:
        model: A name of ours, ``torchvision:NAME`` or ``package.module:function``.
        data: The three parts.
        split: The sizes and the seed they were drawn by.
        seed: Decides the initial weights.
        weights: Trained weights of the dense network: a file or a torchvision enum; ``None`` if it is trained.
        task: What the network is for.
        freeze_backbone: Whether only a new head is trained, where the weights are for other outputs.
    """

    model: str
    data: Data
    split: SplitSizes
    seed: int
    weights: str | None = None
    task: Task = field(default_factory=Classification)
    freeze_backbone: bool = False

    @classmethod
    def load(
        cls,
        model: str,
        data: str,
        data_root: Path,
        split: SplitSizes,
        seed: int,
        weights: str | None = None,
        task: Task | None = None,
        augment: str | None = None,
        freeze_backbone: bool = False,
    ) -> Workload:
        """Load the data; networks are built by :meth:`build`.

        Args:
            model: A name of ours, ``torchvision:NAME`` or ``package.module:function``.
            data: A name of ours or ``package.module:function``.
            data_root: Where data sets lie, or are downloaded to.
            split: Sizes of the parts, and the seed that draws them.
            seed: Decides the initial weights.
            weights: A weight file or a torchvision enum; ``None`` to train.
            task: What the network is for; classification by default.
            augment: What happens to training images; ``None`` for the data set's own.
            freeze_backbone: Whether only a new head is trained.

        Returns:
            The workload.
        """
        task = Classification() if task is None else task
        if isinstance(task, LoopTask):
            return cls(model, make_loop_data(task), split, seed, weights, task)
        data_set = load_data(data, data_root, split, task, augment, image_format(model))
        return cls(model, data_set, split, seed, weights, task, freeze_backbone)

    @property
    def example(self) -> Inputs:
        """One input, ``[1, channels, ...]``, or a tuple or dict of such tensors."""
        return self.data.example

    def build(self) -> nn.Module:
        """Build the network; every call gives the same one.

        Returns:
            The network in training mode, with the user's weights or initial ones.
        """
        return self.build_with_fit()[0]

    def build_with_fit(self) -> tuple[nn.Module, Fit]:
        """Build the network, and say how the user's weights fitted it.

        Returns:
            The network in training mode, and what of the weights fitted.
        """
        return build_with_fit(self.model, self.data.outputs, self.example, self.seed, self.weights, self.task)

    def check(self, model: nn.Module) -> None:
        """Refuse a network whose outputs do not belong to the targets of the data.

        Args:
            model: The network, on the CPU; not changed. An ``InputError`` says what does not fit.
        """
        if isinstance(self.task, LoopTask):
            return
        batches = [next(iter(self.data.train.batches(2)))]
        if isinstance(getattr(self.data.train, "augmentation", None), UserAugmentation):
            batches.append(next(iter(self.data.train.epoch(2, 0))))  # what training will see
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            with torch.no_grad():
                for place, (inputs, target) in enumerate(batches):
                    self.task.check(self.task.output(_answer(model, inputs, augmented=place > 0)), target)
        finally:
            for module, training in modes:
                module.training = training

    def identity(self) -> dict[str, Any]:
        """Describe the task and its inputs in JSON's types, for :func:`search.tasks.models.build_model`.

        Returns:
            ``name``, ``classes`` (outputs), ``example_shape`` and ``example_dtypes``; and ``validation_examples``.
        """
        return {
            "name": self.task.name,
            "classes": self.data.outputs,
            "validation_examples": self.data.validation.examples,
            "example_shape": shapes_of(self.example),
            "example_dtypes": dtypes_of(self.example),
        }


def _answer(model: nn.Module, inputs: Inputs, augmented: bool) -> Any:
    """Call a network; what it says of inputs that the user's augmentation changed is an ``InputError``."""
    try:
        return call(model, inputs)
    except Exception as error:
        if not augmented:
            raise
        shape = list(get_first_tensor(inputs).shape)
        raise InputError(
            f"augment gives inputs of shape {shape}, on which the network fails: {' '.join(str(error).split())[:200]}"
        ) from error
