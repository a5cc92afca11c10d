"""The loss of one batch: the task's own, of mixed examples, and with what a teacher says."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs, Target, call, map_tensors
from methods.contract.recipe import Recipe
from methods.contract.task import Task
from methods.training.features import FeatureMatch, Features
from methods.training.precision import choose_half_type


class BatchLoss:
    """Computes the loss that a recipe asks for, in its precision and layout.

    Distillation is that of G. Hinton, O. Vinyals, J. Dean, 2015, arXiv 1503.02531::

        loss = (1 - distill) task(answer, target) + distill task.distill(answer, teacher's answer)
               + distill_features distance(features, teacher's features)

    Args:
        model: The network that is trained.
        task: What it is for.
        recipe: Label smoothing, distillation, precision, layout.
        teacher: Network to distil from; a copy is used, and none where the recipe does not distil.

    Attributes:
        half: In what type layers compute; ``None`` for that of the weights.
    """

    def __init__(self, model: nn.Module, task: Task, recipe: Recipe, teacher: nn.Module | None) -> None:
        self._model, self._task, self._recipe = model, task, recipe
        self._teacher = _freeze_copy(teacher) if teacher is not None and recipe.has_teacher else None
        self._match: FeatureMatch | None = None  # made with the first batch
        self._device = next(model.parameters()).device
        self.half = choose_half_type(recipe)

    def __call__(self, inputs: Inputs, target: Target, other: Target | None = None, own: float = 1.0) -> Tensor:
        """Compute the loss of a batch.

        Args:
            inputs: The batch.
            target: Its targets.
            other: Targets of what was mixed into the inputs.
            own: Share of ``target`` where there are others.

        Returns:
            The mean loss, with its graph.
        """
        recipe, task = self._recipe, self._task
        if recipe.channels_last:
            inputs = map_tensors(inputs, _channels_last)
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(self._device.type, self.half, enabled=self.half is not None))
            taught, theirs = self._ask_teacher(inputs)
            ours = {} if self._match is None else stack.enter_context(self._match.watch(self._model))
            answer = call(self._model, inputs)
            loss = task.training_loss(answer, target, recipe.label_smoothing)
            if other is not None:  # both targets, each by its share of the input
                mixed_in = task.training_loss(answer, other, recipe.label_smoothing)
                loss = own * loss + (1 - own) * mixed_in
            if recipe.distill > 0:
                apart = task.distill(task.output(answer), task.output(taught), recipe.temperature)
                loss = (1 - recipe.distill) * loss + recipe.distill * apart
            if self._match is not None:
                loss = loss + recipe.distill_features * self._match.distance(ours, theirs)
            return loss

    def _ask_teacher(self, inputs: Inputs) -> tuple[Any, Features]:
        """Ask the teacher, if there is one: its answer, and its features where they are compared."""
        if self._teacher is None:
            return None, {}
        if self._recipe.distill_features > 0:
            if self._match is None:
                self._match = FeatureMatch(self._teacher, self._model, inputs)
            return self._match.ask_teacher(inputs)
        with torch.no_grad():
            return call(self._teacher, inputs), {}


def _channels_last(tensor: Tensor) -> Tensor:
    """Lay images out with channels last; anything else stays as it is."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _freeze_copy(model: nn.Module) -> nn.Module:
    """Copy a network to be asked only: in eval mode, without gradients."""
    return copy.deepcopy(model).eval().requires_grad_(False)
