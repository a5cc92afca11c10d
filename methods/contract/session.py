"""Rungs: where a trial can be stopped, saved and gone on with.

A method is deterministic given its generator. An interrupted trial is therefore *replayed*: ``prune`` runs again from
its beginning, but what was costly is loaded instead of computed. Two things are costly, and a method hands both to the
session of its problem under names of its own, each used once in a trial:

* training: ``records = problem.session.train("finetune", trainer)`` instead of ``trainer.run()``. Every end of an
  epoch is a *rung*: there the session may save the trainer, and may stop the trial by raising :class:`Paused`.
* other deterministic work: ``problem.session.compute_once("scores", compute)`` returns the tensors that ``compute``
  returns.

Everything between must be repeatable: draw from the problem's generator alone, and read what training has found from
the network or from a hook whose ``state_dict`` holds it.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from methods.contract.analyses import Settings, Tensors

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
    """A trial was stopped or paused at a rung; not an error.

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

    history: list[dict[str, float]]
    report: Callable[[dict[str, float]], None]

    @property
    def over(self) -> bool:
        """Whether the phase has ended."""

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
    """Where the costly parts of a trial run; see the module for what a method owes it.

    Attributes:
        earlier_seconds: How long earlier runs of the trial took to get to what was loaded.
    """

    earlier_seconds: float

    def train(self, name: str, trainer: Resumable) -> Sequence[dict[str, float]]:
        """Run a training phase to its end, or load it where it was run before.

        Args:
            name: Name of the phase, used once in a trial.
            trainer: The phase, as it was built.

        Returns:
            The records of all its epochs; a :class:`Paused` is raised at a rung where the trial is not to go on.
        """

    def compute_once(self, name: str, compute: Callable[[], Tensors]) -> Tensors:
        """Do a costly deterministic step, or load what it gave before.

        Args:
            name: Name of the step, used once in a trial.
            compute: Does it; what it returns depends on nothing but the trial. It draws nothing from the problem's
                generator, for it may not be called.

        Returns:
            Tensors by name; not to be changed.
        """


@dataclass(frozen=True)
class TrialAnalyses:
    """Analyses of what a trial has made of the network so far: of use to this trial alone, once.

    Attributes:
        session: Remembers them.
        stage: Name of the stage of the trial that the network is in.
    """

    session: Session
    stage: str

    def get(self, name: str, settings: Settings, compute: Callable[[], Tensors]) -> Tensors:
        """Return an analysis.

        Args:
            name: Which analysis.
            settings: All that decides it beside the network and the data.
            compute: Computes it.

        Returns:
            Tensors by name.
        """
        return self.session.compute_once(f"{self.stage}/{name}/{sorted(settings.items())}", compute)


class Uninterrupted:
    """The session of a trial that runs from its beginning to its end and saves nothing."""

    earlier_seconds = 0.0

    def train(self, name: str, trainer: Resumable) -> list[dict[str, float]]:
        """Run a training phase to its end.

        Args:
            name: Name of the phase.
            trainer: The phase.

        Returns:
            The records of all its epochs.
        """
        return trainer.run()

    def compute_once(self, name: str, compute: Callable[[], Tensors]) -> Tensors:
        """Do a costly step.

        Args:
            name: Name of the step.
            compute: Does it.

        Returns:
            What it returned.
        """
        return compute()


class States(Protocol):
    """Where the states of one trial are kept, as bytes."""

    def get(self, name: str) -> bytes | None:
        """Return what was put last.

        Args:
            name: Name of a phase or a step.

        Returns:
            The bytes; ``None`` if there are none.
        """

    def put(self, name: str, state: bytes) -> None:
        """Keep a state in place of the one before; a kill leaves the one or the other.

        Args:
            name: Name of a phase or a step.
            state: The bytes.
        """


def go_on(rung: Rung) -> Decision:
    """Let every trial run to its end.

    Args:
        rung: A rung, ignored.

    Returns:
        ``"continue"``.
    """
    return "continue"


class Saved:
    """A session that keeps every rung, takes up what was kept, and asks at every rung whether to go on.

    Args:
        states: Where the states of the trial are kept.
        decide: Asked at the end of every epoch, when its state has been kept.
        clock: Seconds that only ever grow.
    """

    def __init__(
        self, states: States, decide: Callable[[Rung], Decision] = go_on, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.earlier_seconds = 0.0
        self._states, self._decide, self._clock = states, decide, clock
        self._began = clock()
        self._used: set[str] = set()

    def train(self, name: str, trainer: Resumable) -> list[dict[str, float]]:
        """Run a training phase from its last rung to its end.

        Args:
            name: Name of the phase.
            trainer: The phase, as it was built.

        Returns:
            The records of all its epochs, of which those that were loaded are reported again.

        Raises:
            Paused: At a rung where the trial is not to go on.
        """
        state = self._load(name)
        if state is not None:
            trainer.load_state_dict(state)
            for record in trainer.history:
                trainer.report(dict(record))
        while not trainer.over:
            trainer.run(until=trainer.next_rung)
            self._keep(name, trainer.state_dict())
            rung = Rung(name, dict(trainer.history[-1]))
            decision = self._decide(rung)
            if decision != "continue":
                raise Paused(rung, decision)
        return trainer.run()  # no step is left: the network is handed over in eval mode

    def compute_once(self, name: str, compute: Callable[[], Tensors]) -> Tensors:
        """Do a costly step, or load what it gave before.

        Args:
            name: Name of the step.
            compute: Does it.

        Returns:
            What it returned.
        """
        found: Tensors | None = self._load(name)
        if found is None:
            found = compute()
            self._keep(name, found)
        return found

    def _load(self, name: str) -> Any:
        if name in self._used:
            raise RuntimeError(f"the name {name!r} of a phase or step was used twice in one trial")
        self._used.add(name)
        kept = self._states.get(name)
        if kept is None:
            return None
        loaded = torch.load(io.BytesIO(kept), weights_only=True)  # tensors return to the device they were on
        self.earlier_seconds = max(self.earlier_seconds, loaded["seconds"])
        return loaded["state"]

    def _keep(self, name: str, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save({"seconds": self.earlier_seconds + self._clock() - self._began, "state": state}, buffer)
        self._states.put(name, buffer.getvalue())
