from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.study.schedule import Schedule, lag_for
from tests.search.cases import outcome


class Recorded:
    """A study in memory that notes what had been told whenever something is asked."""

    def __init__(self) -> None:
        self.told_numbers: list[int] = []
        self.open: dict[int, TrialSpec] = {}
        self.seen: dict[int, tuple[list[int], list[int]]] = {}

    def open_trials(self) -> list[TrialSpec]:
        return [self.open[number] for number in sorted(self.open)]

    def count_told(self) -> int:
        return len(self.told_numbers)

    def ask(self) -> TrialSpec:
        number = len(self.told_numbers) + len(self.open)
        self.seen[number] = (list(self.told_numbers), sorted(self.open))
        self.open[number] = TrialSpec(number, "random", {}, seed=0)
        return self.open[number]

    def tell(self, outcome: Outcome) -> None:
        del self.open[outcome.number]
        self.told_numbers.append(outcome.number)

    def pause(self, outcome: Outcome) -> None:
        raise AssertionError("no trial has a rung")


def race(
    study: Recorded, total: int, lag: int, workers: int, draw: random.Random, stop_after: int | None = None
) -> bool:
    """Run a schedule with workers that finish in random order; stop as a killed driver would."""
    done: dict[int, Outcome] = DISK[id(study)]
    schedule = Schedule(study, total, lag, done.get, lambda _: None)
    events = 0
    while not schedule.done:
        while len(schedule.running) < workers and schedule.next() is not None:
            pass
        assert schedule.running, "nothing runs and nothing is done: stuck"
        number = draw.choice(sorted(schedule.running))
        done[number] = outcome(number)  # the worker writes before the driver hears of it
        events += 1
        if events == stop_after:
            return False
        schedule.finish(done[number])
    assert schedule.exhausted and schedule.next() is None
    return True


DISK: dict[int, dict[int, Outcome]] = {}


def make_fresh() -> Recorded:
    study = Recorded()
    DISK[id(study)] = {}
    return study


@given(total=st.integers(1, 30), lag=st.integers(1, 8), workers=st.integers(1, 8), seed=st.integers(0, 999))
def test_what_a_question_knows_does_not_depend_on_the_race(total: int, lag: int, workers: int, seed: int) -> None:
    study = make_fresh()
    assert race(study, total, lag, workers, random.Random(seed))
    assert study.told_numbers == list(range(total))
    for number, (told, pending) in study.seen.items():
        assert told == list(range(max(0, number - lag + 1)))
        assert pending == list(range(max(0, number - lag + 1), number))


@given(total=st.integers(2, 20), lag=st.integers(1, 6), seed=st.integers(0, 999), data=st.data())
def test_a_killed_driver_changes_nothing(total: int, lag: int, seed: int, data: st.DataObject) -> None:
    study, draw = make_fresh(), random.Random(seed)
    uninterrupted = make_fresh()
    race(uninterrupted, total, lag, 2, random.Random(seed))
    while not race(study, total, lag, 2, draw, stop_after=data.draw(st.integers(1, total))):
        pass
    assert study.told_numbers == list(range(total))
    assert study.seen == uninterrupted.seen


def test_finished_trials_are_not_handed_out_again() -> None:
    study = make_fresh()
    first = Schedule(study, 4, 4, lambda _: None, lambda _: None)
    assert [spec.number for _ in range(2) if (spec := first.next())] == [0, 1]
    resumed = Schedule(study, 4, 4, {1: outcome(1)}.get, lambda _: None)
    handed = []
    while (spec := resumed.next()) is not None:
        handed.append(spec.number)
    assert handed == [0, 2, 3]


def test_every_finished_trial_is_heard_of_once_in_order_of_finishing() -> None:
    study, heard = make_fresh(), []
    schedule = Schedule(study, 3, 3, lambda _: None, lambda o: heard.append(o.number))
    for _ in range(3):
        schedule.next()
    for number in (2, 0, 1):
        schedule.finish(outcome(number))
    assert heard == [2, 0, 1]
    assert study.told_numbers == [0, 1, 2]


@pytest.mark.parametrize("slots", [1, 2, 3, 8, 16])
@pytest.mark.parametrize("longest", [1.0, 4.0])
def test_slots_are_kept_busy_with_the_lag_of_a_sweep(slots: int, longest: float) -> None:
    study, draw = make_fresh(), random.Random(1)
    schedule = Schedule(study, 10 * slots, lag_for(slots), lambda _: None, lambda _: None)
    running: list[tuple[float, int]] = []
    now = busy = 0.0
    while not schedule.done:
        while len(running) < slots and (spec := schedule.next()) is not None:
            length = draw.uniform(1.0, longest)
            busy += length
            heapq.heappush(running, (now + length, spec.number))
        now, number = heapq.heappop(running)
        schedule.finish(outcome(number))
    assert busy / (now * slots) >= 0.9
