"""The task of most networks: one class per example, by cross-entropy, and what it draws from the softmax."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.contract.inputs import Target
from methods.contract.task import Metric, Sums, Task, say_shapes
from spaces import InputError


class Classification(Task):
    """One class per example: cross-entropy, accuracy, labels drawn from the softmax.

    Outputs are logits ``[batch, classes]``, targets labels ``[batch]`` (int64).

    Args:
        output_key: Which entry of a returned mapping or tuple holds the logits.

    Example:
        >>> task = Classification()
        >>> logits, labels = torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])
        >>> task.metrics_from(task.sums(logits, labels))
        {'accuracy': 0.5}
    """

    name: ClassVar[str] = "classification"
    metrics: tuple[Metric, ...] = (Metric("accuracy", "accuracy", format=".2%", ideal=1.0, worst=0.0),)
    stratified: ClassVar[bool] = True

    def __init__(self, output_key: str | int | None = None) -> None:
        if output_key is not None:
            self.output_key = output_key

    def loss(self, output: Tensor, target: Target, label_smoothing: float = 0.0) -> Tensor:
        """Compute the mean cross-entropy.

        Args:
            output: Logits ``[batch, classes]``.
            target: Labels ``[batch]``.
            label_smoothing: Share of the target that is spread evenly over the classes.

        Returns:
            The mean, a scalar.
        """
        return F.cross_entropy(output, target, label_smoothing=label_smoothing)

    def sample_losses(self, output: Tensor, target: Target) -> Tensor:
        """Compute the cross-entropy of each example.

        Args:
            output: Logits ``[batch, classes]``.
            target: Labels ``[batch]``.

        Returns:
            ``[batch]``.
        """
        return F.cross_entropy(output, target, reduction="none")

    def sums(self, output: Tensor, target: Target) -> Sums:
        """Add up cross-entropies and count right answers.

        Args:
            output: Logits ``[batch, classes]``.
            target: Labels ``[batch]``.

        Returns:
            ``loss``, ``count`` and ``hits``.
        """
        return {
            "loss": F.cross_entropy(output, target, reduction="sum"),
            "count": torch.full((), len(target), device=output.device),
            "hits": (output.argmax(dim=-1) == target).sum(),
        }

    def metrics_from(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Compute the share of right answers.

        Args:
            sums: Of a whole split.

        Returns:
            ``accuracy``: an exact count divided by the number of examples.
        """
        return {"accuracy": int(sums["hits"]) / int(sums["count"])}

    def check(self, output: Tensor, target: Target) -> None:
        """Refuse anything but logits and labels.

        Args:
            output: Logits ``[batch, classes]``.
            target: Labels ``[batch]``.

        Raises:
            InputError: If shapes do not fit.
        """
        if output.ndim != 2 or not isinstance(target, Tensor) or target.shape != output.shape[:1]:
            raise InputError(
                f"classification needs outputs [batch, classes] and labels [batch], not {say_shapes(output, target)}"
            )

    def describe_output(self, outputs: int) -> tuple[tuple[int | str, ...], str]:
        """Say that there is one logit per class.

        Args:
            outputs: Classes of the data.

        Returns:
            The shape for two inputs, and why.
        """
        return (2, outputs), f"the data has {outputs} classes"

    def convert_target(self, target: Any, where: str) -> Tensor:
        """Bring labels into int64.

        Args:
            target: Whole numbers from 0, ``[examples]``.
            where: Where they come from, for messages.

        Returns:
            Labels ``[examples]``.

        Raises:
            InputError: If they are anything else.
        """
        labels = self.as_tensor(target, f"{where}: labels")
        if labels.ndim != 1:
            hint = "; of labels with one place for each class, give labels.argmax(1)" if labels.ndim == 2 else ""
            raise InputError(f"{where}: labels {list(labels.shape)} must have the shape [examples]{hint}")
        whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
        if labels.numel() and (not whole or int(labels.min()) < 0):
            raise InputError(
                f"{where}: labels must be whole numbers from 0, not {labels.dtype} from {labels.min().item()}"
            )
        return labels.to(torch.int64)

    def count_outputs(self, target: Target, where: str) -> int:
        """Count the classes, each of which must be there.

        Args:
            target: Labels of the training part.
            where: Where they come from, for messages.

        Returns:
            Classes.

        Raises:
            InputError: If one is absent, or there are fewer than two.
        """
        present = torch.unique(target)  # ascending; counting up to the largest label could take any amount of memory
        gaps = torch.nonzero(present != torch.arange(len(present), device=present.device)).flatten().tolist()
        if gaps:
            raise InputError(
                f"{where}: labels go up to {int(present[-1])}, but no example has label {gaps[0]}; "
                "number the classes from 0 without gaps"
            )
        if len(present) < 2:
            raise InputError(f"{where}: there must be at least 2 classes, all labels are 0")
        return len(present)

    def draw_target(self, output: Tensor, generator: torch.Generator, like: Target = None) -> Tensor:
        """Draw labels from the softmax.

        Args:
            output: Logits ``[batch, classes]``.
            generator: Where random numbers come from.
            like: Not used.

        Returns:
            Labels ``[batch]``.
        """
        return draw_labels(output.detach().softmax(dim=1), generator)

    def fisher_gradient(self, output: Tensor, target: Target) -> Tensor:
        """Compute the gradient of the cross-entropy at the logits.

        Args:
            output: Logits ``[batch, classes]``.
            target: Labels ``[batch]``.

        Returns:
            ``p - e_y``, ``[batch, classes]``.
        """
        return softmax_residual(output.detach().softmax(dim=1), target)

    def exact_gradients(self, output: Tensor, target: Target) -> Iterator[Tensor]:
        """Go through all classes, each weighted by its probability.

        Args:
            output: Logits ``[batch, classes]``.
            target: Labels, not looked at.

        Yields:
            ``sqrt(p_c) (p - e_c)``, ``[batch, classes]``, whose squares add up to ``diag(p) - p p^T``.
        """
        probabilities = output.detach().softmax(dim=1)
        for label in range(probabilities.shape[1]):
            every = torch.full((len(output),), label, dtype=torch.long, device=output.device)
            # sum_c p_c (p - e_c)(p - e_c)^T = diag(p) - p p^T
            yield probabilities[:, label, None].sqrt() * softmax_residual(probabilities, every)

    def distill(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Measure the divergence from a teacher (Hinton, Vinyals, Dean, 2015, arXiv 1503.02531).

        Args:
            output: The student's logits ``[batch, classes]``.
            teacher: The teacher's logits ``[batch, classes]``.
            temperature: What both are divided by.

        Returns:
            See :func:`distill_softmax`.
        """
        return distill_softmax(output, teacher, temperature)


def draw_labels(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one label per row.

    The cumulative distribution is inverted rather than ``torch.multinomial`` called: that waits for the device, and
    on a GPU probabilities that are not numbers would end the process.

    Args:
        probabilities: ``[rows, classes]``, rows that add up to 1.
        generator: Where uniform numbers come from; its device need not be that of ``probabilities``.

    Returns:
        Labels, ``[rows]``.
    """
    uniform = torch.rand(len(probabilities), 1, generator=generator, device=generator.device, dtype=torch.float64).to(
        probabilities.device, non_blocking=True
    )
    cumulative = probabilities.double().cumsum(dim=1)
    # Scaled, because a sum of rounded numbers may end below 1: no label then has probability zero.
    beaten = cumulative <= uniform * cumulative[:, -1:]
    return beaten.sum(dim=1).clamp_(max=probabilities.shape[1] - 1)


def distill_softmax(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Measure how far a student's predictions are from its teacher's (Hinton, Vinyals, Dean, 2015, arXiv 1503.02531).

    Args:
        student: Logits ``[rows, classes]``.
        teacher: Logits ``[rows, classes]``.
        temperature: What both are divided by.

    Returns:
        Mean Kullback-Leibler divergence times the squared temperature, so that its gradient keeps its size. Taken in
        float32 at least: in bfloat16 the divergence of near answers is nothing but rounding.
    """
    precise = torch.promote_types(student.dtype, torch.float32)
    found = F.log_softmax(student.to(precise) / temperature, dim=-1)
    wanted = F.log_softmax(teacher.to(precise) / temperature, dim=-1)
    return F.kl_div(found, wanted, reduction="batchmean", log_target=True) * temperature**2


def softmax_residual(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Compute the gradient of the cross-entropy at the logits.

    Args:
        probabilities: ``p``, ``[rows, classes]``.
        labels: ``y``, ``[rows]``.

    Returns:
        ``p - e_y``, ``[rows, classes]``.
    """
    return probabilities - F.one_hot(labels, probabilities.shape[1]).to(probabilities.dtype)
