"""Starting what runs trials while other things are loaded: Ray takes seconds, and so does importing torch."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from search.study.config import Resources

PRELOADED = "search.workers.preload"
"""What a worker imports before it has work."""


class Launch:
    """Ray on its way up, in a thread of its own; a context that ends with Ray's end. Other executors need no start.

    A Ray that runs in this process already is used, and left as it is.

    Args:
        resources: Where trials run.
    """

    def __init__(self, resources: Resources) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="launch")
        self._started: Future[Callable[[], None] | None] = self._thread.submit(_start, resources)

    def wait(self) -> None:
        """Wait until it is there; what kept it from starting is raised here."""
        self._started.result()
        _take_signals_back()

    def __enter__(self) -> Self:
        """Own it until the context ends."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what was started."""
        self.close()

    def close(self) -> None:
        """Stop what was started, once."""
        if self._started.exception() is None and (stop := self._started.result()) is not None:
            self._started = Future()
            self._started.set_result(None)
            stop()  # first: Ray's processes are killed when the thread ends that has started them
        self._thread.shutdown(wait=True)


def _take_signals_back() -> None:
    """Give signals to the process's own handlers again: Ray's libraries take them, and end the process with a stack."""
    if threading.current_thread() is not threading.main_thread():  # only there may a handler be set
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        handler = signal.getsignal(number)  # what Python knows, which is not what has been put in its place
        if handler is not None:
            signal.signal(number, handler)


def _start(resources: Resources) -> Callable[[], None] | None:
    """Start Ray where that is the executor; return what stops it."""
    if resources.executor != "ray":
        return None
    from search.workers.cluster import is_running, start_ray, stop_ray

    if is_running():
        return None
    start_ray(resources, PRELOADED)
    import search.workers.ray_workers  # noqa: F401  (Ray Tune takes a second, in which the driver reads data)

    return stop_ray
