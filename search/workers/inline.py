"""Runs trials one by one on this machine: for tests, debuggers and machines without Ray.

A trial runs in this process, where a debugger can follow. One that has a time limit, or that was begun before and
took its process with it, runs in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.store.studies import StudyFiles
from search.study.config import Resources
from search.study.schedule import Schedule
from search.trials.trial import Setting
from search.workers.attempts import Attempt
from search.workers.finish import finish_trial
from search.workers.isolated import run_isolated


def inline_pool(resources: Resources, gpus_per_trial: float, warn: Callable[[str], None]) -> InlinePool:
    """Make the pool of this process.

    Args:
        resources: Where trials run: how often a lost one is run again, and how long it may take.
        gpus_per_trial: GPUs that each trial takes; there is one trial at a time.
        warn: Receives what the user should know.

    Returns:
        The pool.
    """
    return InlinePool(resources.retries, resources.trial_timeout, warn)


class InlinePool:
    """A :class:`search.workers.pool.Pool` of this machine, one trial at a time.

    Args:
        retries: How often a trial is run again whose process was lost.
        timeout: Seconds that a trial may take; ``None`` for as long as it wants.
        say: Is told of every process that is lost.
    """

    slots = 1

    def __init__(
        self, retries: int = 2, timeout: float | None = None, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self._retries, self._timeout, self._say = retries, timeout, say

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
            schedule.finish(self.run_one(setting, spec, files))

    def run_one(self, setting: Setting, spec: TrialSpec, files: StudyFiles) -> Outcome:
        """Run one trial; while it runs, a note on disk says so.

        Args:
            setting: What all trials share.
            spec: Which trial.
            files: Where it is written.

        Returns:
            The outcome, which is on disk by now.
        """
        attempt = Attempt(files, spec.number)
        attempt.begin()
        try:
            if attempt.before == 0 and self._timeout is None:
                outcome = finish_trial(setting, spec, files)
            else:
                outcome = run_isolated(
                    setting, spec, files, min(attempt.before, 1), self._retries, self._timeout, self._say
                )
        except BaseException:
            attempt.cancel()
            raise
        attempt.end()
        return outcome
