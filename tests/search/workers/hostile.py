"""Methods that take their process with them."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from methods.contract.method import Problem, Pruned
from methods.magnitude import Magnitude

COUNT = "PARETOPRUNE_TEST_COUNT"
"""Environment variable that names a file with one character for each attempt."""


def _count() -> int:
    path = Path(os.environ[COUNT])
    with path.open("a") as file:
        file.write("x")
    return len(path.read_text())


class Aborts(Magnitude):
    """Ends its process as a failed assertion in C does."""

    def prune(self, problem: Problem) -> Pruned:
        _count()
        os.abort()


class Exits(Magnitude):
    """Ends the program."""

    def prune(self, problem: Problem) -> Pruned:
        _count()
        sys.exit("no licence")


class KilledTwice(Magnitude):
    """Is killed from outside, as by the kernel when memory is short, and then works."""

    def prune(self, problem: Problem) -> Pruned:
        if _count() <= 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().prune(problem)


class Hangs(Magnitude):
    """Never returns."""

    def prune(self, problem: Problem) -> Pruned:
        _count()
        time.sleep(600)
        raise AssertionError


class RunsOutOfMemory(Magnitude):
    """Has no memory for whole batches."""

    def prune(self, problem: Problem) -> Pruned:
        _count()
        if problem.recipe.accumulate == 1:
            raise MemoryError
        return super().prune(problem)


class GivesNaN(Magnitude):
    """Returns a network that is none."""

    def prune(self, problem: Problem) -> Pruned:
        pruned = super().prune(problem)
        next(pruned.model.parameters()).data.fill_(float("nan"))
        return pruned
