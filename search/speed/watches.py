"""Watches: torch's benchmark timer for what returns when it is done, CUDA events for what does not."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from search.speed.interleaved import Run

WARM_RUNS = 2


class HostWatch:
    """Times runs on the CPU with ``torch.utils.benchmark``: garbage collection off, threads fixed, two runs to warm up.

    The timer measures one statement at a time and cannot alternate between several; ``search.speed.interleaved``
    takes a block of one, then a block of the other.

    Args:
        threads: Torch threads while the watch goes.
        clock: Seconds that only ever grow. ``None`` with one thread is the processor time of that thread: on a core
            of its own the same as the time on the wall, and on a shared one without what others took away. ``None``
            with more threads is the time on the wall, for threads wait for each other.
    """

    def __init__(self, threads: int, clock: Callable[[], float] | None = None) -> None:
        self._threads = threads
        self._clock = time.thread_time if clock is None and threads == 1 else clock or time.perf_counter

    def seconds(self, run: Run, times: int) -> float:
        """Time a run.

        Args:
            run: What to time.
            times: How often it runs in a row while the watch goes.

        Returns:
            Mean seconds of one run.
        """
        from torch.utils.benchmark import Timer  # looks for a CUDA compiler, and says so where there is no GPU

        timer = Timer("run()", globals={"run": run}, num_threads=self._threads, timer=self._clock)
        return float(timer.timeit(times).mean)


class DeviceWatch:
    """Times runs on a GPU with events on its own clock; what the host does meanwhile does not count."""

    def seconds(self, run: Run, times: int) -> float:
        """Time a run.

        Args:
            run: What to time; it may return before the device is done.
            times: How often it runs in a row between the two events.

        Returns:
            Mean seconds of one run.
        """
        begin = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        for _ in range(WARM_RUNS):
            run()
        torch.cuda.synchronize()
        begin.record()
        for _ in range(times):
            run()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000 / times
