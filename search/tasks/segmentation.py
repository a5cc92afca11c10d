"""Semantic segmentation: one class per pixel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.contract.classification import distill_softmax, draw_labels, softmax_residual
from methods.contract.inputs import Target
from methods.contract.task import Metric, Sums, Task
from spaces import InputError

IGNORED = 255
"""The label of pixels that do not count, as in PASCAL VOC and Cityscapes."""


class Segmentation(Task):
    """One class per pixel: pixel cross-entropy, mean intersection over union, a label drawn for every pixel.

    Outputs are logits ``[batch, classes, height, width]``, targets labels ``[batch, height, width]`` (int64).

    The loss is the mean of the cross-entropy over all pixels of a batch that count. Mean IoU is the mean over classes
    of ``TP / (TP + FP + FN)``, counted over the whole split; classes that neither occur nor are predicted are left
    out (Everingham et al., 2010, "The PASCAL Visual Object Classes Challenge").

    Args:
        ignore_index: Label of pixels that do not count.
        output_key: Which entry of a returned mapping is the output; ``None`` for ``out`` or ``logits``.
        aux_weight: Weight, 0 or more, of the same loss at the auxiliary outputs of a returned mapping (every other
            entry of the output's kind, such as torchvision's ``aux``) while training.
    """

    name: ClassVar[str] = "segmentation"
    metrics: tuple[Metric, ...] = (
        Metric("mean_iou", "mean IoU", format=".2%", ideal=1.0, worst=0.0),
        Metric("pixel_accuracy", "pixel accuracy", format=".2%", ideal=1.0, worst=0.0),
    )
    spatial: ClassVar[bool] = True

    def __init__(
        self, ignore_index: int = IGNORED, output_key: str | int | None = None, aux_weight: float = 0.5
    ) -> None:
        if not isinstance(ignore_index, int) or isinstance(ignore_index, bool):
            raise InputError(f"ignore_index must be a whole number, not {ignore_index!r}")
        if aux_weight < 0:
            raise InputError(f"aux_weight must be 0 or more, not {aux_weight}")
        self.ignore_index, self.output_key, self.aux_weight = ignore_index, output_key, aux_weight
        self.fill = ignore_index  # outside the image there is nothing to learn

    def loss(self, output: Tensor, target: Target, label_smoothing: float = 0.0) -> Tensor:
        """Compute the mean cross-entropy over the pixels that count.

        Args:
            output: Logits ``[batch, classes, height, width]``.
            target: Labels ``[batch, height, width]``.
            label_smoothing: Share of the target that is spread evenly over the classes.

        Returns:
            The mean, a scalar; 0 if no pixel counts.
        """
        total = F.cross_entropy(
            output, target, ignore_index=self.ignore_index, label_smoothing=label_smoothing, reduction="sum"
        )
        counting: Tensor = (target != self.ignore_index).sum().clamp_min(1)
        return total / counting

    def training_loss(self, answer: Any, target: Target, label_smoothing: float = 0.0) -> Tensor:
        """Add the losses at auxiliary outputs.

        Args:
            answer: What the network returned; of a mapping every tensor of the output's kind counts.
            target: Labels ``[batch, height, width]``.
            label_smoothing: See :meth:`loss`.

        Returns:
            The mean loss, a scalar.
        """
        output = self.output(answer)
        loss = self.loss(output, target, label_smoothing)
        if not isinstance(answer, Mapping) or self.aux_weight == 0:
            return loss
        for each in answer.values():
            if isinstance(each, Tensor) and each is not output and each.shape == output.shape:
                loss = loss + self.aux_weight * self.loss(each, target, label_smoothing)
        return loss

    def sample_losses(self, output: Tensor, target: Target) -> Tensor:
        """Compute the mean cross-entropy of each image.

        Args:
            output: Logits ``[batch, classes, height, width]``.
            target: Labels ``[batch, height, width]``.

        Returns:
            ``[batch]``.
        """
        losses = F.cross_entropy(output, target, ignore_index=self.ignore_index, reduction="none").flatten(1)
        return losses.sum(1) / self._count_pixels(target)

    def sums(self, output: Tensor, target: Target) -> Sums:
        """Add up losses and count pixels by true and predicted class.

        Args:
            output: Logits ``[batch, classes, height, width]``.
            target: Labels ``[batch, height, width]``.

        Returns:
            ``loss``, ``count`` (pixels), and ``confusion`` ``[classes, classes]``, true class first.
        """
        classes, counting = output.shape[1], target != self.ignore_index
        loss = F.cross_entropy(output, target, ignore_index=self.ignore_index, reduction="sum")
        pairs = target[counting] * classes + output.argmax(dim=1)[counting]
        confusion = torch.bincount(pairs, minlength=classes**2).view(classes, classes)
        return {"loss": loss, "count": counting.sum(), "confusion": confusion}

    def metrics_from(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Compute the mean intersection over union, and the share of right pixels.

        Args:
            sums: Of a whole split.

        Returns:
            ``mean_iou`` and ``pixel_accuracy``; 0 if no pixel counts.
        """
        confusion = sums["confusion"].double()
        hits = confusion.diagonal()  # TP
        union = confusion.sum(0) + confusion.sum(1) - hits  # TP + FP + FN
        there = union > 0
        if not bool(there.any()):
            return {"mean_iou": 0.0, "pixel_accuracy": 0.0}
        mean = float((hits[there] / union[there]).mean())
        return {"mean_iou": mean, "pixel_accuracy": float(hits.sum() / confusion.sum())}

    def check(self, output: Tensor, target: Target) -> None:
        """Refuse anything but logits and labels of one size.

        Args:
            output: Logits ``[batch, classes, height, width]``.
            target: Labels ``[batch, height, width]``.

        Raises:
            InputError: If shapes do not fit.
        """
        given = list(target.shape) if isinstance(target, Tensor) else type(target).__name__
        wanted = (*output.shape[:1], *output.shape[2:]) if output.ndim == 4 else None
        if wanted is None or not isinstance(target, Tensor) or tuple(target.shape) != wanted:
            raise InputError(
                "segmentation needs outputs [batch, classes, height, width] and labels [batch, height, width] of the "
                f"same height and width, not outputs {list(output.shape)} and labels {given}"
            )

    def describe_output(self, outputs: int) -> tuple[tuple[int | str, ...], str]:
        """Say that there is one logit per class and pixel.

        Args:
            outputs: Classes of the data.

        Returns:
            The shape for two inputs, and why.
        """
        return (2, outputs, "height", "width"), f"the data has {outputs} classes"

    def convert_target(self, target: Any, where: str) -> Tensor:
        """Bring labels into int64.

        Args:
            target: Whole numbers ``[examples, height, width]``.
            where: Where they come from, for messages.

        Returns:
            Labels ``[examples, height, width]``.

        Raises:
            InputError: If they are anything else.
        """
        labels = self.as_tensor(target, f"{where}: labels")
        if labels.ndim == 4 and labels.shape[1] == 1:
            labels = labels[:, 0]  # masks often come with a channel
        whole = not labels.is_floating_point() and not labels.is_complex() and labels.dtype != torch.bool
        if labels.ndim != 3 or not whole:
            raise InputError(
                f"{where}: labels of segmentation must be whole numbers [examples, height, width], not {labels.dtype} "
                f"{list(labels.shape)}"
            )
        labels = labels.to(torch.int64)
        counting = labels[labels != self.ignore_index]
        if counting.numel() and int(counting.min()) < 0:
            raise InputError(
                f"{where}: label {int(counting.min())} is no class; pixels that do not count have ignore_index = "
                f"{self.ignore_index}"
            )
        return labels

    def count_outputs(self, target: Target, where: str) -> int:
        """Count the classes: one more than the largest label that counts.

        Args:
            target: Labels of the training part.
            where: Where they come from, for messages.

        Returns:
            Classes.

        Raises:
            InputError: If there are fewer than two, or more than there are pixels.
        """
        counting = target[target != self.ignore_index]
        classes = int(counting.max()) + 1 if counting.numel() else 0
        if classes < 2:
            raise InputError(f"{where}: there must be at least 2 classes, the largest label is {classes - 1}")
        if classes > counting.numel():
            raise InputError(
                f"{where}: labels go up to {classes - 1}, but only {counting.numel()} pixels count; number the classes "
                "from 0, and give ignore_index for pixels that do not count"
            )
        return classes

    def draw_target(self, output: Tensor, generator: torch.Generator, like: Target = None) -> Tensor:
        """Draw a label for every pixel from its softmax; pixels are independent given the network's output.

        Args:
            output: Logits ``[batch, classes, height, width]``.
            generator: Where random numbers come from.
            like: Labels of the data: pixels that do not count there do not count in what is drawn.

        Returns:
            Labels ``[batch, height, width]``.
        """
        rows = output.detach().movedim(1, -1).flatten(0, -2).softmax(dim=1)
        drawn = draw_labels(rows, generator).view(len(output), *output.shape[2:])
        return drawn if like is None else drawn.where(like != self.ignore_index, like)

    def fisher_gradient(self, output: Tensor, target: Target) -> Tensor:
        """Compute ``(p - e_y) / sqrt(pixels)`` at every pixel that counts.

        The loss of an image is the mean over its ``P`` pixels, ``L = -1/P sum_i log p_i(y_i)``. Its Hessian at the
        logits is ``1/P diag_i(diag(p_i) - p_i p_i^T)``. Labels of different pixels are drawn independently, so that
        ``E[(p_i - e_i)(p_j - e_j)^T]`` is ``diag(p_i) - p_i p_i^T`` for ``i = j`` and 0 else: one factor
        ``1/sqrt(P)`` makes both agree (Martens, 2020, arXiv 1412.1193, section 9.2).

        Args:
            output: Logits ``[batch, classes, height, width]``.
            target: Labels ``[batch, height, width]``.

        Returns:
            ``[batch, classes, height, width]``, 0 at pixels that do not count.
        """
        counting = target != self.ignore_index
        rows = output.detach().movedim(1, -1).flatten(0, -2).softmax(dim=1)
        residual = softmax_residual(rows, target.where(counting, torch.zeros_like(target)).flatten())
        residual = residual.view(len(output), *output.shape[2:], -1).movedim(-1, 1)
        scale = counting.to(residual.dtype) / self._count_pixels(target).to(residual.dtype).sqrt()[:, None, None]
        gradient: Tensor = residual * scale[:, None]
        return gradient

    def exact_gradients(self, output: Tensor, target: Target) -> Iterator[Tensor]:
        """Refuse: there would be a backward pass for every class of every pixel.

        Args:
            output: Logits ``[batch, classes, height, width]``.
            target: Not looked at.

        Raises:
            InputError: Always.
        """
        raise InputError(
            f"the exact Fisher matrix of segmentation takes {output[0].numel()} backward passes, one for each class of "
            "each pixel; draw labels instead (fisher_type = 'mc')"
        )

    def distill(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Measure the divergence from a teacher, pixel by pixel (Hinton et al., 2015, arXiv 1503.02531).

        Args:
            output: The student's logits ``[batch, classes, height, width]``.
            teacher: The teacher's logits, likewise.
            temperature: What both are divided by.

        Returns:
            Mean over pixels of the divergence times the squared temperature.
        """
        student, wanted = (each.movedim(1, -1).flatten(0, -2) for each in (output, teacher))
        return distill_softmax(student, wanted, temperature)

    def _count_pixels(self, target: Tensor) -> Tensor:
        """How many pixels of each image count, at least 1: ``[batch]``."""
        return (target != self.ignore_index).flatten(1).sum(1).clamp_min(1)
