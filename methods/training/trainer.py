"""One supervised training loop with one hook; the door to what belongs to it (recipe, evaluation).

The loop never waits for the device within an epoch: losses are kept on the device and read once per epoch.
All its randomness follows from one seed, and it can be stopped at any step, stored, and continued to the same
result.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import islice
from math import fsum, isfinite
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.contract.data import Batch, Split
from methods.contract.method import Record, Report, ignore_record
from methods.contract.recipe import Recipe, derive_seed, learning_rate
from methods.training.evaluation import Evaluation, evaluate, recalibrate

__all__ = [
    "Diverged",
    "Evaluation",
    "Hook",
    "NoHook",
    "Recipe",
    "Trainer",
    "build_optimizer",
    "derive_seed",
    "distillation",
    "evaluate",
    "learning_rate",
    "recalibrate",
]


class Diverged(RuntimeError):
    """Training left the finite numbers.

    Attributes:
        step: Index of the first step with a loss that is not finite.
        last_finite_loss: Loss of the step before; ``nan`` if there is none.
    """

    def __init__(self, step: int, last_finite_loss: float) -> None:
        # Both numbers go to the base class so that the error survives pickling between processes.
        super().__init__(step, last_finite_loss)
        self.step = step
        self.last_finite_loss = last_finite_loss

    def __str__(self) -> str:
        return (
            f"training diverged: the loss is not finite at step {self.step} "
            f"(it was {self.last_finite_loss:.4g} before); a smaller learning rate may help"
        )


class Hook(Protocol):
    """What a method does while the loop runs; a class that inherits this does nothing but what it overrides.

    In every step: :meth:`before_batch`, forward and backward passes, :meth:`before_step`, the optimiser's step,
    :meth:`after_step`. At the end of an epoch: :meth:`before_evaluation`, if there is validation data, then
    :meth:`epoch_end`.
    """

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """Learn who takes the steps; called once, when the trainer is built.

        Args:
            optimizer: The trainer's optimiser, the same one from the first step to the last.
        """
        return

    def before_batch(self, step: int) -> None:
        """Act on the weights before the forward passes of a step (one for every piece of the batch).

        Args:
            step: Index of the step, from 0.
        """
        return

    def before_step(self, step: int, lr: float) -> None:
        """Act on the gradients, after ``backward`` (and clipping) and before the optimiser's step.

        Args:
            step: Index of the step, from 0.
            lr: Learning rate of the step.
        """
        return

    def after_step(self, step: int) -> None:
        """Act on the weights after the optimiser's step.

        Args:
            step: Index of the step, from 0.
        """
        return

    def before_evaluation(self) -> None:
        """Make the network the one whose accuracy counts; it is trained on as it is left here."""
        return

    def epoch_end(self) -> Record:
        """Return quantities for the record of the epoch; the only place where a hook may wait for the device.

        Returns:
            Numbers by name.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to continue.

        Returns:
            Tensors and plain values.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state.

        Args:
            state: What :meth:`state_dict` returned.
        """
        return


class NoHook(Hook):
    """A hook that does nothing."""


class Trainer:
    """Trains a network in place for a fixed number of optimiser steps.

    Args:
        model: The network, on its device.
        train: Training data.
        recipe: Optimiser, schedule, loss, precision.
        steps: Length of the phase in optimiser steps; the schedule spans it.
        seed: Decides the order of the data, augmentation and dropout entirely.
        validation: Evaluated after each epoch if given.
        hook: Called around each optimiser step; it is handed the optimiser at once.
        teacher: Network to distil from; needed exactly when ``recipe.distill > 0``. A copy is used.
        optimizer: What to step with instead of the recipe's optimiser; its parameters are the network's.
        rate: Learning rate by index of the step, instead of the recipe's schedule.
        report: Called with one record per epoch.
        epochs_before: Epochs of earlier phases, added to ``epoch`` in records.
        steps_before: Steps of earlier phases, added to ``step`` in records.

    Raises:
        ValueError: If ``steps`` is negative, or distillation has no teacher.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Split,
        recipe: Recipe,
        steps: int,
        seed: int,
        *,
        validation: Split | None = None,
        hook: Hook | None = None,
        teacher: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        rate: Callable[[int], float] | None = None,
        report: Report = ignore_record,
        epochs_before: int = 0,
        steps_before: int = 0,
    ) -> None:
        if steps < 0:
            raise ValueError(f"steps must be at least 0, got {steps}")
        if recipe.distill > 0 and teacher is None:
            raise ValueError(f"distill = {recipe.distill} needs a teacher")
        self.model, self.train, self.validation = model, train, validation
        self.recipe, self.steps, self.seed = recipe, steps, seed
        self.hook: Hook = hook or NoHook()
        self.report = report
        self.epochs_before, self.steps_before = epochs_before, steps_before
        self.step = 0
        self.history: list[Record] = []
        self.device = next(model.parameters()).device
        self._teacher = _frozen_copy(teacher) if teacher is not None and recipe.distill > 0 else None
        self._format = torch.channels_last if recipe.channels_last else None
        if recipe.channels_last:
            model.to(memory_format=torch.channels_last)
        self.optimizer = build_optimizer(model, recipe) if optimizer is None else optimizer
        self.rate = (lambda step: learning_rate(recipe, step, steps)) if rate is None else rate
        self.hook.begin(self.optimizer)
        self._per_epoch = train.steps(recipe.batch_size)
        self._losses = torch.zeros(self._per_epoch, device=self.device)
        self._random: list[Tensor] = []  # states of the global generators where the last run stopped
        self._last_loss = float("nan")  # of the epoch before

    def run(self, until: int | None = None) -> list[Record]:
        """Train, and leave the network in eval mode.

        Args:
            until: Stop when so many steps have been taken in all; by default when the phase is over.

        Returns:
            The records of all epochs so far: ``epoch`` and ``step`` at its end, mean ``loss``, ``lr`` of its
            last step, ``accuracy`` and ``val_loss`` if there is validation data, and the hook's numbers. A
            last epoch that is cut short by the end of the phase has a record too.

        Raises:
            ValueError: If ``until`` lies before the present step or after the end.
        """
        end = self.steps if until is None else until
        if not self.step <= end <= self.steps:
            raise ValueError(f"until must be between {self.step} and {self.steps}, got {end}")
        with _own_randomness(self.device, self._random) as generators:
            self.model.train()
            while self.step < end:
                self._run_epoch(end, generators)
            self._random = [generator.get_state() for generator in generators]
        self.model.eval()
        if self.step == self.steps and self.recipe.channels_last:
            self.model.to(memory_format=torch.contiguous_format)
        return list(self.history)

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of all that is needed to continue at the present step.

        Returns:
            Tensors and plain values, fit for ``torch.save``.
        """
        return copy.deepcopy({
            "step": self.step,
            "history": self.history,
            "losses": self._losses,
            "last_loss": self._last_loss,
            "random": self._random,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "hook": self.hook.state_dict(),
        })

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of a trainer that was built with the same arguments.

        Args:
            state: What :meth:`state_dict` returned; not changed and not kept.
        """
        state = copy.deepcopy(state)
        self.step, self.history = state["step"], state["history"]
        self._losses, self._random = state["losses"], state["random"]
        self._last_loss = state["last_loss"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.hook.load_state_dict(state["hook"])

    def _run_epoch(self, end: int, generators: list[torch.Generator]) -> None:
        """Go on to the end of the epoch or to step ``end``, whichever comes first."""
        epoch, start = divmod(self.step, self._per_epoch)
        if start == 0:
            for generator in generators:  # dropout and the like, drawn from the global generators
                generator.manual_seed(derive_seed(self.seed, epoch, 1))
        stop = min(self._per_epoch, start + end - self.step)
        batches = self.train.epoch(self.recipe.batch_size, seed=derive_seed(self.seed, epoch), start=start)
        lr = 0.0
        for position, batch in enumerate(islice(batches, stop - start), start):
            lr = self.rate(self.step)
            self._losses[position] = self._step(batch, lr)
            self.step += 1
        if self.step != epoch * self._per_epoch + stop:
            raise ValueError(
                f"the training data ended after {self.step - epoch * self._per_epoch} batches of an epoch, "
                f"{self._per_epoch} were promised"
            )
        if stop == self._per_epoch or self.step == self.steps:
            self._close_epoch(epoch, stop, lr)

    def _step(self, batch: Batch, lr: float) -> Tensor:
        """Take one optimiser step and return its loss, on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.hook.before_batch(self.step)
        loss = self._backward(*batch)
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.hook.before_step(self.step, lr)
        self.optimizer.step()
        self.hook.after_step(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def _backward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Compute loss and gradients, piece by piece if so asked."""
        if self.recipe.accumulate == 1:
            loss = self._loss(inputs, labels)
            torch.autograd.backward(loss)
            return loss.detach()
        total = torch.zeros((), device=self.device)
        pieces = self.recipe.accumulate
        for x, y in zip(inputs.tensor_split(pieces), labels.tensor_split(pieces), strict=True):
            loss = self._loss(x, y) * (len(x) / len(inputs))
            torch.autograd.backward(loss)
            total += loss.detach()
        return total

    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        if self._format is not None and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=self._format)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            logits = self.model(inputs)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
            if self._teacher is None:
                return loss
            with torch.no_grad():
                target = self._teacher(inputs)
            share = self.recipe.distill
            return (1 - share) * loss + share * distillation(logits, target, self.recipe.temperature)

    def _close_epoch(self, epoch: int, taken: int, lr: float) -> None:
        """Read the losses, check them, and write the record of the epoch."""
        losses = self._losses[:taken].tolist()
        for position, loss in enumerate(losses):
            if not isfinite(loss):
                before = losses[position - 1] if position else self._last_loss
                raise Diverged(self.steps_before + self.step - taken + position, before)
        self._last_loss = losses[-1]
        record: Record = {
            "epoch": self.epochs_before + epoch + 1,
            "step": self.steps_before + self.step,
            "loss": fsum(losses) / taken,
            "lr": lr,
        }
        if self.validation is not None:
            self.hook.before_evaluation()
            found = evaluate(self.model, self.validation, bf16=self.recipe.bf16)
            if not isfinite(found.loss):
                raise Diverged(self.steps_before + self.step, losses[-1])
            record |= {"accuracy": found.accuracy, "val_loss": found.loss}
        record |= self.hook.epoch_end()
        self.history.append(record)
        self.report(record)


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Build the optimiser of a recipe, fused where the device has a fused one.

    Args:
        model: The network; parameters that need no gradient are left out.
        recipe: Which optimiser, and its settings.

    Returns:
        The optimiser, with weights and one-dimensional parameters in separate groups.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim > 1 or recipe.decay_norm]
    others = [p for p in parameters if p.ndim <= 1 and not recipe.decay_norm]
    decays = ((decayed, recipe.weight_decay), (others, 0.0))
    groups = [{"params": members, "weight_decay": decay} for members, decay in decays if members]
    fused = parameters[0].device.type in ("cpu", "cuda")
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=fused)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=fused)


def distillation(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Measure how far a student is from its teacher (Hinton, Vinyals, Dean, 2015, arXiv 1503.02531).

    Args:
        logits: The student's answers ``[batch, classes]``.
        target: The teacher's answers ``[batch, classes]``.
        temperature: What both are divided by.

    Returns:
        Mean Kullback–Leibler divergence times the squared temperature, so that its gradient keeps its size. Taken in
        float32 at least: in bfloat16 the divergence of near answers is nothing but rounding.
    """
    precise = torch.promote_types(logits.dtype, torch.float32)
    student = F.log_softmax(logits.to(precise) / temperature, dim=-1)
    teacher = F.log_softmax(target.to(precise) / temperature, dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


@contextmanager
def _own_randomness(device: torch.device, states: list[Tensor]) -> Generator[list[torch.Generator]]:
    """Lend the global generators, which dropout uses, and give them back as they were."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    before = [generator.get_state() for generator in generators]
    try:
        for generator, state in zip(generators, states, strict=False):
            generator.set_state(state)
        yield generators
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


def _frozen_copy(model: nn.Module) -> nn.Module:
    """Copy a network to be asked only: in eval mode, without gradients."""
    return copy.deepcopy(model).eval().requires_grad_(False)
