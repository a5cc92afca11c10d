"""One supervised training loop with one hook; the door to what belongs to it (recipe, evaluation).

The loop never waits for the device within an epoch: losses are kept on the device and read once per epoch.
All its randomness follows from one seed, and it can be stopped at any step, stored, and continued to the same
result.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from itertools import islice
from math import fsum, isfinite
from typing import Any

import torch
from torch import Tensor, nn

from methods.contract.classification import Classification
from methods.contract.data import Batch, Split
from methods.contract.inputs import Inputs, Target, batch_size, map_tensors, pieces
from methods.contract.loop import LoopTask
from methods.contract.method import Record, Report, ignore_record
from methods.contract.recipe import Recipe, derive_seed, learning_rate
from methods.contract.task import Task
from methods.training.averaging import RunningAverage
from methods.training.batch_loss import BatchLoss
from methods.training.evaluation import Evaluation, evaluate, recalibrate, steps_remembered
from methods.training.hooks import Hook, NoHook
from methods.training.mixing import mix_inputs
from methods.training.own_loop import OwnLoop
from methods.training.precision import loss_scaler
from methods.training.recorded import RecordedPasses
from spaces import InputError

__all__ = [
    "Diverged",
    "Evaluation",
    "Hook",
    "NoHook",
    "Recipe",
    "Trainer",
    "build_optimizer",
    "derive_seed",
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
        teacher: Network to distil from; needed exactly where the recipe distils. A copy is used.
        optimizer: What to step with instead of the recipe's optimiser; its parameters are the network's.
        rate: Learning rate by index of the step, instead of the recipe's schedule.
        report: Called with one record per epoch.
        epochs_before: Epochs of earlier phases, added to ``epoch`` in records.
        steps_before: Steps of earlier phases, added to ``step`` in records.
        task: What the network is for: loss and metrics; classification by default. A :class:`LoopTask` trains in its
            own loop, which is called by :meth:`run`.
        comparable: Whether the network is as cut as it will be, so that its records compare with those of other
            trials; written into every record. Its batch norms are estimated again at the end of an epoch for as long as
            they still remember the weights before.

    Raises:
        ValueError: If ``steps`` is negative, or distillation has no teacher.
        InputError: If a loop of the user's own is to be given a teacher, an optimiser or a schedule of learning rates.
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
        task: Task | None = None,
        comparable: bool = False,
    ) -> None:
        if steps < 0:
            raise ValueError(f"steps must be at least 0, got {steps}")
        if recipe.has_teacher and teacher is None:
            what = "distill" if recipe.distill > 0 else "distill_features"
            raise ValueError(f"{what} = {getattr(recipe, what)} needs a teacher")
        self.task: Task = Classification() if task is None else task
        if isinstance(self.task, LoopTask) and (recipe.has_teacher or optimizer is not None or rate is not None):
            what = "a teacher (recipe.distill)" if recipe.has_teacher else "the optimiser or learning rates of a method"
            raise InputError(f"a loop of your own cannot be given {what}: it takes its steps itself")
        self.model, self.train, self.validation = model, train, validation
        self.recipe, self.steps, self.seed = recipe, steps, seed
        self.hook: Hook = hook or NoHook()
        self.report = report
        self.epochs_before, self.steps_before, self.comparable = epochs_before, steps_before, comparable
        self.step = 0
        self.history: list[Record] = []
        self.device = next(model.parameters()).device
        self._loss = BatchLoss(model, self.task, recipe, teacher)
        self._scaler = loss_scaler(recipe, self.device)
        if recipe.channels_last:
            model.to(memory_format=torch.channels_last)
        self.optimizer = build_optimizer(model, recipe) if optimizer is None else optimizer
        self.rate = (lambda step: learning_rate(recipe, step, steps)) if rate is None else rate
        if not isinstance(self.task, LoopTask):  # which says itself who takes the steps
            self.hook.begin(self.optimizer)
        self._recorded = RecordedPasses(model, self._backward) if self._may_record else None
        self._per_epoch = train.steps(recipe.batch_size)
        self._losses = torch.zeros(self._per_epoch, device=self.device)
        self._random: list[Tensor] = []  # states of the global generators where the last run stopped
        self._last_loss = float("nan")  # of the epoch before
        # A method that prunes acts on the weights themselves: an average, or an earlier epoch, would undo that.
        finishes = (comparable or hook is None) and not isinstance(self.task, LoopTask)
        self._average = RunningAverage(model, recipe.ema) if recipe.ema > 0 and finishes else None
        self._chooses = recipe.keep == "best" and finishes and validation is not None
        self._best: tuple[float, dict[str, Tensor]] | None = None

    @property
    def over(self) -> bool:
        """Whether the phase has ended: no step is left, or the hook has finished and the epoch is over."""
        if self.step == self.steps or isinstance(self.task, LoopTask):
            return self.step == self.steps
        return self.hook.finished and self.step % self._per_epoch == 0

    @property
    def _may_record(self) -> bool:
        """Whether passes are replayed; not where a hook changes gradients within them, for the clipping of norms."""
        within = self.recipe.clip_norm is not None and not isinstance(self.hook, NoHook)
        return self.recipe.cuda_graph and self.device.type == "cuda" and not within

    @property
    def next_rung(self) -> int:
        """Index of the step at which the present epoch, or the phase, ends; a loop of the user's own is not divided."""
        if isinstance(self.task, LoopTask):
            return self.steps
        return min(self.steps, (self.step // self._per_epoch + 1) * self._per_epoch)

    def run(self, until: int | None = None) -> list[Record]:
        """Train, and leave the network in eval mode.

        Args:
            until: Stop when so many steps have been taken in all; by default when the phase is over.

        Returns:
            The records of all epochs so far: ``epoch`` and ``step`` at its end, mean ``loss``, ``lr`` of its
            last step, ``comparable``, the task's metrics and ``val_loss`` if there is validation data, and the hook's
            numbers. A last epoch that is cut short by the end of the phase has a record too.

        Raises:
            ValueError: If ``until`` lies before the present step or after the end.
        """
        end = self.steps if until is None else until
        if not self.step <= end <= self.steps:
            raise ValueError(f"until must be between {self.step} and {self.steps}, got {end}")
        if isinstance(self.task, LoopTask):
            return self._run_loop(self.task, end)
        with _lend_generators(self.device, self._random) as generators:
            self.model.train()
            while self.step < end and not (until is None and self.over):
                self._run_epoch(end, generators)
            self._random = [generator.get_state() for generator in generators]
        self.model.eval()
        if self.step == self.steps:
            self._settle()
        if self.over and self.recipe.channels_last:
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
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "hook": self.hook.state_dict(),
            "average": None if self._average is None else (self._average.means, self._average.steps),
            "best": self._best,
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
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])
        if state["average"] is None:
            self._average = None
        elif self._average is not None:
            self._average.load(*state["average"])
        self._best = state["best"]

    def _settle(self) -> None:
        """Leave the weights in the network that are to be kept; done once, at the end of the phase."""
        if self._best is not None:
            self.model.load_state_dict(self._best[1])
        elif self._average is not None:
            self._average.swap()
        self._best, self._average = None, None

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
        loss = self._backward(*self._mix(*batch)) if self._recorded is None else self._recorded(*batch)
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.hook.before_step(self.step, lr)
        if self._scaler is None:
            self.optimizer.step()
        else:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        self.hook.after_step(self.step)
        if self._average is not None:
            self._average.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def _mix(self, inputs: Inputs, target: Target) -> tuple[Inputs, Target, Target | None, float]:
        """Mix the examples of a batch, if so asked: inputs, their targets, those of what was mixed in, own share."""
        recipe = self.recipe
        if recipe.mixup == recipe.cutmix == 0:
            return inputs, target, None, 1.0
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            raise InputError("recipe.mixup and recipe.cutmix need inputs that are one tensor of real numbers")
        seed = derive_seed(self.seed, self.step, 2)
        mixed, order, share = mix_inputs(inputs, recipe.mixup, recipe.cutmix, seed)
        return mixed, target, map_tensors(target, lambda tensor: tensor[order]), share

    def _backward(self, inputs: Inputs, target: Target, other: Target | None = None, own: float = 1.0) -> Tensor:
        """Compute loss and gradients, piece by piece if so asked."""
        if self.recipe.accumulate == 1:
            loss = self._loss(inputs, target, other, own)
            torch.autograd.backward(self._scale_loss(loss))
            return loss.detach()
        total = torch.zeros((), device=self.device)
        count = self.recipe.accumulate
        others = [None] * count if other is None else pieces(other, count)
        for x, y, z in zip(pieces(inputs, count), pieces(target, count), others, strict=True):
            loss = self._loss(x, y, z, own) * (batch_size(x) / batch_size(inputs))
            torch.autograd.backward(self._scale_loss(loss))
            total += loss.detach()
        return total

    def _scale_loss(self, loss: Tensor) -> Tensor:
        return loss if self._scaler is None else self._scaler.scale(loss)

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
            "comparable": float(self.comparable),
        }
        self._record(record, losses[-1])

    def _close_own_epoch(self, step: int, lr: float, numbers: Mapping[str, float]) -> None:
        """Write the record of an epoch that a loop of the user's own has ended."""
        loss = float(numbers.get("loss", 0.0))
        if not isfinite(loss):
            raise Diverged(self.steps_before + step, self._last_loss)
        self._last_loss = loss
        record: Record = {"epoch": self.epochs_before + len(self.history) + 1, "step": self.steps_before + step}
        record["comparable"] = float(self.comparable)
        record |= {name: float(value) for name, value in numbers.items()}
        record |= {"lr": lr} if isfinite(lr) else {}
        modes = [(module, module.training) for module in self.model.modules()]
        self._record(record, loss)
        for module, mode in modes:
            module.training = mode

    def _record(self, record: Record, last_loss: float) -> None:
        """Evaluate, and complete and report the record of an epoch."""
        own_loop = isinstance(self.task, LoopTask)  # which follows its statistics itself, and need not have a loss
        if self.comparable and not own_loop and self.step <= steps_remembered(self.model):
            recipe, seed = self.recipe, derive_seed(self.seed, self.step, 3)
            recalibrate(self.model, self.train, recipe.recalibrate, recipe.batch_size, seed)
        if self.validation is not None:
            self.hook.before_evaluation()
            if self._average is not None:
                self._average.swap()
            found = evaluate(self.model, self.validation, autocast=self._loss.half, task=self.task)
            if self._chooses:
                self._choose(found.metrics)
            if self._average is not None:
                self._average.swap()
            if not isfinite(found.loss) and not own_loop:
                raise Diverged(self.steps_before + self.step, last_loss)
            record |= found.metrics
            record |= {"val_loss": found.loss} if isfinite(found.loss) else {}
        record |= self.hook.epoch_end()
        self.history.append(record)
        self.report(record)

    def _choose(self, metrics: Mapping[str, float]) -> None:
        """Keep the weights if they are the best so far by the task's first metric."""
        quality = self.task.quality
        value = metrics[quality.name]
        if self._best is None or quality.is_better(value, self._best[0]):
            self._best = value, copy.deepcopy(self.model.state_dict())

    def _run_loop(self, task: LoopTask, end: int) -> list[Record]:
        """Let a loop of the user's own take the steps up to ``end``."""
        if end > self.step:
            loop = OwnLoop(self.hook, derive_seed(self.seed, self.step), self.step, end, self._close_own_epoch)
            with _lend_generators(self.device, []) as generators:
                for generator in generators:
                    generator.manual_seed(loop.seed)
                self.model.train()
                task.fit(self.model, end - self.step, loop)
            loop.close()
            self.step = end
        self.model.eval()
        return list(self.history)


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


@contextmanager
def _lend_generators(device: torch.device, states: list[Tensor]) -> Generator[list[torch.Generator]]:
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
