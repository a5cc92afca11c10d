"""One trial from its specification to its files: what every worker does, in whatever process."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from methods.contract.session import Decision, Paused, Rung, Saved
from search.records.outcome import Outcome, State
from search.records.trial_spec import TrialSpec, history_to_rung, pauses_at
from search.store.studies import StudyFiles
from search.trials.checkpoint import checkpoint_folder, open_checkpoints
from search.trials.trial import Finished, Setting, make_failed_outcome, run_trial
from search.workers.progress import Marker

TIMED_OUT = 75
"""Exit code of a process that ended itself because its trial took too long."""


class CheckpointStore(Protocol):
    """Keeps checkpoints beyond the machine that a trial runs on."""

    def keep_checkpoint(self, path: Path) -> None:
        """Copy a file of a checkpoint.

        Args:
            path: The file, in the folder of its trial.
        """

    def restore_checkpoint(self, folder: Path) -> None:
        """Bring the checkpoint of a trial to this machine, unless it has one.

        Args:
            folder: Where it belongs.
        """

    def drop_checkpoint(self, number: int) -> None:
        """Remove the checkpoint of a trial that has ended.

        Args:
            number: Number of the trial.
        """


def finish_trial(setting: Setting, spec: TrialSpec, files: StudyFiles, store: CheckpointStore | None = None) -> Outcome:
    """Run one trial, to its end or to the rung that it pauses at, and write it.

    A trial that was interrupted, or paused before, goes on from its last epoch.

    A trial that runs out of memory is run once more with its batches cut in two (gradients are accumulated, so that
    the steps stay the same but for batch norms); ``extra["accumulate"]`` then says into how many pieces.

    Args:
        setting: What all trials share.
        spec: Which trial.
        files: Where it is written.
        store: Where its checkpoints are kept besides; ``None`` for nowhere else.

    Returns:
        The outcome, which is on disk by now; its state is ``"paused"`` at a rung.
    """
    marker = Marker(files, spec)
    if store is not None:
        store.restore_checkpoint(checkpoint_folder(files.root, spec.number))
    keep = None if store is None else store.keep_checkpoint
    started, records = time.time(), list[dict[str, float]]()
    try:
        finished = _run(setting, spec, files, marker, records, keep)
        recipe = setting.recipe
        if finished.outcome.state == "out_of_memory" and 2 * recipe.accumulate <= recipe.batch_size:
            pieces = 2 * recipe.accumulate
            smaller = replace(setting, recipe=recipe.with_changes(accumulate=pieces))
            records.clear()
            finished = _run(smaller, spec, files, marker, records, keep)
            outcome = replace(finished.outcome, extra=finished.outcome.extra | {"accumulate": float(pieces)})
            finished = replace(finished, outcome=outcome)
    except Paused as paused:
        outcome = make_failed_outcome(spec, str(paused), started, time.time() - started, records, "paused")
        files.write_paused(outcome)
        return outcome
    finally:
        marker.clear()
    files.write(finished)
    files.remove_paused(spec.number)
    open_checkpoints(checkpoint_folder(files.root, spec.number), setting, spec).clear()
    if store is not None:
        store.drop_checkpoint(spec.number)
    return finished.outcome


def _run(
    setting: Setting,
    spec: TrialSpec,
    files: StudyFiles,
    marker: Marker,
    records: list[dict[str, float]],
    keep: Callable[[Path], None] | None,
) -> Finished:
    checkpoints = open_checkpoints(checkpoint_folder(files.root, spec.number), setting, spec, keep)

    def decide(rung: Rung) -> Decision:
        return "pause" if pauses_at(rung.record, spec.until, setting.steps) else "continue"

    return run_trial(setting, spec, records.append, marker, Saved(checkpoints, decide))


def ended_leg(files: StudyFiles, spec: TrialSpec, steps: int) -> Outcome | None:
    """Look whether a leg of a trial has ended.

    Args:
        files: Where trials are written.
        spec: The leg.
        steps: Budget of the trial in optimiser steps.

    Returns:
        The outcome of the trial, finished or paused where this leg was to pause; ``None`` if there is none yet.
    """
    if spec.number in files.numbers():
        return files.outcome(spec.number)
    paused = files.read_paused(spec.number)
    return None if paused is None or history_to_rung(paused.history, spec.until, steps) is None else paused


def stop_paused(files: StudyFiles, paused: Outcome) -> Outcome:
    """End a trial that waits at a rung, and write it.

    Args:
        files: Where it is written.
        paused: The trial so far.

    Returns:
        Its outcome, which is on disk by now.
    """
    error = f"stopped at epoch {paused.history[-1]['epoch']:g}, a rung from which others went on"
    files.write(Finished(replace(paused, state="stopped", error=error), None, {}))
    files.remove_paused(paused.number)
    shutil.rmtree(checkpoint_folder(files.root, paused.number), ignore_errors=True)
    return files.outcome(paused.number)


def write_failure(files: StudyFiles, spec: TrialSpec, started: float, error: str, state: State) -> Outcome:
    """Write a trial that ended without saying so itself, unless it has an outcome by now.

    Args:
        files: Where it is written.
        spec: Which trial.
        started: When it began, seconds since the epoch.
        error: What is known of its end.
        state: What kind of end it was.

    Returns:
        The outcome that is on disk.
    """
    if spec.number not in files.numbers():
        dead = make_failed_outcome(spec, error, started, time.time() - started, [], state)
        files.write(Finished(dead, None, {}))
    return files.outcome(spec.number)


@contextmanager
def time_limit(files: StudyFiles, spec: TrialSpec, seconds: float | None) -> Generator[None]:
    """End this process when the block takes too long, with the trial written as timed out.

    Args:
        files: Where the trial is written.
        spec: The trial.
        seconds: How long it may take; ``None`` for as long as it wants.

    Yields:
        Nothing; runs the block. Nothing but a process of the trial's own may run it.
    """
    if seconds is None:
        yield
        return
    started = time.time()

    def end() -> None:
        write_failure(files, spec, started, timeout_text(seconds), "timed_out")
        os._exit(TIMED_OUT)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def timeout_text(seconds: float) -> str:
    """Say that a trial took too long.

    Args:
        seconds: What it was allowed.

    Returns:
        A sentence.

    Example:
        >>> timeout_text(90)
        'the trial took longer than 90 s (--trial-timeout)'
    """
    return f"the trial took longer than {seconds:g} s (--trial-timeout)"
