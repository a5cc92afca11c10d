"""Rungs: where a trial can be stopped, saved and gone on with.

A method is deterministic given its generator. An interrupted trial is therefore *replayed*: ``prune`` runs again from
its beginning, but what was costly is loaded instead of computed. Two things are costly, and a method hands both to the
session of its problem under names of its own, each used once in a trial:

* training: ``records = problem.session.train("finetune", trainer)`` instead of ``trainer.run()``. Every end of an
  epoch is a *rung*: there the session may save the trainer, and may stop the trial by raising :class:`Paused`.
* other deterministic work: ``problem.session.once("scores", compute)`` returns the tensors that ``compute`` returns.

Everything between must be repeatable: draw from the problem's generator alone, and read what training has found from
the network or from a hook whose ``state_dict`` holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from methods.contract.analyses import Tensors

Decision = Literal["continue", "pause", "stop"]
"""What becomes of a trial at a rung: it goes on; it ends here for now and may be gone on with; it ends for good."""


@dataclass(frozen=True)
class Rung:
    """The end of an epoch.

    Attributes:
        phase: Name of the training phase, such as ``"prune"`` or ``"finetune"``.
        record: The record of the epoch: ``epoch``, ``step``, ``loss``, the metrics on validation, ``val_loss``,
            ``comparable`` and the method's own numbers.
    """

    phase: str
    record: Mapping[str, float]

    @property
    def step(self) -> int:
        """Optimiser steps of the trial so far."""
        return int(self.record["step"])

    @property
    def comparable(self) -> bool:
        """Whether the network is as cut as it will be, so that its metrics compare with those of other trials."""
        return bool(self.record["comparable"])


class Paused(Exception):
    """A trial was told at a rung not to go on; not an error.

    Attributes:
        rung: The rung.
        decision: ``"pause"`` if the trial may be gone on with, ``"stop"`` if not.
    """

    def __init__(self, rung: Rung, decision: Decision) -> None:
        super().__init__(rung, decision)  # so that it survives pickling
        self.rung, self.decision = rung, decision

    def __str__(self) -> str:
        return f"told to {self.decision} at step {self.rung.step} ({self.rung.phase})"


class Resumable(Protocol):
    """A training phase that a session can interrupt; ``methods.training.trainer.Trainer`` is one."""

    step: int
    steps: int
    history: list[dict[str, float]]

    @property
    def next_rung(self) -> int:
        """Index of the step at which the present epoch, or the phase, ends."""

    def run(self, until: int | None = None) -> list[dict[str, float]]:
        """Train.

        Args:
            until: Stop when so many steps have been taken in all; by default when the phase is over.

        Returns:
            The records of all epochs so far.
        """

    def report(self, record: dict[str, float], /) -> None:
        """Pass a record on to whoever watches the trial.

        Args:
            record: The record of an epoch.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to continue at the present step.

        Returns:
            Tensors and plain values.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of a phase that was built with the same arguments.

        Args:
            state: What :meth:`state_dict` returned.
        """


class Session(Protocol):
    """Where the costly parts of a trial run; see the module for what a method owes it."""

    def train(self, name: str, trainer: Resumable) -> Sequence[dict[str, float]]:
        """Run a training phase to its end, or load it where it was run before.

        Args:
            name: Name of the phase, used once in a trial.
            trainer: The phase, as it was built.

        Returns:
            The records of all its epochs; a :class:`Paused` is raised at a rung where the trial is not to go on.
        """

    def once(self, name: str, compute: Callable[[], Tensors]) -> Tensors:
        """Do a costly deterministic step, or load what it gave before.

        Args:
            name: Name of the step, used once in a trial.
            compute: Does it; what it returns depends on nothing but the trial. It draws nothing from the problem's
                generator, for it may not be called.

        Returns:
            Tensors by name; not to be changed.
        """


class Uninterrupted:
    """The session of a trial that runs from its beginning to its end and saves nothing."""

    def train(self, name: str, trainer: Resumable) -> list[dict[str, float]]:
        """Run a training phase to its end.

        Args:
            name: Name of the phase.
            trainer: The phase.

        Returns:
            The records of all its epochs.
        """
        return trainer.run()

    def once(self, name: str, compute: Callable[[], Tensors]) -> Tensors:
        """Do a costly step.

        Args:
            name: Name of the step.
            compute: Does it.

        Returns:
            What it returned.
        """
        return compute()
