"""One trial from its specification to its files: what every worker does, in whatever process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

from methods.contract.session import Saved
from search.records.outcome import Outcome, State
from search.records.trial_spec import TrialSpec
from search.store.studies import StudyFiles
from search.trials.checkpoint import Checkpoints, checkpoint_folder
from search.trials.trial import Finished, Setting, failed_outcome, run_trial
from search.workers.progress import Marker

TIMED_OUT = 75
"""Exit code of a process that ended itself because its trial took too long."""


def finish_trial(setting: Setting, spec: TrialSpec, files: StudyFiles) -> Outcome:
    """Run one trial and write it; a trial that was interrupted goes on from its last epoch.

    A trial that runs out of memory is run once more with its batches cut in two (gradients are accumulated, so that
    the steps stay the same but for batch norms); ``extra["accumulate"]`` then says into how many pieces.

    Args:
        setting: What all trials share.
        spec: Which trial.
        files: Where it is written.

    Returns:
        The outcome, which is on disk by now.
    """
    marker = Marker(files, spec)
    try:
        finished = _run(setting, spec, files, marker)
        recipe = setting.recipe
        if finished.outcome.state == "out_of_memory" and 2 * recipe.accumulate <= recipe.batch_size:
            pieces = 2 * recipe.accumulate
            smaller = replace(setting, recipe=recipe.replaced(accumulate=pieces))
            finished = _run(smaller, spec, files, marker)
            outcome = replace(finished.outcome, extra=finished.outcome.extra | {"accumulate": float(pieces)})
            finished = replace(finished, outcome=outcome)
    finally:
        marker.clear()
    files.write(finished)
    Checkpoints(checkpoint_folder(files.root, spec.number), setting, spec).clear()
    return finished.outcome


def _run(setting: Setting, spec: TrialSpec, files: StudyFiles, marker: Marker) -> Finished:
    checkpoints = Checkpoints(checkpoint_folder(files.root, spec.number), setting, spec)
    return run_trial(setting, spec, progress=marker, session=Saved(checkpoints))


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
        dead = failed_outcome(spec, error, started, time.time() - started, [], state)
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
