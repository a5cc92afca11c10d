"""In which order trials are asked and told: the same, however the workers race.

Trial ``n`` is asked when exactly the trials ``0 .. n - lag`` have been told, and trials are told in order of
number. A worker that finishes early is remembered (its files are on disk) and told when its turn comes. The
price is small: only a trial slower than ``lag - workers`` others can keep a worker waiting. In return, the same
seed gives the same sweep on any number of workers up to ``lag``, and an interrupted sweep goes on as if
nothing had happened.

With rungs the order is one of *legs*: a trial runs to its next rung or to its end, leg ``k`` is chosen when exactly the
legs ``0 .. k - lag`` have been taken in, and is a trial that goes on at once, one that the scheduler promotes, or a new
one. A trial that waits at a rung has been asked and not told. So decisions do not depend on the race either: they
follow from the results, which are on disk, and are made again when a sweep is resumed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.study.schedulers.ladder import Ladder

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

    def open_trials(self) -> list[TrialSpec]:
        """Return the trials asked and not told, ascending."""

    def count_told(self) -> int:
        """Return how many trials have been told."""

    def ask(self) -> TrialSpec:
        """Return the next trial."""

    def tell(self, outcome: Outcome) -> None:
        """Take the result of a trial.

        Args:
            outcome: The finished trial.
        """

    def pause(self, outcome: Outcome) -> None:
        """Take note of a trial that stands at a rung.

        Args:
            outcome: The trial so far.
        """


class Schedule:
    """Hands out trials and takes results in.

    Args:
        study: Where trials are asked and told.
        total: How many trials there shall be.
        lag: How many legs may be chosen and not taken in.
        finished: Looks up the outcome of a trial that finished, or paused, before an interruption; ``None`` if it did
            neither.
        on_finished: Called once for every trial that finishes, or pauses, now, in order of finishing.
        over: Whether the sweep shall end before all trials are run; asked before each leg is handed out.
        ladder: Where trials wait; nowhere by default.
        stop: Makes a paused trial a stopped one, on disk, and returns its outcome.
    """

    def __init__(
        self,
        study: Asked,
        total: int,
        lag: int,
        finished: Callable[[int], Outcome | None],
        on_finished: Callable[[Outcome], None],
        over: Callable[[], bool] = lambda: False,
        ladder: Ladder | None = None,
        stop: Callable[[Outcome], Outcome] = lambda outcome: replace(outcome, state="stopped"),
    ) -> None:
        self._study, self._total, self._lag = study, total, lag
        self._finished, self._on_finished, self._over, self._stop = finished, on_finished, over, stop
        self._ladder = ladder or Ladder()
        self._known = {spec.number: spec for spec in study.open_trials()}
        self._existing = study.count_told() + len(self._known)
        # Where nothing waits, legs are trials, and those that were told need not be looked at again.
        self._asked = self._taken = self._chosen = study.count_told() if self._ladder.idle else 0
        self._ready: deque[TrialSpec] = deque()
        self._untaken: dict[int, Outcome | None] = {}
        self._place: dict[int, int] = {}
        self._going_on: deque[int] = deque()
        self._paused: dict[int, Outcome] = {}
        self._open = 0
        self._closed = False
        self.running: dict[int, TrialSpec] = {}
        self._advance()

    @property
    def done(self) -> bool:
        """Whether every trial has been told."""
        return self._closed

    @property
    def exhausted(self) -> bool:
        """Whether no further trial will be handed out."""
        asked = self._asked >= self._total and not self._ready
        return self._over() or self._closed or (asked and self._ladder.idle)

    def next(self) -> TrialSpec | None:
        """Hand out a trial, for one leg.

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
            outcome: The trial, finished or paused.

        Raises:
            RuntimeError: If a trial paused before the rung that it was to run to.
        """
        spec = self.running.pop(outcome.number)
        result = self._ladder.result(spec, outcome)
        if result is None:
            raise RuntimeError(f"trial {outcome.number} paused before the rung that it was to run to")
        self._untaken[self._place[outcome.number]] = result
        self._on_finished(result)
        self._advance()

    def _advance(self) -> None:
        """Take in what can be taken in, in order; after each, choose the leg that is due then."""
        self._choose()
        while self._taken in self._untaken and not self._closed:
            self._take(self._untaken.pop(self._taken))
            self._taken += 1
            self._choose()

    def _take(self, result: Outcome | None) -> None:
        """Take in what came of a leg; ``None`` for a place in the order that nothing was there for."""
        if result is None:
            return
        self._open -= 1
        if result.state != "paused":
            self._ladder.end(result)
            self._study.tell(result)
            return
        self._study.pause(result)
        self._paused[result.number] = result
        match self._ladder.pause(result):
            case "continue":
                self._going_on.append(result.number)
            case "stop":
                self._end(result.number)

    def _choose(self) -> None:
        """Choose the legs that are due; an empty place is one that nothing was there for at its turn."""
        while self._chosen - self._taken < self._lag and not self._closed:
            spec = self._take_next_leg()
            if spec is None and self._open == 0:
                for number in self._ladder.waiting:
                    self._end(number)
                self._closed = True
                return
            result = None
            if spec is not None:
                self._open += 1
                self._place[spec.number] = self._chosen
                before = self._finished(spec.number)
                result = None if before is None else self._ladder.result(spec, before)
            if spec is not None and result is None:
                self._ready.append(spec)
            else:
                self._untaken[self._chosen] = result
            self._chosen += 1

    def _take_next_leg(self) -> TrialSpec | None:
        if self._going_on:
            return self._ladder.go_on(self._going_on.popleft())
        promoted = self._ladder.promote()
        if promoted is not None or self._asked >= self._total:
            return promoted
        number, self._asked = self._asked, self._asked + 1
        if number >= self._existing:
            return self._ladder.begin(self._study.ask())
        known = self._known.get(number)
        if known is None:  # it has been told
            before = self._finished(number)
            assert before is not None
            known = TrialSpec(number, before.method, before.point, before.seed)
        return self._ladder.begin(known)

    def _end(self, number: int) -> None:
        """End a paused trial for good."""
        before = self._finished(number)
        if before is None or before.state == "paused":
            before = self._stop(self._paused[number])
            self._on_finished(before)
        self._ladder.end(before)
        self._study.tell(before)
