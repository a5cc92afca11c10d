"""Progress of a sweep in words: one line per event, or warnings alone. See ``live`` and ``notebook`` for displays."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TextIO

from search.objectives import OBJECTIVES
from search.objectives.units import write_duration
from search.records.listener import Measurement
from search.records.outcome import DenseRow, Outcome
from search.records.text import strip_control_characters

LONGEST_REASON = 160
PROGRESS_EVERY = 30.0
"""Seconds of silence of a trial after which a line says how far it is."""

_NO_METRICS = frozenset({"epoch", "step", "loss", "lr", "val_loss", "comparable"})
"""Keys of a history that are no metrics of the task."""


def choose_told_measurements(objectives: Sequence[Measurement]) -> Sequence[Measurement]:
    """Choose what is told of every network.

    Args:
        objectives: What the study searches for; may be empty where that is not known.

    Returns:
        The objectives but the seconds, which are told anyway; accuracy and FLOPs where there are none.
    """
    usual = (OBJECTIVES["accuracy"], OBJECTIVES["flops"])
    return [objective for objective in objectives or usual if objective.name != "seconds"]


def numbers(outcome: Outcome, dense: DenseRow | None, objectives: Sequence[Measurement] = ()) -> list[tuple[str, str]]:
    """Write what a complete trial reached.

    Args:
        outcome: The outcome of a complete trial.
        dense: The dense network of its study, as soon as it is known.
        objectives: What the study searches for.

    Returns:
        Heading and text of each measurement; costs as a share of the dense network's where that is known.
    """
    return [(each.heading, _number(each, outcome, dense)) for each in choose_told_measurements(objectives)]


def _number(measurement: Measurement, outcome: Outcome, dense: DenseRow | None) -> str:
    value = outcome.metrics.get(measurement.name)
    if value is None:
        return "not measured"
    whole = dense.metrics.get(measurement.name) if dense is not None and measurement.relative else None
    return f"{100 * value / whole:.1f} %" if whole else measurement.format(value)


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


def dense_numbers(dense: DenseRow, objectives: Sequence[Measurement] = ()) -> str:
    """Write what the dense network reaches and costs.

    Args:
        dense: The dense network.
        objectives: What its study searches for, if that is known.

    Returns:
        Its qualities, FLOPs, parameters and further costs with their units.

    Example:
        >>> dense_numbers(DenseRow.from_metrics(accuracy=0.9861, flops=2_140_000, params=78_100, seconds=9.0))
        'accuracy 98.61 %  FLOPs 2.14 M  parameters 78.1 k'
        >>> dense_numbers(DenseRow.from_metrics(mean_iou=0.5512, flops=2_140_000, params=78_100, seconds=9.0))
        'mean_iou 0.5512  FLOPs 2.14 M  parameters 78.1 k'
    """
    known = {objective.name: objective for objective in (*OBJECTIVES.values(), *objectives)}
    qualities, costs = [], []
    for name, value in dense.metrics.items():
        objective = known.get(name)
        if objective is None:
            qualities.append(f"{name} {value:.4g}")
        elif not objective.relative:
            qualities.append(f"{objective.heading} {objective.format(value)}")
        elif name != "seconds":
            costs.append(f"{objective.title} {objective.format(value)}")
    return "  ".join(qualities + costs)


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
        The loss and the first metric of the task, as far as they are known.

    Example:
        >>> epoch_numbers({"epoch": 2.0, "loss": 0.1234, "accuracy": 0.975})
        'loss 0.123  accuracy 97.50 %'
        >>> epoch_numbers({"epoch": 2.0, "loss": 0.1234, "lr": 0.1, "mean_iou": 0.55, "val_loss": 0.2})
        'loss 0.123  mean_iou 0.55'
    """
    parts = [f"loss {record['loss']:.3f}"] if "loss" in record else []
    for name in [name for name in record if name not in _NO_METRICS][:1]:
        known = OBJECTIVES.get(name)
        parts.append(f"{name} {known.format(record[name]) if known else f'{record[name]:.4g}'}")
    return "  ".join(parts)


class Warnings:
    """Passes on warnings and nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def stage(self, text: str) -> None:
        """Ignore a stage."""

    def dense_epoch(self, record: dict[str, float], epochs: int) -> None:
        """Ignore an epoch."""

    def sweep_started(
        self, study: str, total: int, done: int, dense: DenseRow, objectives: Sequence[Measurement] = ()
    ) -> None:
        """Ignore the start."""

    def trial_started(self, number: int, method: str) -> None:
        """Ignore a started trial."""

    def trial_progress(self, number: int, method: str, what: str, done: int, total: int) -> None:
        """Ignore how far a trial is."""

    def trial_finished(self, outcome: Outcome, hypervolume: float, members: int) -> None:
        """Ignore a finished trial."""

    def warning(self, text: str) -> None:
        """Write a warning on one line."""
        print(strip_control_characters(f"warning: {text}"), file=self._stream, flush=True)

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
        self._objectives: Sequence[Measurement] = ()

    def stage(self, text: str) -> None:
        """Write what is done now."""
        self._write(text)

    def dense_epoch(self, record: dict[str, float], epochs: int) -> None:
        """Write what an epoch reached."""
        self._write(f"dense network, epoch {record['epoch']:.0f}/{epochs}  {epoch_numbers(record)}")

    def sweep_started(
        self, study: str, total: int, done: int, dense: DenseRow, objectives: Sequence[Measurement] = ()
    ) -> None:
        """Write what will be searched, and the dense network that everything is compared with."""
        self._total, self._finished, self._dense, self._objectives = total, done, dense, objectives
        earlier = f", {done} of them finished earlier" if done else ""
        self._write(f"study {study}: {total} trials{earlier}")
        self._write(f"dense network  {dense_numbers(dense, objectives)}")

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
        told = "  ".join(f"{heading} {text}" for heading, text in numbers(outcome, self._dense, self._objectives))
        seconds = write_duration(outcome.seconds)
        self._write(f"{head}  {told}  {seconds}  {front_numbers(hypervolume, members)}")

    def warning(self, text: str) -> None:
        """Write a warning on one line."""
        self._write(f"warning: {text}")

    def close(self) -> None:
        """Do nothing: every line was written at once."""

    def _write(self, line: str) -> None:
        print(strip_control_characters(line), file=self._stream, flush=True)
