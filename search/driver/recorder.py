"""Passes each finished trial on: to the listener, to the picture, to MLflow. Nothing here delays a trial."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

from search.driver.mirror import trial_artefacts
from search.fronts.scale import GrowingFront
from search.objectives import Objective
from search.objectives.limits import parse_drop
from search.records.listener import Listener
from search.records.outcome import DenseRow, Outcome
from search.records.trial_spec import TrialSpec
from search.store.studies import StudyFiles
from search.tracking.away import Away
from search.tracking.tracker import Tracker

GROWTH = 0.001
"""Growth of the hypervolume that counts as one."""

NEXT_BEGINS_WITHIN = 0.3
"""Seconds after the end of a trial in which the driver asks the next one; drawing then would hold it up."""


class Recorder:
    """Hears of trials from the schedule.

    Args:
        files: The study's files.
        dense: The dense network.
        objectives: What is searched for.
        total: How many trials there will be.
        listener: Receives progress.
        tracker: Mirrors the trials to MLflow, once it is open.
        publishes: Whether this driver draws the trials and sends them to MLflow: of several, one does.
    """

    def __init__(
        self,
        files: StudyFiles,
        dense: DenseRow,
        objectives: tuple[Objective, ...],
        total: int,
        listener: Listener,
        tracker: Future[Tracker | Away],
        publishes: bool = True,
    ) -> None:
        self._publishes = publishes
        self._files = files
        self._dense = dense
        self._objectives = objectives
        self._total = total
        self._listener = listener
        self._tracker = tracker
        self._running: set[int] = set()
        self._limits = files.limits()
        self._front = GrowingFront(objectives, dense, parse_drop(files.config().max_drop))
        self._best = 0.0
        self._flat = 0
        self._seconds = 0.0
        self._pictures = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._drawn: list[Future[None]] = []
        self._closing = threading.Event()

    def record_resumed(self, outcomes: list[Outcome]) -> None:
        """Take in what an earlier run finished; what MLflow missed of it is sent now.

        Args:
            outcomes: The finished trials.
        """
        for outcome in outcomes:
            self._count(outcome)
            if self._publishes:
                self._drawn.append(self._pictures.submit(self._publish, outcome))

    def record_start(self, spec: TrialSpec) -> None:
        """Hear that a trial began.

        Args:
            spec: The trial.
        """
        self._running.add(spec.number)
        self._files.write_running(sorted(self._running), self._total)
        self._listener.trial_started(spec.number, spec.method)

    def record_outcome(self, outcome: Outcome) -> None:
        """Hear that a trial is finished, or waits at a rung; it is on disk by now.

        Args:
            outcome: The trial.
        """
        self._running.discard(outcome.number)
        self._files.write_running(sorted(self._running), self._total)
        if outcome.state == "paused":
            return
        self._count(outcome)
        self._listener.trial_finished(outcome, self._front.hypervolume(), self._front.members)
        if broken := self._list_broken_limits(outcome):
            self._listener.warning(
                f"trial {outcome.number} came out beyond {' and '.join(broken)}, which only its training could tell: "
                "it is kept, and has no place on the front"
            )
        for reason in outcome.untimed.values():
            self._listener.warning(f"trial {outcome.number} is kept without this latency: {reason}")
        if self._publishes:
            self._drawn.append(self._pictures.submit(self._publish, outcome))

    def close(self) -> None:
        """Wait for the pictures; a picture that could not be drawn is a warning, not a loss."""
        self._closing.set()
        self._pictures.shutdown(wait=True)
        errors = [error for drawn in self._drawn if (error := drawn.exception()) is not None]
        if errors:
            self._listener.warning(f"{len(errors)} trials have no picture or are not in MLflow ({errors[0]})")

    @property
    def seconds(self) -> float:
        """Seconds that all trials of the study took, one after the other."""
        return self._seconds

    def _count(self, outcome: Outcome) -> None:
        self._seconds += outcome.seconds
        measured = outcome.state == "complete" and not outcome.list_missing(o.name for o in self._objectives)
        if measured and not self._list_broken_limits(outcome):
            self._front.add(outcome.metrics)
        grown = self._front.hypervolume()
        self._flat = 0 if grown > self._best + GROWTH else self._flat + 1
        self._best = max(self._best, grown)

    def _list_broken_limits(self, outcome: Outcome) -> list[str]:
        """Name the limits that a finished network breaks."""
        return self._limits.list_broken(outcome.metrics)

    @property
    def flat(self) -> int:
        """Trials since the front last grew by more than :data:`GROWTH`."""
        return self._flat

    def _publish(self, outcome: Outcome) -> None:
        """Draw the pictures, then hand everything to the tracker; the next trial is asked and begun before."""
        self._closing.wait(NEXT_BEGINS_WITHIN)
        from search.report.plots import save_and_clear, widths_figure
        from search.report.valley import valley_figure

        folder = self._files.folder(outcome.number)
        if outcome.state == "complete" and not (folder / "widths.png").exists():
            save_and_clear(widths_figure(outcome, self._objectives), folder / "widths.png")
        if outcome.profiles and not (folder / "valley.png").exists():
            title = f"Trial {outcome.number} · {outcome.method}"
            save_and_clear(valley_figure(outcome.profiles, title, ("not pruned", "pruned")), folder / "valley.png")
        present = trial_artefacts(self._files, outcome.number)
        self._tracker.result().log_trial(outcome, self._dense, present)
