"""In which order trials are asked and told: the same, however the workers race.

Trial ``n`` is asked when exactly the trials ``0 .. n - lag`` have been told, and trials are told in order of
number. A worker that finishes early is remembered (its files are on disk) and told when its turn comes. The
price is small: only a trial slower than ``lag - workers`` others can keep a worker waiting. In return, the same
seed gives the same sweep on any number of workers up to ``lag``, and an interrupted sweep goes on as if
nothing had happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec

MIN_LAG = 6
"""Trials that may be asked and not told on up to three workers."""


def lag_for(slots: int) -> int:
    """Choose how many trials may be asked and not told.

    Args:
        slots: How many trials run at a time.

    Returns:
        Twice the slots, at least :data:`MIN_LAG`. So slots are at least 90 % busy where the longest trial takes four
        times as long as the shortest; with fewer, the trials in front of a slow one run out.
    """
    return max(MIN_LAG, 2 * slots)


class Asked(Protocol):
    """What the schedule needs of a study."""

    def asked(self) -> list[TrialSpec]:
        """Return the trials asked and not told, ascending."""

    def told(self) -> int:
        """Return how many trials have been told."""

    def ask(self) -> TrialSpec:
        """Return the next trial."""

    def tell(self, outcome: Outcome) -> None:
        """Take the result of a trial.

        Args:
            outcome: The finished trial.
        """


class Schedule:
    """Hands out trials and takes results in.

    Args:
        study: Where trials are asked and told.
        total: How many trials there shall be.
        lag: How many trials may be asked and not told.
        finished: Looks up the outcome of a trial that finished before an interruption, ``None`` if it did not.
        on_finished: Called once for every trial that finishes now, in order of finishing.
        over: Whether the sweep shall end before all trials are run; asked before each is handed out.
    """

    def __init__(
        self,
        study: Asked,
        total: int,
        lag: int,
        finished: Callable[[int], Outcome | None],
        on_finished: Callable[[Outcome], None],
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._study = study
        self._total = total
        self._lag = lag
        self._on_finished = on_finished
        self._over = over
        self._told = study.told()
        self._ready: deque[TrialSpec] = deque()
        self._untold: dict[int, Outcome] = {}
        pending = study.asked()
        self._asked = self._told + len(pending)
        for spec in pending:
            outcome = finished(spec.number)
            if outcome is None:
                self._ready.append(spec)
            else:
                self._untold[spec.number] = outcome
        self.running: dict[int, TrialSpec] = {}
        self._advance()

    @property
    def done(self) -> bool:
        """Whether every trial has been told."""
        return self._told >= self._total

    @property
    def exhausted(self) -> bool:
        """Whether no further trial will be handed out."""
        return self._over() or (self._asked >= self._total and not self._ready)

    def next(self) -> TrialSpec | None:
        """Hand out a trial.

        Returns:
            The trial, now running; ``None`` if there is none to hand out at the moment.
        """
        if not self._ready or self._over():
            return None
        spec = self._ready.popleft()
        self.running[spec.number] = spec
        return spec

    def finish(self, outcome: Outcome) -> None:
        """Take the result of a trial that was handed out.

        Args:
            outcome: The finished trial.
        """
        del self.running[outcome.number]
        self._untold[outcome.number] = outcome
        self._on_finished(outcome)
        self._advance()

    def _advance(self) -> None:
        """Tell what can be told in order; after every telling ask what may then be asked."""
        self._ask()
        while self._told in self._untold:
            self._study.tell(self._untold.pop(self._told))
            self._told += 1
            self._ask()

    def _ask(self) -> None:
        while self._asked < self._total and self._asked - self._told < self._lag:
            self._ready.append(self._study.ask())
            self._asked += 1
