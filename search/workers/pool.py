"""What runs trials: this process, or Ray's workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from search.records.trial_spec import TrialSpec
from search.store.studies import StudyFiles
from search.study.schedule import Schedule
from search.trials.trial import Setting


class Pool(Protocol):
    """Runs the trials of a schedule."""

    @property
    def slots(self) -> int:
        """How many trials run at a time."""

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
