"""Methods that take their process with them: named by ``benchmarks.faults.endings``."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

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


class Hogs(Magnitude):
    """Asks for more memory than its process may have."""

    def prune(self, problem: Problem) -> Pruned:
        """Prune nothing."""
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**28, before[1]))
        try:
            held = [bytearray(2**24) for _ in range(64)]
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        raise AssertionError(f"{len(held)} pieces fit")


class Killed(Magnitude):
    """Is killed, as the kernel does with what takes the machine's memory."""

    def prune(self, problem: Problem) -> Pruned:
        """Prune nothing."""
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Exits(Magnitude):
    """Ends the program."""

    def prune(self, problem: Problem) -> Pruned:
        """Prune nothing."""
        raise SystemExit(3)
