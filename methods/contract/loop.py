"""A loop of the user's own: training and measuring in code that nothing here looks into.

Detectors, sequence models with their own samplers, code with several losses: what fits no :class:`Task` with a loss
of one batch is brought as a pair of functions. A method that prunes while training acts through :class:`LoopHooks`,
which the loop calls where the trainer here would; a method that cuts once only needs the loop for fine-tuning. What
looks at single batches (Fisher matrices, greedy selection by the loss, optimisers of a method's own) refuses such a
task in one sentence.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import ClassVar, NoReturn, Protocol

import torch
from torch import Tensor, nn

from methods.contract.data import Split
from methods.contract.inputs import Inputs, Target
from methods.contract.task import Sums, Task
from spaces import InputError


class LoopHooks(Protocol):
    """What a loop of the user's own calls around its steps.

    In this order::

        hooks.begin(optimizer)
        for each step:
            hooks.before_batch()    # before the forward pass
            ...                     # forward and backward
            hooks.before_step()     # gradients are there
            optimizer.step()
            hooks.after_step()
            ...                     # zero the gradients
            at the end of an epoch: hooks.epoch_end({"loss": mean_loss})
    """

    seed: int
    """Seed of this training: a loop that draws all it draws from it gives the same result again."""

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """Say which optimiser takes the steps, before the first one.

        Args:
            optimizer: The loop's optimiser.
        """

    def before_batch(self) -> None:
        """Say that a forward pass follows."""

    def before_step(self) -> None:
        """Say that gradients are complete, and the optimiser's step follows."""

    def after_step(self) -> None:
        """Say that the optimiser has taken its step."""

    def epoch_end(self, numbers: Mapping[str, float] | None = None) -> None:
        """Say that an epoch is over; the network is evaluated here.

        Args:
            numbers: What to record beside the metrics, such as the mean ``loss``.
        """


class LoopTask(Task):
    """What a network is for, where training and measuring are the user's own code.

    A subclass sets ``metrics`` and ``steps_per_epoch`` and writes :meth:`example`, :meth:`fit` and
    :meth:`evaluate`. An instance is pickled into every trial: data are best loaded where they are used.
    """

    name: ClassVar[str] = "own loop"
    steps_per_epoch: int
    """Optimiser steps that the loop takes in one epoch: budgets are given in epochs."""

    @abstractmethod
    def example(self) -> Inputs:
        """Return one input, by which the network is traced and its operations are counted.

        Returns:
            A tensor ``[1, ...]``, or a tuple or dict of such tensors, on the CPU.
        """

    @abstractmethod
    def fit(self, model: nn.Module, budget: int, hooks: LoopHooks) -> None:
        """Train a network in place.

        It may be called several times in a trial, with whatever network a method has made by then.

        Args:
            model: The network, on its device.
            budget: Optimiser steps to take, neither more nor fewer.
            hooks: To be called around every step, see :class:`LoopHooks`; needed by methods that prune while
                training.
        """

    @abstractmethod
    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """Measure a network on validation data.

        Args:
            model: The network, in eval mode.

        Returns:
            A value for every metric by name, and ``loss`` where there is one.
        """

    def evaluate_test(self, model: nn.Module) -> Mapping[str, float]:
        """Measure a network on test data; the finished front is looked at once.

        Args:
            model: The network, in eval mode.

        Returns:
            As :meth:`evaluate`; nothing where there are no test data, which is the default.
        """
        return {}

    def inputs(self, batch_size: int, seed: int) -> Iterator[Inputs]:
        """Yield training inputs, from which batch-norm statistics are estimated again after a cut.

        Args:
            batch_size: Examples per batch; a loop may use its own.
            seed: Decides which.

        Yields:
            Inputs on the CPU; none by default, so that statistics only follow while the loop trains.
        """
        yield from ()

    def measure_checked(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Measure a network and check what came back.

        Args:
            model: The network, in eval mode.
            split: Which part: its attribute ``part`` is ``"validation"`` or ``"test"``.

        Returns:
            The metrics by name.

        Raises:
            InputError: If a metric is missing or not finite.
        """
        test = getattr(split, "part", "validation") == "test"
        name = "evaluate_test" if test else "evaluate"
        found = {key: float(value) for key, value in (self.evaluate_test if test else self.evaluate)(model).items()}
        if test and not found:
            return {}
        for metric in self.metrics:
            if metric.name not in found:
                raise InputError(f"{name} of the {self.name} task gives no {metric.name!r}, only {sorted(found)}")
            if not isfinite(found[metric.name]):
                raise InputError(f"{name} of the {self.name} task gives {metric.name} = {found[metric.name]}")
        return found

    def loss(self, output: Tensor, target: Target, label_smoothing: float = 0.0) -> Tensor:
        """Refuse: the loss is inside the loop.

        Args:
            output: Not used.
            target: Not used.
            label_smoothing: Not used.
        """
        self._refuse()

    def sums(self, output: Tensor, target: Target) -> Sums:
        """Refuse: measuring is the user's own code.

        Args:
            output: Not used.
            target: Not used.
        """
        self._refuse()

    def metrics_from(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Refuse: measuring is the user's own code.

        Args:
            sums: Not used.
        """
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(f"the {self.name} task trains in a loop of its own: there is no loss of single batches")


def require_batches(task: Task, method: str, purpose: str) -> None:
    """Refuse a loop of the user's own where single batches are looked at.

    Args:
        task: What the network is for.
        method: Who needs them.
        purpose: What they are for.

    Raises:
        InputError: If the task is a loop of the user's own.
    """
    if isinstance(task, LoopTask):
        raise InputError(
            f"{method} needs the loss of single batches {purpose}, which a loop of your own does not show: use another "
            "method, or bring a Task with a loss"
        )
