"""Which trial is run: number, method, point and seed."""

from __future__ import annotations

from dataclasses import dataclass

from spaces import Value


@dataclass(frozen=True)
class TrialSpec:
    """Which trial to run.

    Attributes:
        number: Its number in the study.
        method: Name of the method.
        point: Value of each parameter by the method's own names.
        seed: Decides everything random in the trial.
    """

    number: int
    method: str
    point: dict[str, Value]
    seed: int
