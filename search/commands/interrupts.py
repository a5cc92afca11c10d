"""Ctrl-C: the first one ends the work, impatient ones after it do not break the winding down."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from search.commands.output import note

PATIENCE = 30.0
"""Seconds after an interrupt in which further ones are not heard: workers and databases are being closed."""


@contextmanager
def interrupted_once(patience: float = PATIENCE) -> Generator[None]:
    """Raise ``KeyboardInterrupt`` at the first Ctrl-C of the block, and not again while it winds down.

    Args:
        patience: Seconds for winding down; a Ctrl-C after them interrupts again, so that nothing can hang for good.

    Yields:
        Nothing; runs the block.
    """
    # Only the main thread may set a handler; and a job in the background of a shell is not to hear of Ctrl-C.
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    heard: float | None = None

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        now = time.monotonic()
        if heard is not None and now - heard < patience:
            return
        heard = now
        note("stopping: workers and databases are being closed")
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
