from __future__ import annotations

import io

from rich.console import Console

from search.records.outcome import DenseRow, Outcome
from search.report.live import SHOWN_TRIALS, Display
from tests.search.cases import outcome

DENSE = DenseRow({"accuracy": 0.96, "flops": 1000.0, "params": 100.0, "seconds": 3.0})


class Bench:
    """A display on a terminal of paper, with a clock that is moved by hand."""

    def __init__(self, done: int = 0, total: int = 8) -> None:
        self.paper = io.StringIO()
        self.now = 100.0
        self.display = Display(Console(file=self.paper, width=120), lambda: self.now)
        self.display.sweep_started("digits", total, done, DENSE)

    def finish(self, number: int, hypervolume: float, seconds: float = 10.0, **changes: object) -> Outcome:
        self.now += seconds
        self.display.trial_started(number, "magnitude")
        ended = outcome(number, **changes)
        self.display.trial_finished(ended, hypervolume, 1)
        return ended

    def lines(self) -> list[str]:
        paper = io.StringIO()
        Console(file=paper, width=120).print(self.display.frame())
        return [line.rstrip() for line in paper.getvalue().splitlines()]

    def line(self, start: str) -> str:
        (found,) = [line for line in self.lines() if line.startswith(start)]
        return found


def test_the_bar_counts_and_the_time_left_follows_the_pace_of_this_run() -> None:
    bench = Bench(done=2, total=8)
    try:
        assert "2/8 trials" in bench.line("digits") and "left" not in bench.line("digits")
        bench.finish(2, 0.1, seconds=10)
        bench.finish(3, 0.2, seconds=30)
        # Two trials in 40 seconds: four more take 80; five seconds of them have passed.
        bench.now += 5
        assert bench.line("digits").endswith("4/8 trials  0:45 elapsed, 1:15 left")
        bench.now += 3600
        assert bench.line("digits").endswith("1:00:45 elapsed, 0:00 left")
    finally:
        bench.display.close()


def test_the_last_trials_are_shown_the_newest_first_with_those_that_gained() -> None:
    bench = Bench(total=9)
    try:
        volumes = [0.1, 0.1, 0.3, 0.3, 0.4, 0.4, 0.5]
        for number, volume in enumerate(volumes):
            bench.finish(number, volume)
        rows = [line.split() for line in bench.lines() if "magnitude" in line]
        assert [row[0] for row in rows] == ["6", "5", "4", "3", "2"] and len(rows) == SHOWN_TRIALS
        assert [row[-3:] == ["joined", "the", "front"] for row in rows] == [True, False, True, False, True]
    finally:
        bench.display.close()


def test_the_first_trial_after_an_interruption_is_not_said_to_gain() -> None:
    bench = Bench(done=3)
    try:
        bench.finish(3, 0.9)
        assert not any("joined the front" in line for line in bench.lines())
        bench.finish(4, 0.95)
        assert sum("joined the front" in line for line in bench.lines()) == 1
    finally:
        bench.display.close()


def test_running_trials_and_how_far_they_are_go_when_they_end() -> None:
    bench = Bench()
    try:
        bench.display.trial_started(5, "greedy")
        bench.display.trial_started(6, "spp")
        bench.display.trial_progress(5, "greedy", "orders", 3, 12)
        bench.display.trial_progress(99, "spp", "orders", 1, 2)
        assert bench.line("running").split() == ["running", "5", "greedy,", "6", "spp"]
        assert "orders" in bench.line("trial 5") and not any("trial 99" in line for line in bench.lines())
        bench.finish(5, 0.1)
        assert bench.line("running").split() == ["running", "6", "spp"]
        assert not any(line.startswith("trial 5") for line in bench.lines())
    finally:
        bench.display.close()


def test_a_failure_leaves_a_line_without_control_characters_and_closing_leaves_the_bar() -> None:
    bench = Bench()
    bench.finish(0, 0.0, error="Traceback\nValueError: \x1b[31mno\x07\n")
    assert "1/8 trials, 1 failed" in bench.line("digits")
    bench.display.close()
    assert "trial 0 magnitude failed: ValueError: no\n" in bench.paper.getvalue()
    (left,) = bench.lines()
    assert left.startswith("digits") and "left" not in left
