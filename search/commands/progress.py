"""Progress of a sweep on stderr: a live display on a terminal, one line per event elsewhere, or warnings alone.

Data goes to stdout, so nothing here writes there. rich is imported only where a terminal is drawn on.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

from search.objectives.units import write_count, write_duration, write_percent
from search.records.listener import Listener
from search.records.outcome import DenseRow, Outcome
from search.records.text import printable

LONGEST_REASON = 160
PROGRESS_EVERY = 30.0
"""Seconds of silence of a trial after which a line says how far it is."""

PLAIN_TERMINALS = ("dumb", "unknown")


def listener(quiet: bool = False, stream: TextIO | None = None) -> Listener:
    """Choose how progress is shown.

    Args:
        quiet: Show warnings alone.
        stream: Where to write; ``None`` is stderr.

    Returns:
        A live display where the stream is a terminal that can move its cursor, else a listener that writes
        lines.
    """
    stream = sys.stderr if stream is None else stream
    if quiet:
        return Warnings(stream)
    # The stream is asked, not rich: a log file must stay free of control codes even under FORCE_COLOR.
    if stream.isatty() and os.environ.get("TERM", "").lower() not in PLAIN_TERMINALS:
        from rich.console import Console

        from search.commands.live import Display

        return Display(Console(file=stream))
    return Lines(stream)


def numbers(outcome: Outcome, dense: DenseRow | None) -> tuple[str, str, str]:
    """Write what a complete trial reached.

    Args:
        outcome: The outcome of a complete trial.
        dense: The dense network of its study, as soon as it is known.

    Returns:
        Accuracy, FLOPs (as a share of the dense network's where that is known), and duration, as texts with
        their units.
    """
    flops = outcome.metrics["flops"]
    cost = write_count(flops) if dense is None else f"{100 * flops / dense.flops:.1f} %"
    return write_percent(outcome.metrics["accuracy"]), cost, write_duration(outcome.seconds)


def reason(outcome: Outcome) -> str:
    r"""Say why a trial failed.

    Args:
        outcome: The outcome of a failed trial.

    Returns:
        The last line of its traceback, shortened.

    Example:
        >>> from search.records.outcome import Outcome
        >>> lost = Outcome(3, "spp", {}, "failed", {}, [], {}, {}, 0, "Traceback: ...\nValueError: no", 0.0, 1.0)
        >>> reason(lost)
        'ValueError: no'
    """
    lines = (outcome.error or "").strip().splitlines()
    last = lines[-1].strip() if lines else "no reason was recorded"
    return last if len(last) <= LONGEST_REASON else last[: LONGEST_REASON - 1] + "…"


def dense_numbers(dense: DenseRow) -> str:
    """Write what the dense network reaches and costs.

    Args:
        dense: The dense network.

    Returns:
        Accuracy, FLOPs and parameters with their units.

    Example:
        >>> dense_numbers(DenseRow.of(accuracy=0.9861, flops=2_140_000, params=78_100, seconds=9.0))
        'accuracy 98.61 %  FLOPs 2.14 M  parameters 78.1 k'
    """
    cost = f"FLOPs {write_count(dense.flops)}  parameters {write_count(dense.params)}"
    return f"accuracy {write_percent(dense.accuracy)}  {cost}"


def front_numbers(hypervolume: float, members: int | None) -> str:
    """Write how good the front is so far.

    Args:
        hypervolume: Of the front.
        members: How many networks are on it, if that is known.

    Returns:
        The hypervolume, and the size where it is known.

    Example:
        >>> front_numbers(0.92134, 5)
        'hypervolume 0.9213, 5 on the front'
    """
    return f"hypervolume {hypervolume:.4f}" + ("" if members is None else f", {members} on the front")


def progress_numbers(what: str, done: int, total: int) -> str:
    """Write how far something is.

    Args:
        what: What is done.
        done: How many parts are done.
        total: How many there are.

    Returns:
        One line.

    Example:
        >>> progress_numbers("covariances, by example", 512, 2048)
        'covariances, by example: 25 % (512/2048)'
    """
    return f"{what}: {100 * done // max(1, total)} % ({done}/{total})"


def epoch_numbers(record: dict[str, float]) -> str:
    """Write what an epoch of the dense network reached.

    Args:
        record: One record of its history.

    Returns:
        The loss and the validation accuracy, as far as they are known.

    Example:
        >>> epoch_numbers({"epoch": 2.0, "loss": 0.1234, "accuracy": 0.975})
        'loss 0.123  accuracy 97.50 %'
    """
    parts = [f"loss {record['loss']:.3f}"] if "loss" in record else []
    return "  ".join(parts + ([f"accuracy {write_percent(record['accuracy'])}"] if "accuracy" in record else []))


class Warnings:
    """Passes on warnings and nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def stage(self, text: str) -> None:
        """Ignore a stage."""

    def dense_epoch(self, record: dict[str, float], epochs: int) -> None:
        """Ignore an epoch."""

    def sweep_started(self, study: str, total: int, done: int, dense: DenseRow) -> None:
        """Ignore the start."""

    def trial_started(self, number: int, method: str) -> None:
        """Ignore a started trial."""

    def trial_progress(self, number: int, method: str, what: str, done: int, total: int) -> None:
        """Ignore how far a trial is."""

    def trial_finished(self, outcome: Outcome, hypervolume: float, members: int) -> None:
        """Ignore a finished trial."""

    def warning(self, text: str) -> None:
        """Write a warning on one line."""
        print(printable(f"warning: {text}"), file=self._stream, flush=True)

    def close(self) -> None:
        """Do nothing: every line was written at once."""


class Lines:
    """Writes one plain line per event, for log files and pipes.

    Args:
        stream: Where to.
        clock: Seconds that only ever grow.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._spoke: dict[int, float] = {}
        self._total = 0
        self._finished = 0
        self._dense: DenseRow | None = None

    def stage(self, text: str) -> None:
        """Write what is done now."""
        self._write(text)

    def dense_epoch(self, record: dict[str, float], epochs: int) -> None:
        """Write what an epoch reached."""
        self._write(f"dense network, epoch {record['epoch']:.0f}/{epochs}  {epoch_numbers(record)}")

    def sweep_started(self, study: str, total: int, done: int, dense: DenseRow) -> None:
        """Write what will be searched, and the dense network that everything is compared with."""
        self._total, self._finished, self._dense = total, done, dense
        earlier = f", {done} of them finished earlier" if done else ""
        self._write(f"study {study}: {total} trials{earlier}")
        self._write(f"dense network  {dense_numbers(dense)}")

    def trial_started(self, number: int, method: str) -> None:
        """Write that a trial runs."""
        self._spoke = self._spoke | {number: self._clock()}
        self._write(f"trial {number} {method}  started")

    def trial_progress(self, number: int, method: str, what: str, done: int, total: int) -> None:
        """Write how far a trial is, if it was silent for a while."""
        now = self._clock()
        if now - self._spoke.get(number, now) >= PROGRESS_EVERY:
            self._spoke = self._spoke | {number: now}
            self._write(f"trial {number} {method}  {progress_numbers(what, done, total)}")

    def trial_finished(self, outcome: Outcome, hypervolume: float, members: int) -> None:
        """Write what a trial reached, or why it failed."""
        self._finished += 1
        count = f"{self._finished:>{len(str(self._total))}}/{self._total}"
        head = f"{count}  trial {outcome.number} {outcome.method}"
        if not outcome.complete:
            self._write(f"{head}  failed after {write_duration(outcome.seconds)}: {reason(outcome)}")
            return
        accuracy, share, seconds = numbers(outcome, self._dense)
        self._write(f"{head}  accuracy {accuracy}  FLOPs {share}  {seconds}  {front_numbers(hypervolume, members)}")

    def warning(self, text: str) -> None:
        """Write a warning on one line."""
        self._write(f"warning: {text}")

    def close(self) -> None:
        """Do nothing: every line was written at once."""

    def _write(self, line: str) -> None:
        print(printable(line), file=self._stream, flush=True)
