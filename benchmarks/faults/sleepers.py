"""A method whose trials take a given time and no computing: named by ``overhead`` and ``scale``."""

from __future__ import annotations

import time

from methods.contract.method import Problem, Pruned
from methods.magnitude import Magnitude


class Sleeps(Magnitude):
    """Cuts the network at once, and sleeps.

    Attributes:
        seconds: How long a trial takes.
    """

    seconds: float = 5.0

    def prune(self, problem: Problem) -> Pruned:
        """Sleep, then cut without fine-tuning."""
        time.sleep(self.seconds)
        return super().prune(problem)


class NoOp(Sleeps):
    """Cuts the network and nothing else."""

    seconds: float = 0.0
