"""What stands in for MLflow while it cannot be reached: the search goes on, and nothing is lost but the mirror."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from search.objectives import Objective
from search.records.outcome import DenseRow, Outcome
from search.tracking.models import ModelSource
from search.tracking.outbox import Delivery
from search.tracking.run_store import RunStore


class Away:
    """Takes what a :class:`search.tracking.tracker.Tracker` takes, and sends nothing: the study's files keep it all.

    Args:
        store: The address that cannot be used.
        reason: Why, in a sentence.
    """

    def __init__(self, store: RunStore, reason: str) -> None:
        self.store = store
        self._reason = reason
        self._events = 0

    def start_sweep(
        self,
        name: str,
        config: Mapping[str, Any],
        dense: DenseRow | None = None,
        tags: Mapping[str, str] | None = None,
        run_id: str | None = None,
        objectives: Sequence[Objective] = (),
    ) -> str:
        """Begin nothing.

        Args:
            name: Name of the study.
            config: Its configuration.
            dense: The dense network.
            tags: Further tags.
            run_id: The parent run of an earlier start.
            objectives: What is searched for.

        Returns:
            The parent run of the earlier start; empty if there was none.
        """
        return run_id or ""

    def log_dense(self, dense: DenseRow) -> None:
        """Count an event.

        Args:
            dense: The dense network.
        """
        self._events += 1

    def log_trial(self, outcome: Outcome, dense: DenseRow | None, files: Mapping[str, Path] | None = None) -> None:
        """Count an event.

        Args:
            outcome: The trial.
            dense: The dense network.
            files: Its artefacts.
        """
        self._events += 1

    def log_tests(self, numbers: Mapping[int, Mapping[str, float]]) -> None:
        """Count an event.

        Args:
            numbers: Metrics on the test set by trial.
        """
        self._events += 1

    def log_model(self, number: int, source: ModelSource) -> None:
        """Count an event.

        Args:
            number: Number of the trial.
            source: Its network.
        """
        self._events += 1

    def finish_sweep(
        self,
        ranks: Mapping[int, int],
        files: Mapping[str, Path],
        hypervolume: float,
        note: str,
        summary: Mapping[str, float] | None = None,
    ) -> None:
        """Count an event.

        Args:
            ranks: Rank by trial.
            files: The front's files.
            hypervolume: Of the front.
            note: The front as Markdown.
            summary: Further metrics.
        """
        self._events += 1

    def stop_sweep(self, status: Literal["KILLED", "FAILED"] = "KILLED") -> None:
        """Count an event.

        Args:
            status: How the sweep ended.
        """
        self._events += 1

    def close(self, timeout: float = 120.0) -> Delivery:
        """Say what was not sent.

        Args:
            timeout: Not needed.

        Returns:
            All events as lost.
        """
        return Delivery(0, self._events, self._reason)


class Elsewhere(Away):
    """Stands in for MLflow in a driver that is not the one which mirrors the study: nothing is lost.

    Args:
        store: The address that the other driver sends to.
    """

    def __init__(self, store: RunStore) -> None:
        super().__init__(store, "")

    def close(self, timeout: float = 120.0) -> Delivery:
        """Say that nothing was to be sent.

        Args:
            timeout: Not needed.

        Returns:
            No event.
        """
        return Delivery(0, 0, None)
