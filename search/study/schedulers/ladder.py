"""How far the trials of a sweep are, as its scheduler sees them, and which leg each runs next."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec, history_to_rung
from search.study.samplers.base import CostOf
from search.study.schedulers.base import Reached, Scheduler, Standing
from search.study.schedulers.none import NoScheduler
from spaces import InputError


class Ladder:
    """Keeps where each trial stands, and asks the scheduler.

    Args:
        scheduler: Decides at rungs.
        steps: Budget of every trial in optimiser steps.
        cost: The exact cost of a point; ``None`` where nothing is known of costs.
    """

    def __init__(self, scheduler: Scheduler | None = None, steps: int = 1, cost: CostOf | None = None) -> None:
        self.scheduler = scheduler or NoScheduler()
        self._steps = steps
        self._cost = cost
        self._standings: dict[int, Standing] = {}
        self._specs: dict[int, TrialSpec] = {}

    @property
    def idle(self) -> bool:
        """Whether no trial has a rung."""
        return isinstance(self.scheduler, NoScheduler)

    def begin(self, spec: TrialSpec) -> TrialSpec:
        """Take in a trial that begins.

        Args:
            spec: The trial.

        Returns:
            The trial with the rung that it runs to.
        """
        if self.idle:
            return spec
        cost = None if self._cost is None else self._cost(spec.method, spec.point)
        self._standings[spec.number] = Standing(spec.number, spec.method, spec.point, cost)
        self._specs[spec.number] = spec
        return self._leg(spec.number)

    def result(self, spec: TrialSpec, outcome: Outcome) -> Outcome | None:
        """Say what came of a leg, by all that is known of its trial.

        Args:
            spec: The leg.
            outcome: What its trial came to so far.

        Returns:
            An outcome that is paused at the leg's rung, or the final one; ``None`` if the trial has come to neither.
        """
        history = history_to_rung(outcome.history, spec.until, self._steps)
        if history is not None:
            epoch = f"paused at epoch {history[-1]['epoch']:g}"
            records = [dict(record) for record in history]
            return replace(outcome, state="paused", metrics={}, history=records, widths={}, error=epoch)
        return None if outcome.state == "paused" else outcome

    def pause(self, outcome: Outcome) -> str:
        """Take in a trial that stands at a rung.

        Args:
            outcome: The trial, its last record that of the rung.

        Returns:
            What becomes of it: ``"continue"``, ``"pause"`` or ``"stop"``.

        Raises:
            InputError: If the scheduler answers anything else, or lets a trial go on to a rung that it has passed.
        """
        before = self._standings[outcome.number]
        record = outcome.history[-1]
        reached = Reached(record["step"] / self._steps, record)
        standing = replace(before, rungs=(*before.rungs, reached), state="paused")
        self._standings[outcome.number] = standing
        decision = self._ask("decide", standing, self._list_standings())
        if decision not in ("continue", "pause", "stop"):
            raise InputError(f"the scheduler decides {decision!r}; allowed are 'continue', 'pause' and 'stop'")
        return str(decision)

    def end(self, outcome: Outcome) -> None:
        """Take in a trial that has ended.

        Args:
            outcome: Its outcome.
        """
        if self.idle:
            return
        state = outcome.state if outcome.state in ("complete", "stopped") else "failed"
        ended = replace(self._standings[outcome.number], state=state, metrics=outcome.metrics)
        self._standings[outcome.number] = ended

    def promote(self) -> TrialSpec | None:
        """Have a trial chosen that waits at a rung.

        Returns:
            Its next leg; ``None`` for none.

        Raises:
            InputError: If the scheduler chooses one that does not wait.
        """
        if not self.waiting:
            return None
        number = self._ask("promote", self._list_standings())
        if number is None:
            return None
        if number not in self.waiting:
            raise InputError(f"the scheduler promotes trial {number!r}, which is not paused; paused are {self.waiting}")
        return self.go_on(number)

    def go_on(self, number: int) -> TrialSpec:
        """Let a paused trial go on.

        Args:
            number: Its number.

        Returns:
            Its next leg.
        """
        self._standings[number] = replace(self._standings[number], state="running")
        return self._leg(number)

    @property
    def waiting(self) -> list[int]:
        """Numbers of the trials that are paused, ascending."""
        return sorted(number for number, each in self._standings.items() if each.state == "paused")

    def _ask(self, act: str, *given: Any) -> Any:
        """Ask the scheduler; what it raises becomes an error in the user's words."""
        try:
            return getattr(self.scheduler, act)(*given)
        except InputError:
            raise
        except Exception as error:  # anything may go wrong in somebody else's class
            raise InputError(f"the scheduler's {act} failed: {type(error).__name__}: {error}") from error

    def _list_standings(self) -> list[Standing]:
        return [self._standings[number] for number in sorted(self._standings)]

    def _leg(self, number: int) -> TrialSpec:
        """Say how far the next leg of a trial goes."""
        standing = self._standings[number]
        share = self._ask("next_rung", standing)
        if share is None:
            return replace(self._specs[number], until=None)
        passed = int(standing.rungs[-1].record["step"]) if standing.rungs else 0
        if not (isinstance(share, int | float) and 0 < share <= 1):
            raise InputError(f"the scheduler names a rung at {share!r} of the budget; allowed are shares in 0..1")
        # behind the last rung in any case: a leg that takes no step would never end
        return replace(self._specs[number], until=max(math.ceil(share * self._steps), passed + 1))
