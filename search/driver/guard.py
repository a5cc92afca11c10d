"""A listener whose mistakes stay its own: a sweep is not ended by what watches it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from search.records.listener import Listener, Measurement
from search.records.outcome import DenseRow, Outcome

LOGGER = logging.getLogger("paretoprune")


class GuardedListener:
    """Passes everything on; an exception of the listener is logged with its traceback, once for each kind of news.

    Interrupts pass, so that a listener can still end a sweep as Ctrl-C does.

    Args:
        listener: Receives progress.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._failed: set[str] = set()

    def _tell(self, what: str, news: Callable[[], None]) -> None:
        try:
            news()
        except Exception:
            if what not in self._failed:
                self._failed.add(what)
                name = type(self._listener).__name__
                LOGGER.exception("%s.%s failed; the sweep goes on, and its further failures are not logged", name, what)

    def stage(self, text: str) -> None:
        """Pass on a stage.

        Args:
            text: What is done now.
        """
        self._tell("stage", lambda: self._listener.stage(text))

    def dense_epoch(self, record: dict[str, float], epochs: int) -> None:
        """Pass on an epoch of the dense network.

        Args:
            record: Its values.
            epochs: How many there will be.
        """
        self._tell("dense_epoch", lambda: self._listener.dense_epoch(record, epochs))

    def sweep_started(
        self, study: str, total: int, done: int, dense: DenseRow, objectives: Sequence[Measurement] = ()
    ) -> None:
        """Pass on that trials begin.

        Args:
            study: Name of the study.
            total: How many trials there will be.
            done: How many are finished already.
            dense: What the dense network reaches and costs.
            objectives: What is searched for.
        """
        self._tell("sweep_started", lambda: self._listener.sweep_started(study, total, done, dense, objectives))

    def trial_started(self, number: int, method: str) -> None:
        """Pass on that a trial runs.

        Args:
            number: Its number.
            method: Name of its method.
        """
        self._tell("trial_started", lambda: self._listener.trial_started(number, method))

    def trial_progress(self, number: int, method: str, what: str, done: int, total: int) -> None:
        """Pass on how far a trial is.

        Args:
            number: Number of the trial.
            method: Name of its method.
            what: What is done now.
            done: How many parts of it are done.
            total: How many parts it has.
        """
        self._tell("trial_progress", lambda: self._listener.trial_progress(number, method, what, done, total))

    def trial_finished(self, outcome: Outcome, hypervolume: float, members: int) -> None:
        """Pass on that a trial is finished.

        Args:
            outcome: What came out.
            hypervolume: Of the front so far.
            members: How many networks are on the front so far.
        """
        self._tell("trial_finished", lambda: self._listener.trial_finished(outcome, hypervolume, members))

    def warning(self, text: str) -> None:
        """Pass on a warning; where the listener fails with it, it is logged.

        Args:
            text: One or two sentences.
        """

        def pass_on() -> None:
            try:
                self._listener.warning(text)
            except Exception:
                LOGGER.warning("%s", text)
                raise

        self._tell("warning", pass_on)

    def close(self) -> None:
        """Pass on that nothing more will come."""
        self._tell("close", self._listener.close)
