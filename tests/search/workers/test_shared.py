"""Several drivers of one study: each plays the same schedule, and runs what it has claimed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from search.records.outcome import Outcome
from search.study.schedule import Schedule
from search.workers import shared
from search.workers.shared import SharedSchedule, has_ended, name_driver
from tests.search.cases import outcome
from tests.search.study.test_schedule import Recorded


class Board:
    """The claims of all drivers, in memory."""

    def __init__(self) -> None:
        self.holders: dict[int, str] = {}
        self.stale: set[int] = set()
        self.beats: list[int] = []
        self._lock = threading.Lock()

    def claim(self, number: int, driver: str, is_gone: Callable[[str], bool]) -> bool:
        with self._lock:
            holder = self.holders.get(number)
            if holder and holder != driver and not is_gone(holder) and number not in self.stale:
                return False
            self.holders[number] = driver
            return True

    def beat(self, numbers: list[int]) -> None:
        self.beats += numbers

    def release(self, number: int, driver: str) -> None:
        if self.holders.get(number) == driver:
            self.holders[number] = ""


def joint(board: Board, disk: dict[int, Outcome], total: int, study: Recorded, **more: float) -> SharedSchedule:
    """A driver of the study that the outcomes on the disk are of."""
    return SharedSchedule(
        *(study, total, 4, lambda number: None, lambda outcome: None),
        claims=board,
        ended=lambda spec: disk.get(spec.number),
        on_elsewhere=lambda spec: None,
        looked_every=0.01,
        **({"beat": 60.0} | more),
    )


def test_each_trial_is_run_by_one_driver_and_taken_in_by_all() -> None:
    board, disk, total = Board(), dict[int, Outcome](), 12
    ran: list[int] = []
    studies = [Recorded(), Recorded()]

    def drive(study: Recorded) -> None:
        with joint(board, disk, total, study) as schedule:
            while (spec := schedule.next()) is not None:
                time.sleep(0.005)
                ran.append(spec.number)
                disk[spec.number] = outcome(spec.number)
                schedule.finish(disk[spec.number])
            assert schedule.done and schedule.exhausted

    threads = [threading.Thread(target=drive, args=(study,)) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(ran) == list(range(total)), "no trial is run twice or by nobody"
    alone = Recorded()
    schedule = Schedule(alone, total, 4, lambda number: None, lambda outcome: None)
    while (spec := schedule.next()) is not None:
        schedule.finish(outcome(spec.number))
    for study in studies:
        assert study.told_numbers == alone.told_numbers and study.seen == alone.seen


@pytest.mark.parametrize("how", ["its process is gone", "it does not beat any more", "it was interrupted"])
def test_trials_of_a_driver_that_has_ended_are_taken_over(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    board, disk = Board(), dict[int, Outcome]()
    with joint(board, disk, 2, Recorded()) as first:
        spec = first.next()
        assert spec is not None and spec.number == 0
        second = joint(board, disk, 2, Recorded())
        mine = second.next()
        assert mine is not None and mine.number == 1
        if how == "its process is gone":
            monkeypatch.setattr(shared, "has_ended", lambda driver: driver == first.driver)
        elif how == "it does not beat any more":
            board.stale.add(0)
        else:
            first.__exit__(None, None, None)
        disk[1] = outcome(1)
        second.finish(disk[1])
        over = second.next()
        assert over is not None and over.number == 0
        disk[0] = outcome(0)
        second.finish(disk[0])
        assert second.done


def test_a_driver_beats_for_what_it_runs() -> None:
    board = Board()
    with joint(board, {}, 2, Recorded(), beat=0.01) as schedule:
        assert schedule.next() is not None
        until = time.monotonic() + 60
        while not board.beats and time.monotonic() < until:
            time.sleep(0.01)
    assert set(board.beats) == {0} and board.holders == {0: ""}, "what it has not finished is free again"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is known of processes")
def test_a_driver_is_known_by_its_process() -> None:
    script = "from search.workers.shared import name_driver; print(name_driver())"
    gone = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()
    assert has_ended(gone) and not has_ended(name_driver())
    assert not has_ended(f"another machine:{gone.split(':', 3)[-1]}"), "of other machines nothing is known"
