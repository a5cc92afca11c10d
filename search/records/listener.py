"""What a sweep reports while it runs: to the terminal, to a notebook, or to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from search.records.outcome import DenseRow, Outcome


class Measurement(Protocol):
    """What a listener needs to know of an objective to tell its values."""

    @property
    def name(self) -> str:
        """Key of the value in ``Outcome.metrics``."""

    @property
    def title(self) -> str:
        """The name in words."""

    @property
    def heading(self) -> str:
        """The name in a word."""

    @property
    def relative(self) -> bool:
        """Whether a value is best given as a share of the dense network's."""

    def format(self, value: float) -> str:
        """Write a value.

        Args:
            value: The value.

        Returns:
            The text.
        """


class Listener(Protocol):
    """Hears of a sweep's progress; called by the driver, never by workers."""

    def stage(self, text: str) -> None:
        """Hear that a new part of the work begins.

        Args:
            text: What is done now, in a few words ("training the dense network").
        """

    def dense_epoch(self, record: dict[str, float], epochs: int) -> None:
        """Hear of one epoch of training the dense network.

        Args:
            record: ``epoch``, ``loss``, ``accuracy`` and so on.
            epochs: How many epochs there will be.
        """

    def sweep_started(
        self, study: str, total: int, done: int, dense: DenseRow, objectives: Sequence[Measurement] = ()
    ) -> None:
        """Hear that trials begin.

        Args:
            study: Name of the study.
            total: How many trials there will be.
            done: How many are finished already (of an earlier, interrupted run).
            dense: What the dense network reaches and costs.
            objectives: What is searched for.
        """

    def trial_started(self, number: int, method: str) -> None:
        """Hear that a trial runs.

        Args:
            number: Its number.
            method: Name of its method.
        """

    def trial_progress(self, number: int, method: str, what: str, done: int, total: int) -> None:
        """Hear how far the present work of a running trial is, if it is long; called from a thread of its own.

        Args:
            number: Number of the trial.
            method: Name of its method.
            what: What is done now.
            done: How many parts of it are done.
            total: How many parts it has.
        """

    def trial_finished(self, outcome: Outcome, hypervolume: float, members: int) -> None:
        """Hear that a trial is finished, completed or failed.

        Args:
            outcome: What came out.
            hypervolume: Of the front so far.
            members: How many networks are on the front so far.
        """

    def warning(self, text: str) -> None:
        """Hear of something that the user should know and that stops nothing.

        Args:
            text: One or two sentences.
        """

    def close(self) -> None:
        """Hear that nothing more will come."""


class NullListener:
    """Listens to nothing; for scripts and tests."""

    def stage(self, text: str) -> None:
        """Ignore a stage.

        Args:
            text: Ignored.
        """

    def dense_epoch(self, record: dict[str, float], epochs: int) -> None:
        """Ignore an epoch.

        Args:
            record: Ignored.
            epochs: Ignored.
        """

    def sweep_started(
        self, study: str, total: int, done: int, dense: DenseRow, objectives: Sequence[Measurement] = ()
    ) -> None:
        """Ignore the start.

        Args:
            study: Ignored.
            total: Ignored.
            done: Ignored.
            dense: Ignored.
            objectives: Ignored.
        """

    def trial_started(self, number: int, method: str) -> None:
        """Ignore a started trial.

        Args:
            number: Ignored.
            method: Ignored.
        """

    def trial_progress(self, number: int, method: str, what: str, done: int, total: int) -> None:
        """Ignore how far a trial is.

        Args:
            number: Ignored.
            method: Ignored.
            what: Ignored.
            done: Ignored.
            total: Ignored.
        """

    def trial_finished(self, outcome: Outcome, hypervolume: float, members: int) -> None:
        """Ignore a finished trial.

        Args:
            outcome: Ignored.
            hypervolume: Ignored.
            members: Ignored.
        """

    def warning(self, text: str) -> None:
        """Ignore a warning.

        Args:
            text: Ignored.
        """

    def close(self) -> None:
        """Do nothing."""
