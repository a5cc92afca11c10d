"""What a method does while a network is trained: the hook around every optimiser step."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from methods.contract.method import Record


class Hook(Protocol):
    """What a method does while the loop runs; a class that inherits this does nothing but what it overrides.

    In every step: :meth:`before_batch`, forward and backward passes, :meth:`before_step`, the optimiser's step,
    :meth:`after_step`. At the end of an epoch: :meth:`before_evaluation`, if there is validation data, then
    :meth:`epoch_end`. Weights, gradients and buffers are best changed in place: passes that are replayed
    (``recipe.cuda_graph``) have to be recorded again for what lies elsewhere.
    """

    finished: bool = False
    """Whether what the hook is there for is done: the phase then ends with the epoch."""

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
