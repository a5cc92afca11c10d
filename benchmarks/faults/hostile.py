"""Methods that take their process with them: named by ``benchmarks.faults.endings``."""

from __future__ import annotations

import os
import time

from methods.contract.method import Problem, Pruned
from methods.magnitude import Magnitude


class Aborts(Magnitude):
    """Ends its process as a failed assertion in C does."""

    def prune(self, problem: Problem) -> Pruned:
        """Prune nothing."""
        os.abort()


class Hangs(Magnitude):
    """Never returns."""

    def prune(self, problem: Problem) -> Pruned:
        """Prune nothing."""
        time.sleep(10**6)
        raise AssertionError


class Exits(Magnitude):
    """Ends the program."""

    def prune(self, problem: Problem) -> Pruned:
        """Prune nothing."""
        raise SystemExit(3)
