"""Timing several things in turns, so that whatever slows the machine slows all of them alike.

Run after run of one network and then run after run of another would charge a busy neighbour, a hot processor or a
changed clock rate to one of them. Here every round times each of them once, in an order that is reversed from round
to round; only numbers of the same round are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from search.records.timing import NOISE, Quartiles

Run = Callable[[], object]
"""One forward pass."""

Samples = list[list[float]]
"""Seconds of one run, ``[runs][rounds]``."""

MOST_TIMES = 100_000


class Watch(Protocol):
    """Tells how long a run takes."""

    def seconds(self, run: Run, times: int) -> float:
        """Time a run, after running it untimed to bring caches back.

        Args:
            run: What to time.
            times: How often it runs in a row while the watch goes.

        Returns:
            Mean seconds of one run.
        """


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        seconds: About how long one attempt may take; slow networks take longer, for they need ``least_rounds``.
        block: A run is repeated in each round until it takes so many seconds: clocks have ticks.
        least_rounds: Rounds at least.
        most_rounds: Rounds at most.
        attempts: How often a measurement with too large a spread is begun again, the first time included.
    """

    seconds: float = 2.0
    block: float = 0.01
    least_rounds: int = 5
    most_rounds: int = 25
    attempts: int = 3


def time_until_steady(watch: Watch, runs: Sequence[Run], effort: Effort) -> Samples:
    """Time several runs in turns, again while the spread is too large.

    Args:
        watch: Tells the time.
        runs: What to time.
        effort: How long to measure.

    Returns:
        Of all attempts the one with the least spread.
    """
    best = time_in_turns(watch, runs, effort)
    for _ in range(effort.attempts - 1):
        if spread(best) <= NOISE:
            break
        best = min(best, time_in_turns(watch, runs, effort), key=spread)
    return best


def time_in_turns(watch: Watch, runs: Sequence[Run], effort: Effort) -> Samples:
    """Time several runs in turns.

    Args:
        watch: Tells the time.
        runs: What to time.
        effort: How long to measure.

    Returns:
        Seconds of one run, ``[runs][rounds]``.
    """
    # What was never run may compile, allocate and choose kernels: the first look warms up and is not believed.
    for run in runs:
        watch.seconds(run, 1)
    guesses = [watch.seconds(run, 1) for run in runs]
    times = [min(max(1, math.ceil(effort.block / guess)), MOST_TIMES) for guess in guesses]
    a_round = sum(guess * count for guess, count in zip(guesses, times, strict=True))
    rounds = min(max(effort.least_rounds, int(effort.seconds / a_round)), effort.most_rounds)
    samples: Samples = [[] for _ in runs]
    for number in range(rounds):
        order = range(len(runs)) if number % 2 == 0 else reversed(range(len(runs)))
        for index in order:
            samples[index].append(watch.seconds(runs[index], times[index]))
    return samples


def spread(samples: Samples) -> float:
    """Tell how noisy a measurement is.

    Args:
        samples: Seconds of one run, ``[runs][rounds]``.

    Returns:
        The largest interquartile range of a run, as a share of its median.
    """
    return max(Quartiles.from_seconds(seconds).spread for seconds in samples)
