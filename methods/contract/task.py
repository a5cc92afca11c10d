"""What a network is for: its loss, its metrics, and the targets that its own predictions would have.

A :class:`Task` is all that methods know of the purpose of a network. Four members must be written: ``metrics``,
:meth:`Task.loss`, :meth:`Task.sums` and :meth:`Task.metrics_from`. The others have defaults; a method that needs one
which a task cannot give (drawn targets, say) refuses that task in one sentence before anything is trained.

:class:`methods.contract.classification.Classification` is the task of a :class:`methods.contract.method.Problem` unless
it names another one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from methods.contract.inputs import Target, batch_size, get_first_tensor, take
from spaces import InputError

Direction = Literal["maximize", "minimize"]
Sums = dict[str, Tensor]
"""Additive statistics of a batch or of a whole split by name; ``loss`` and ``count`` are always there."""

RESERVED = frozenset({"epoch", "step", "loss", "lr", "val_loss", "flops", "params", "seconds", "latency"})
"""Names that records and outcomes use otherwise: no metric may have one."""

OUTPUT_KEYS = ("out", "logits", "prediction", "output")
"""Where a network that returns a mapping keeps its output, unless the task says otherwise; the first that is there."""


@dataclass(frozen=True)
class Metric:
    """One number that says how good a network is.

    Attributes:
        name: Key in records, outcomes and JSON, such as ``"mean_iou"``.
        title: Words for tables and axes, such as ``"mean IoU"``.
        direction: Whether more is better.
        unit: Unit of the number; empty for shares.
        format: Format specification of Python, such as ``".2%"``.
        ideal: The best possible value; ``None`` if there is none.
        worst: The worst possible value; ``None`` if there is none.
    """

    name: str
    title: str
    direction: Direction = "maximize"
    unit: str = ""
    format: str = ".4g"
    ideal: float | None = None
    worst: float | None = None

    def text(self, value: float) -> str:
        """Format a value for a table.

        Args:
            value: The value.

        Returns:
            The number with its unit.

        Example:
            >>> Metric("accuracy", "accuracy", format=".2%").text(0.5)
            '50.00%'
        """
        return f"{value:{self.format}} {self.unit}".rstrip()

    def is_better(self, one: float, other: float) -> bool:
        """Compare two values.

        Args:
            one: A value.
            other: Another value.

        Returns:
            Whether the first is strictly better.
        """
        return one > other if self.direction == "maximize" else one < other


class Task(ABC):
    """What a network is for.

    A batch goes this way: ``answer = call(model, inputs)``, whatever the network returns; ``output =
    task.output(answer)``, the tensor that predictions are read from; ``task.loss(output, target)``. While training,
    :meth:`training_loss` sees the whole answer, so that auxiliary outputs count.

    A task holds no state and is pickled into every trial.
    """

    name: ClassVar[str]
    """How the task is called in messages, such as ``"segmentation"``."""
    metrics: tuple[Metric, ...]
    """What is measured; the first is the quality that methods keep and searches maximise."""
    output_key: str | int | None = None
    """Which entry of a mapping or tuple is the output; ``None`` for the first of :data:`OUTPUT_KEYS` in a mapping."""
    stratified: ClassVar[bool] = False
    """Whether targets are whole numbers of classes, one per example, so that parts are drawn class by class."""

    spatial: ClassVar[bool] = False
    """Whether targets are maps ``[batch, height, width]`` that are cropped and mirrored with the images."""
    fill: int = 0
    """What augmentation puts into such a map outside the image."""

    @property
    def quality(self) -> Metric:
        """The first metric."""
        return self.metrics[0]

    @abstractmethod
    def loss(self, output: Tensor, target: Target, label_smoothing: float = 0.0) -> Tensor:
        """Compute the loss that training minimises.

        Args:
            output: What :meth:`output` gave, ``[batch, ...]``.
            target: What the data hold for the batch.
            label_smoothing: Share of the target that is spread evenly over the classes; a task without classes
                refuses a value above 0.

        Returns:
            The mean loss, a scalar.
        """

    @abstractmethod
    def sums(self, output: Tensor, target: Target) -> Sums:
        """Compute the statistics of a batch from which metrics follow.

        Args:
            output: What :meth:`output` gave, ``[batch, ...]``.
            target: What the data hold for the batch.

        Returns:
            Tensors that add up over batches, on the device: ``loss``, the sum of losses; ``count``, of how many of
            them; and the metrics' own.
        """

    @abstractmethod
    def metrics_from(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Compute the metrics of a whole split.

        Args:
            sums: What :meth:`sums` gave, added up over all batches, float64 on the CPU.

        Returns:
            A value for each metric, by name.
        """

    def output(self, answer: Any) -> Tensor:
        """Take from what a network returned the tensor that predictions are read from.

        Args:
            answer: A tensor; or a mapping (also a ``ModelOutput`` of Hugging Face) or a tuple, of which the entry
                :attr:`output_key` counts.

        Returns:
            The output, ``[batch, ...]``.

        Raises:
            InputError: If there is no tensor where it should be.
        """
        found = answer
        if isinstance(answer, Mapping):
            keys = OUTPUT_KEYS if self.output_key is None else (self.output_key,)
            found = next((answer[key] for key in keys if key in answer), None)
            if found is None and self.output_key is None and len(answer) == 1:
                found = next(iter(answer.values()))
            if not isinstance(found, Tensor):
                raise InputError(
                    f"the network returns a dict with {', '.join(map(repr, answer))}; the {self.name} task looks for "
                    f"a tensor under {' or '.join(map(repr, keys))}: set output_key of the task to the right one "
                    "(task_options = { output_key = ... })"
                )
        elif isinstance(answer, tuple | list):
            if not isinstance(self.output_key, int) or not -len(answer) <= self.output_key < len(answer):
                raise InputError(
                    f"the network returns a {type(answer).__name__} of {len(answer)}; set output_key of the "
                    f"{self.name} task to the place of its output (task_options = {{ output_key = 0 }} for the first)"
                )
            found = answer[self.output_key]
        if not isinstance(found, Tensor):
            kind = type(found).__name__
            raise InputError(f"the {self.name} task needs a network that returns a tensor, not {kind}")
        return found

    def training_loss(self, answer: Any, target: Target, label_smoothing: float = 0.0) -> Tensor:
        """Compute the loss in training mode, from all that the network returned.

        Args:
            answer: What the network returned; its auxiliary outputs may count.
            target: What the data hold for the batch.
            label_smoothing: See :meth:`loss`.

        Returns:
            The mean loss, a scalar; by default that of the output alone.
        """
        return self.loss(self.output(answer), target, label_smoothing)

    def sample_losses(self, output: Tensor, target: Target) -> Tensor:
        """Compute the loss of each example by itself.

        Args:
            output: ``[batch, ...]``.
            target: What the data hold for the batch.

        Returns:
            ``[batch]``; by default :meth:`loss` of one example after the other.
        """
        return torch.stack([self.loss(output[i : i + 1], take(target, slice(i, i + 1))) for i in range(len(output))])

    def check(self, output: Tensor, target: Target) -> None:
        """Refuse a network or data that do not fit the task.

        Args:
            output: What a network gives for a few examples.
            target: The targets of these examples.

        Raises:
            InputError: If they do not belong together; what was given and what is needed.
        """
        if len(output) != batch_size(target):
            raise InputError(f"the network gives {len(output)} outputs for {batch_size(target)} targets")

    def describe_output(self, outputs: int) -> tuple[tuple[int | str, ...], str]:
        """Say what a network must answer to two inputs.

        Args:
            outputs: How many outputs the data ask for (:meth:`count_outputs`).

        Returns:
            The shape, sizes of any length by name, ``"..."`` for any further dimensions; and what in the data asks for
            it, for messages.
        """
        return (2, "..."), ""

    def check_network(self, output: Tensor, outputs: int, name: str) -> None:
        """Refuse a network whose output has another shape than :meth:`describe_output` says.

        Args:
            output: What it gives for two inputs.
            outputs: How many outputs the data ask for (:meth:`count_outputs`).
            name: The network's name, for messages.

        Raises:
            InputError: If the shape is another one.
        """
        wanted, reason = self.describe_output(outputs)
        sizes = wanted[:-1] if wanted[-1] == "..." else wanted
        fits = output.ndim >= len(sizes) if wanted[-1] == "..." else output.ndim == len(sizes)
        pairs = zip(sizes, output.shape, strict=False)
        if not fits or any(isinstance(size, int) and size != found for size, found in pairs):
            shape = ", ".join(str(size) for size in wanted)
            because = f": {reason}" if reason else ""
            raise InputError(f"model {name!r} gives {list(output.shape)} for 2 inputs instead of [{shape}]{because}")

    def convert_target(self, target: Any, where: str) -> Target:
        """Check the targets of the user's data and bring them into the form that :meth:`loss` takes.

        Args:
            target: Arrays or tensors, one entry per example along the first dimension; a tuple or dict of such.
            where: Where they come from, for messages.

        Returns:
            Tensors on the CPU; by default floats become float32 and whole numbers int64.
        """
        if isinstance(target, Mapping):
            return {name: self.convert_target(each, f"{where}: {name}") for name, each in target.items()}
        if isinstance(target, tuple):
            return tuple(self.convert_target(each, where) for each in target)
        found = self.as_tensor(target, f"{where}: targets")
        return found.to(torch.float32 if found.is_floating_point() else torch.int64)

    def count_outputs(self, target: Target, where: str) -> int:
        """Count the outputs that a network needs for these targets: it is built with this number.

        Args:
            target: The targets of the training part.
            where: Where they come from, for messages.

        Returns:
            The number of classes, or of numbers to predict; by default the second dimension of the first tensor, or 1.
        """
        first = get_first_tensor(target)
        return int(first.shape[1]) if first.ndim > 1 else 1

    @staticmethod
    def as_tensor(value: Any, what: str) -> Tensor:
        """Turn an array into a tensor.

        Args:
            value: A NumPy array, a tensor, a table or column of pandas, or nested lists of numbers.
            what: What it is, for messages.

        Returns:
            A tensor on the CPU.

        Raises:
            InputError: If it is no array of numbers.
        """
        array = np.array(value.to_numpy()) if hasattr(value, "to_numpy") else value
        try:
            return torch.as_tensor(array, device="cpu")
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{what} must be an array of numbers, not {_kind(array, what)}") from error

    @property
    def draws(self) -> bool:
        """Whether the task can draw targets (it then has a :meth:`draw_target` of its own)."""
        return type(self).draw_target is not Task.draw_target

    def draw_target(self, output: Tensor, generator: torch.Generator, like: Target = None) -> Target:
        """Draw a target for a batch from the network's own predictive distribution; a task without one refuses.

        Args:
            output: ``[batch, ...]``.
            generator: Where random numbers come from; its device need not be that of ``output``.
            like: The targets of the data: what has no loss there (ignored pixels) has none in what is drawn.

        Raises:
            InputError: If the task has no predictive distribution.
        """
        raise InputError(f"the {self.name} task draws no targets (it has no draw_target), so it has no Fisher matrix")

    def fisher_gradient(self, output: Tensor, target: Target) -> Tensor:
        """Compute what is sent backward from the output so that squares of it add up to a Fisher matrix.

        For targets from :meth:`draw_target` the expectation of ``g_b g_b^T`` must be the Hessian of the loss of
        example ``b`` at its output (where loss and predictive distribution belong together, Fisher and generalised
        Gauss-Newton matrix are one; Martens, 2020, arXiv 1412.1193, section 9.2).

        Args:
            output: ``[batch, ...]``.
            target: A target for the batch.

        Returns:
            ``g``, like the output; by default the gradient of :meth:`sample_losses`, which is right where these are
            negative log-likelihoods.
        """
        free = output.detach().requires_grad_(True)
        with torch.enable_grad():
            total = self.sample_losses(free, target).sum()
        return torch.autograd.grad(total, free)[0]

    def exact_gradients(self, output: Tensor, target: Target) -> Iterator[Tensor]:
        """Yield gradients whose squares add up to the Fisher matrix without anything being drawn.

        Args:
            output: ``[batch, ...]``.
            target: The targets of the data, which have no part in it.

        Yields:
            Tensors like the output; the sum of ``g_b g_b^T`` over them is the Hessian of the loss of example ``b``.

        Raises:
            InputError: If there are too many outcomes to go through.
        """
        raise InputError(
            f"the {self.name} task has no exact Fisher matrix: its outcomes are too many to go through; "
            "draw targets instead (fisher_type = 'mc')"
        )
        yield output  # makes this a generator like the others

    def distill(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Measure how far a student is from its teacher, 0 where they agree; a task without such a measure refuses.

        Args:
            output: The student's output, ``[batch, ...]``.
            teacher: The teacher's output, ``[batch, ...]``.
            temperature: Softness of both, for tasks with classes.

        Raises:
            InputError: If the task has no such measure.
        """
        raise InputError(f"the {self.name} task has no distillation (it has no distill); set recipe.distill = 0")


def check_metrics(task: Task) -> None:
    """Refuse a task whose metrics cannot be told apart in records.

    Args:
        task: The task.

    Raises:
        InputError: If it has no metric, two of one name, or one with a name that records use otherwise.
    """
    names = [metric.name for metric in task.metrics]
    if not names:
        raise InputError(f"the {task.name} task has no metrics; the first one is the quality that pruning keeps")
    for name in names:
        if name in RESERVED or names.count(name) > 1 or not name.isidentifier():
            raise InputError(
                f"the {task.name} task cannot call a metric {name!r}: names are identifiers, each used once, and not "
                f"{', '.join(sorted(RESERVED))}"
            )


def say_shapes(output: Tensor, target: Target) -> str:
    """Name the shapes of outputs and targets, for messages.

    Args:
        output: What a network gave.
        target: What it was to give.

    Returns:
        Both shapes; of targets that are no tensor, their class.
    """
    given = list(target.shape) if isinstance(target, Tensor) else type(target).__name__
    return f"outputs {list(output.shape)} and targets {given}"


def _kind(value: Any, what: str) -> str:
    """Say what is given in place of numbers."""
    hint = " (numpy.unique(labels, return_inverse=True)[1] numbers classes)" if what.endswith("labels") else ""
    if not hasattr(value, "dtype"):
        words = isinstance(value, list | tuple) and any(isinstance(each, str) for each in value)
        return f"a {type(value).__name__} of words{hint}" if words else type(value).__name__
    return f"an array of words{hint}" if value.dtype.kind in "US" else f"an array of {value.dtype}"
