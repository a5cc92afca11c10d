"""Which trial is run, and how far: number, method, point and seed, and the rung that it pauses at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spaces import Value


@dataclass(frozen=True)
class TrialSpec:
    """Which trial to run, and how far.

    Attributes:
        number: Its number in the study.
        method: Name of the method.
        point: Value of each parameter by the method's own names.
        seed: Decides everything random in the trial.
        until: Optimiser steps from which on the trial pauses at the next rung; ``None`` lets it run to its end.
    """

    number: int
    method: str
    point: dict[str, Value]
    seed: int
    until: int | None = None


def pauses_at(record: Mapping[str, float], until: int | None, steps: int) -> bool:
    """Tell whether a trial pauses at the end of an epoch.

    Args:
        record: The record of the epoch.
        until: Steps from which on it pauses; ``None`` for never.
        steps: Its whole budget in steps.

    Returns:
        Whether the network is as cut as it will be, enough steps were taken, and some are left.

    Example:
        >>> [pauses_at({"step": step, "comparable": 1.0}, 20, 40) for step in (10, 20, 30, 40)]
        [False, True, True, False]
    """
    return until is not None and bool(record.get("comparable")) and until <= record["step"] < steps


def history_to_rung(
    history: Sequence[Mapping[str, float]], until: int | None, steps: int
) -> list[Mapping[str, float]] | None:
    """Find the records of a trial up to the rung that it pauses at.

    Args:
        history: Its records, by epoch.
        until: Steps from which on it pauses; ``None`` for never.
        steps: Its whole budget in steps.

    Returns:
        The records, that of the rung last; ``None`` if it did not come to such a rung.
    """
    for place, record in enumerate(history):
        if pauses_at(record, until, steps):
            return list(history[: place + 1])
    return None
