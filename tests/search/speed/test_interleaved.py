"""Timing in turns, with a clock that is wound by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle

import pytest
import torch

from search.records.timing import Quartiles
from search.speed.interleaved import Effort, Run, spread, time_in_turns, time_until_steady
from search.speed.watches import HostWatch

QUICK = Effort(seconds=1.0, block=0.02, least_rounds=5, most_rounds=7)


class Machine:
    """A clock that only moves when something runs on it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []
        self.slowdown = 1.0

    def clock(self) -> float:
        return self.now

    def run(self, name: str, seconds: Callable[[], float]) -> Run:
        def run() -> None:
            self.ran.append(name)
            self.now += self.slowdown * seconds()

        return run


class CountedWatch:
    """Believes the machine, counts how it is asked, and runs nothing to warm up."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.asked: list[int] = []

    def seconds(self, run: Run, times: int) -> float:
        self.asked.append(times)
        before = self.machine.now
        for _ in range(times):
            run()
        return (self.machine.now - before) / times


def take_always(seconds: float) -> Callable[[], float]:
    return lambda: seconds


def test_the_host_watch_divides_by_the_number_of_runs() -> None:
    machine = Machine()
    watch = HostWatch(1, machine.clock)
    assert watch.seconds(machine.run("a", take_always(0.25)), 8) == pytest.approx(0.25)
    assert len(machine.ran) > 8, "it runs untimed first"


def test_the_host_watch_gives_the_threads_back() -> None:
    before, inside = torch.get_num_threads(), []
    HostWatch(before + 1, Machine().clock).seconds(lambda: inside.append(torch.get_num_threads()), 1)
    assert set(inside) == {before + 1}
    assert torch.get_num_threads() == before


def test_on_one_thread_only_its_own_processor_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    monkeypatch.setattr("time.thread_time", machine.clock)
    assert HostWatch(1).seconds(machine.run("a", take_always(3.0)), 1) == pytest.approx(3.0)
    assert HostWatch(2).seconds(machine.run("a", take_always(3.0)), 1) < 3.0


def test_blocks_are_long_enough_for_the_clock_and_rounds_fit_the_budget() -> None:
    machine = Machine()
    watch = CountedWatch(machine)
    fast, slow = machine.run("fast", take_always(0.001)), machine.run("slow", take_always(0.5))
    samples = time_in_turns(watch, [fast, slow], QUICK)
    assert [len(rounds) for rounds in samples] == [5, 5], "a slow network is timed often enough all the same"
    assert set(watch.asked) == {1, 20}
    assert samples[0] == pytest.approx([0.001] * 5)
    assert samples[1] == pytest.approx([0.5] * 5)


def test_rounds_alternate_and_turn_around() -> None:
    machine = Machine()
    runs = [machine.run(name, take_always(1.0)) for name in "ab"]
    time_in_turns(CountedWatch(machine), runs, QUICK)
    assert "".join(machine.ran) == "abab" + "abba" * 2 + "ab", "warm-up and guess, then five rounds"


def test_a_machine_that_slows_down_leaves_the_quotient_alone() -> None:
    machine = Machine()

    def take_longer(seconds: float) -> Callable[[], float]:
        def read_clock() -> float:
            machine.slowdown *= 1.02
            return seconds

        return read_clock

    dense, pruned = time_in_turns(
        CountedWatch(machine), [machine.run("d", take_longer(0.4)), machine.run("p", take_longer(0.1))], QUICK
    )
    assert dense[-1] > 1.1 * dense[0]
    assert [p / d for d, p in zip(dense, pruned, strict=True)] == pytest.approx([0.25] * len(dense), rel=0.03)


def scatter_then(machine: Machine, noisy: int, level: float) -> Callable[[], float]:
    """Seconds that scatter for so many calls, and then stand still."""
    waves: Iterator[float] = cycle([1.0, 1.0 + level])
    calls = iter(range(10**9))
    return lambda: next(waves) if next(calls) < noisy else 1.0


@pytest.mark.parametrize(("noisy_calls", "attempts", "last_spread"), [(0, 1, 0.0), (6, 2, 0.0), (10**6, 3, 1 / 3)])
def test_a_measurement_that_scatters_is_repeated(noisy_calls: int, attempts: int, last_spread: float) -> None:
    machine = Machine()
    run = machine.run("a", scatter_then(machine, noisy_calls, level=0.5))
    samples = time_until_steady(CountedWatch(machine), [run], QUICK)
    assert len(machine.ran) == attempts * (2 + 5)
    assert spread(samples) == pytest.approx(last_spread, abs=0.02)


def test_of_all_attempts_the_quietest_is_kept() -> None:
    machine = Machine()
    levels = iter([0.4] * 7 + [0.1] * 7 + [0.3] * 7)
    waves = cycle([0.0, 1.0])
    samples = time_until_steady(
        CountedWatch(machine), [machine.run("a", lambda: 1 + next(levels) * next(waves))], QUICK
    )
    assert spread(samples) == pytest.approx(0.1, abs=0.01)


def test_quartiles_are_those_of_durations() -> None:
    assert Quartiles.from_seconds([1.0, 2.0, 3.0, 4.0, 5.0]).spread == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="not those of durations"):
        Quartiles(0.0, 1.0, 2.0)
