"""The data of a task with a loop of its own: nothing but lengths and, where the task shows them, inputs."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from typing import Literal

from methods.contract.data import Batch
from methods.contract.inputs import check_inputs, leaves, move, shapes_of
from methods.contract.loop import LoopTask
from search.tasks.data.parts import Data
from spaces import InputError


class OwnLoopSplit:
    """One part of data that only a loop of the user's own reads (a :class:`methods.contract.data.Split`).

    Args:
        task: The loop.
        part: Which part it is.
        device: Where inputs are handed out.
    """

    def __init__(self, task: LoopTask, part: Literal["train", "validation", "test"], device: str = "cpu") -> None:
        self.task, self.part, self.device = task, part, device

    @property
    def examples(self) -> int:
        """How many steps an epoch has: examples are the loop's own affair."""
        return self.task.steps_per_epoch

    def to(self, device: str) -> OwnLoopSplit:
        """Return the split with its inputs on a device.

        Args:
            device: ``"cpu"``, ``"cuda"`` and so on.

        Returns:
            A copy.
        """
        return OwnLoopSplit(self.task, self.part, device)

    def steps(self, batch_size: int) -> int:
        """Return how many optimiser steps the loop takes in an epoch.

        Args:
            batch_size: Not used.

        Returns:
            Steps per epoch.
        """
        return self.task.steps_per_epoch

    def epoch(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Yield the inputs that the task shows, without targets.

        Args:
            batch_size: Examples per batch.
            seed: Decides which.
            start: How many batches are passed over.

        Yields:
            Inputs and ``None``.
        """
        for step, inputs in enumerate(self.task.inputs(batch_size, seed)):
            if step >= start:
                yield move(inputs, self.device), None

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield the inputs that the task shows, always the same; its example where it shows none.

        Args:
            batch_size: Examples per batch.

        Yields:
            Inputs and ``None``.
        """
        yield from self.epoch(batch_size, 0)
        if next(self.task.inputs(batch_size, 0), None) is None:
            yield move(self.task.example(), self.device), None

    def fingerprint(self) -> str:
        """Return a hash of what decides the loop's data.

        Returns:
            Hexadecimal digits; of the task's ``fingerprint`` if it has such a method or attribute, else of its source.
        """
        own = getattr(self.task, "fingerprint", None)
        text = str(own() if callable(own) else own) if own is not None else inspect.getsource(type(self.task))
        return hashlib.sha256(f"{self.part} {text}".encode()).hexdigest()


def make_loop_data(task: LoopTask) -> Data:
    """Make the parts of a task with a loop of its own.

    Args:
        task: The loop.

    Returns:
        Three parts without batches, and the loop's example.

    Raises:
        InputError: If the loop does not say how long an epoch is, or its example is no batch of one input.
    """
    steps = getattr(task, "steps_per_epoch", None)
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"the {task.name} task must have steps_per_epoch, a whole number of at least 1, not {steps!r}")
    example = check_inputs(task.example(), f"example of the {task.name} task")
    if any(len(each) != 1 for each in leaves(example)):
        raise InputError(f"example of the {task.name} task must be one input [1, ...], not {shapes_of(example)}")
    train, validation, test = (OwnLoopSplit(task, part) for part in ("train", "validation", "test"))
    return Data(task.name, 0, train, validation, test, example)
