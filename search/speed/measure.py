"""Measuring the latency of a network beside the dense one's, soundly, also while other trials run.

* The two networks are timed in turns, and the quotient is taken round by round: what other trials do to the
  machine, they do to both.
* One measurement at a time on a machine: a lock that all processes of a user share. Trials that train meanwhile
  have their own cores.
* The latency of a trial is the dense network's, measured once by the driver before the first trial, times the
  quotient. So latencies of one study can be compared, whichever load they were measured under.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from methods.contract.inputs import Inputs
from search.records.timing import Quartiles, Timing
from search.speed.conditions import Conditions
from search.speed.interleaved import Effort, time_until_steady
from search.speed.targets import Untimed, prepare, threads_of, watch
from spaces import InputError

REFERENCE_ATTEMPTS = 6
"""Attempts at the dense network's latency, which every other one of the study is multiplied with."""


def measure_pair(
    setting: Conditions, dense: nn.Module, pruned: nn.Module, example: Inputs
) -> tuple[dict[str, Timing], dict[str, str]]:
    """Time a pruned network beside the dense one on every target.

    Args:
        setting: Targets, batch size, threads.
        dense: The dense network; not changed.
        pruned: The pruned network; not changed.
        example: One input, ``[1, ...]``.

    Returns:
        Comparison by target, and for targets on which one of them cannot be timed the reason.
    """
    timings: dict[str, Timing] = {}
    reasons: dict[str, str] = {}
    effort = Effort(setting.seconds)
    with turn():
        for name in setting.targets:
            try:
                with threads_of(setting):
                    runs = [prepare(name, model, example, setting) for model in (dense, pruned)]
                    timings[name] = Timing.from_seconds(*time_until_steady(watch(name, setting.threads), runs, effort))
            except Untimed as error:
                reasons[name] = str(error)
    return timings, reasons


def measure_dense(setting: Conditions, dense: nn.Module, example: Inputs) -> Quartiles:
    """Time the dense network alone on the first target.

    Args:
        setting: Targets, batch size, threads.
        dense: The dense network; not changed.
        example: One input, ``[1, ...]``.

    Returns:
        Quartiles of its seconds.

    Raises:
        InputError: If it cannot be timed there.
    """
    name = setting.targets[0]
    effort = Effort(setting.seconds, attempts=REFERENCE_ATTEMPTS)
    try:
        with turn(), threads_of(setting):
            run = prepare(name, dense, example, setting)
            return Quartiles.from_seconds(time_until_steady(watch(name, setting.threads), [run], effort)[0])
    except Untimed as error:
        raise InputError(f"latency target {error}") from error


def check_targets(setting: Conditions, dense: nn.Module, example: Inputs) -> None:
    """Run a network once on every target, so that what cannot work is said before anything is trained.

    Args:
        setting: Targets, batch size, threads.
        dense: The network, trained or not; not changed.
        example: One input, ``[1, ...]``.

    Raises:
        InputError: If it cannot be timed on one of them.
    """
    for name in setting.targets:
        try:
            with threads_of(setting):
                prepare(name, dense, example, setting)
        except Untimed as error:
            raise InputError(f"latency target {error}") from error


@contextmanager
def turn() -> Generator[None]:
    """Wait until no other process measures on this machine; a process that dies gives its turn away.

    Yields:
        Nothing; runs the block.
    """
    import filelock

    with filelock.FileLock(turn_file()):
        yield


def turn_file() -> Path:
    """Name the lock that a measuring process holds.

    Returns:
        The file, one for each user of the machine.
    """
    return Path(tempfile.gettempdir()) / f"paretoprune-timing-{os.getuid()}.lock"
