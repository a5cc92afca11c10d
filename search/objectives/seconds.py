"""Seconds that a trial took to prune and fine-tune; the trial itself holds the watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.objectives.base import Objective

if TYPE_CHECKING:
    from search.records.outcome import DenseRow

UNKNOWN_TRAINING_SECONDS = 3600.0
"""Stands for the training time of a dense network that came with its weights."""


def duration(value: float) -> str:
    """Write seconds so that the eye can weigh them.

    Args:
        value: Seconds, ``>= 0``.

    Returns:
        The text.

    Example:
        >>> [duration(s) for s in (0.42, 7.26, 83.0, 4000.0)]
        ['0.4 s', '7.3 s', '1 min 23 s', '1 h 07 min']
    """
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    hours, minutes = divmod(round(value / 60), 60)
    return f"{hours} h {minutes:02d} min"


def _reference(dense: DenseRow) -> float:
    """Return the time of training from scratch: pruning that takes as long has saved nothing."""
    return dense.seconds if dense.seconds > 0 else UNKNOWN_TRAINING_SECONDS


SECONDS = Objective(
    name="seconds",
    title="seconds of the trial",
    direction="minimise",
    unit="s",
    ideal=0.0,
    reference=_reference,
    format=duration,
)
