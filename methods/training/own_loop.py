"""A method's hook inside a loop of the user's own: calls are counted, checked and passed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from methods.training.hooks import Hook, NoHook
from spaces import InputError

CloseEpoch = Callable[[int, float, Mapping[str, float]], None]
"""Writes the record of an epoch: step, learning rate (NaN if unknown), and the loop's own numbers."""


class OwnLoop:
    """What is handed to ``fit`` as ``hooks`` (a :class:`methods.contract.loop.LoopHooks`).

    A loop may leave calls out where no method acts in it; where one does, every step must be shown to it.

    Args:
        hook: The method's hook.
        seed: Seed of this training.
        start: Index of the first step.
        end: Index after the last step.
        close_epoch: Evaluates the network and writes a record.
    """

    def __init__(self, hook: Hook, seed: int, start: int, end: int, close_epoch: CloseEpoch) -> None:
        self.seed = seed
        self._hook, self._start, self._end, self._close_epoch = hook, start, end, close_epoch
        self._acting = not isinstance(hook, NoHook)
        self._step, self._recorded, self._due = start, start, "before_batch"
        self._optimizer: torch.optim.Optimizer | None = None

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """Learn who takes the steps.

        Args:
            optimizer: The loop's optimiser.
        """
        self._optimizer = optimizer
        self._hook.begin(optimizer)

    def before_batch(self) -> None:
        """Let the method act on the weights before the forward pass."""
        self._check_order("before_batch", "before_step")
        self._hook.before_batch(self._step)

    def before_step(self) -> None:
        """Let the method act on the gradients."""
        self._check_order("before_step", "after_step")
        self._hook.before_step(self._step, self._lr)

    def after_step(self) -> None:
        """Let the method act on the weights after the optimiser's step."""
        self._check_order("after_step", "before_batch")
        self._hook.after_step(self._step)
        self._step += 1

    def epoch_end(self, numbers: Mapping[str, float] | None = None) -> None:
        """Evaluate the network and record the epoch.

        Args:
            numbers: What to record beside the metrics, such as the mean ``loss``.
        """
        self._close_epoch(self._step, self._lr, numbers or {})
        self._recorded = self._step

    def close(self) -> None:
        """Check that the whole budget was spent, and record an epoch that was not closed.

        Raises:
            InputError: If a method acts in the loop and was not shown every step.
        """
        if self._acting and self._step != self._end:
            raise InputError(
                f"fit showed {self._step - self._start} steps of {self._end - self._start} to its hooks: call "
                "hooks.before_batch(), hooks.before_step() and hooks.after_step() around every step, for the method "
                "acts in them"
            )
        self._step = self._end
        if self._recorded != self._end:
            self.epoch_end()

    @property
    def _lr(self) -> float:
        return float("nan") if self._optimizer is None else float(self._optimizer.param_groups[0]["lr"])

    def _check_order(self, name: str, following: str) -> None:
        """Check the order of calls, and that the budget is not exceeded."""
        if self._optimizer is None:
            raise InputError(f"fit calls hooks.{name}() before hooks.begin(optimizer)")
        if name != self._due:
            raise InputError(f"fit calls hooks.{name}() where hooks.{self._due}() is due")
        if self._step >= self._end:
            raise InputError(f"fit takes more than the {self._end - self._start} steps of its budget")
        self._due = following
