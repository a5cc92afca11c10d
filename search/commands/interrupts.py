"""Signals that end a run: the first one winds it down, the second one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from search.commands.output import note

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

ECHO = 1.0
"""Seconds after a signal in which another one is an echo of it: terminals and wrappers both pass Ctrl-C on."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to end.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class Heard:
    """Which signals have come.

    Attributes:
        first: The first one; ``None`` before it.
        at: When it came, in seconds of the monotonic clock.
    """

    first: int | None = None
    at: float = 0.0


def exit_code(interrupt: KeyboardInterrupt, heard: Heard | None = None) -> int:
    """Say how the process ends after an interrupt.

    Args:
        interrupt: What ended the run.
        heard: Which signals have come: libraries that wait in other languages, as Ray does, raise an interrupt of
            their own in place of ours.

    Returns:
        128 and the number of the signal: 130 for Ctrl-C, 143 for a termination, 129 for a terminal that went away.
    """
    if isinstance(interrupt, Interrupted):
        return 128 + interrupt.number
    return 128 + ((heard.first if heard is not None else None) or signal.SIGINT)


@contextmanager
def raise_at_first_signal(echo: float = ECHO) -> Generator[Heard]:
    """Raise :class:`Interrupted` at the first signal of the block; at the next one end the process at once.

    Signals that the caller has set to be ignored stay ignored: a job in the background of a shell, or under nohup.

    Args:
        echo: Seconds after the first signal in which others are not heard.

    Yields:
        What has been heard.
    """
    heard = Heard()
    if threading.current_thread() is not threading.main_thread():  # only there may a handler be set
        yield heard
        return

    def handle(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if heard.first is None:
            heard.first, heard.at = number, now
            note("stopping: the last epoch is kept, workers and databases are being closed; once more to stop at once")
            raise Interrupted(number)
        if now - heard.at >= echo:
            note("stopped at once; finished trials are kept")
            os._exit(128 + number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    heeded = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, handle)
    try:
        yield heard
    finally:
        for number in heeded:
            signal.signal(number, before[number] or signal.SIG_DFL)
