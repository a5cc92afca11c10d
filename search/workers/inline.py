"""Runs trials one by one in this process: for tests, debuggers and machines without Ray."""

from __future__ import annotations

from collections.abc import Callable

from methods.contract.session import Saved
from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.store.studies import StudyFiles
from search.study.schedule import Schedule
from search.trials.checkpoint import Checkpoints, checkpoint_folder
from search.trials.trial import Setting, run_trial
from search.workers.progress import Marker


class InlinePool:
    """A :class:`search.workers.pool.Pool` of this process alone."""

    slots = 1

    def run(
        self, schedule: Schedule, setting: Setting, files: StudyFiles, on_started: Callable[[TrialSpec], None]
    ) -> None:
        """Run trials until none is left.

        Args:
            schedule: Hands out trials and takes their outcomes.
            setting: What all trials share.
            files: Where each finished trial is written before anything is told.
            on_started: Called when a trial begins.
        """
        while (spec := schedule.next()) is not None:
            on_started(spec)
            schedule.finish(finish_trial(setting, spec, files))


def finish_trial(setting: Setting, spec: TrialSpec, files: StudyFiles) -> Outcome:
    """Run one trial and write it.

    Args:
        setting: What all trials share.
        spec: Which trial.
        files: Where it is written.

    Returns:
        The outcome, which is on disk by now.
    """
    marker = Marker(files, spec)
    checkpoints = Checkpoints(checkpoint_folder(files.root, spec.number), setting, spec)
    try:
        finished = run_trial(setting, spec, progress=marker, session=Saved(checkpoints))
    finally:
        marker.clear()
    files.write(finished)
    checkpoints.clear()
    return finished.outcome
