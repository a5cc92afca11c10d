"""Signals that end a run: the first one winds it down, the second one ends it at once."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from search.commands.output import note

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

REPEATED = signal.SIGURG
"""What a signal is sent again as: one that nobody else sends, and that is ignored where nobody hears it."""

ECHO = 1.0
"""Seconds after a signal in which another one is an echo of it: terminals and wrappers both pass Ctrl-C on."""

AGAIN = 0.02
"""Seconds after which a signal that was put off is heard again."""

INSIST = 0.5
"""Seconds after which is looked, again and again, whether an interrupt was swallowed: finalisers and libraries in other
languages drop what is raised in them."""

NOTED_WITHIN = 0.005
"""Seconds within which the thread that notes signals gets its turn."""

UNINTERRUPTED = ("<frozen importlib", f"{os.sep}sqlalchemy{os.sep}")
"""Where an exception from outside does harm, by parts of file names: an import keeps a lock for good, for which every
later import waits; a database's connections report it with a traceback, and may swallow it."""


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
        ended: Set when the run has ended.
    """

    first: int | None = None
    at: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)


class _Arrivals:
    """Notes when signals come: Python calls their handlers later, after a call of Ray's by up to a second."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._told: float | None = None
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        threading.Thread(target=self._note, name="signals", daemon=True).start()

    def _note(self) -> None:
        while os.read(self._reader, 64):
            self._last = time.monotonic()
        os.close(self._reader)

    def last(self) -> float:
        """Say when the last signal came, in seconds of the monotonic clock; now, if that was not noted."""
        time.sleep(NOTED_WITHIN)
        noted, self._told = self._last != self._told, self._last
        return self._last if noted and self._last is not None else time.monotonic()

    def close(self) -> None:
        """Note no more."""
        signal.set_wakeup_fd(self._before)
        os.close(self._writer)


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
    Once a signal has come the process is about to end: later ones are heard as second ones after the block, too, and
    not at all while the interpreter ends, so that the exit code stays that of the first. An interrupt that something
    has swallowed is raised again, until :attr:`Heard.ended` is set.

    Args:
        echo: Seconds after the first signal in which others are not heard.

    Yields:
        What has been heard.
    """
    heard = Heard()
    if threading.current_thread() is not threading.main_thread():  # only there may a handler be set
        yield heard
        return
    arrivals = _Arrivals()

    def handle(number: int, frame: FrameType | None) -> None:
        if heard.first is None:
            heard.first, heard.at = number, arrivals.last()
            note("stopping: the last epoch is kept, workers and databases are being closed; once more to stop at once")
            threading.Thread(target=insist, daemon=True).start()
            raise_where_safe(number, frame)
        elif arrivals.last() - heard.at >= echo:
            note("stopped at once; finished trials are kept")
            os._exit(128 + number)

    def raise_where_safe(number: int, frame: FrameType | None) -> None:
        if not _is_uninterrupted(frame):
            raise Interrupted(number)
        threading.Thread(target=send_again, args=(AGAIN,), daemon=True).start()

    def insist() -> None:
        while not heard.ended.is_set():
            send_again(INSIST)

    def send_again(seconds: float) -> None:
        if not heard.ended.wait(seconds):
            os.kill(os.getpid(), REPEATED)

    def handle_again(number: int, frame: FrameType | None) -> None:
        if heard.first is not None and not heard.ended.is_set() and not _is_unwinding():
            raise_where_safe(heard.first, frame)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    heeded = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, handle)
    before_repeated = signal.signal(REPEATED, handle_again)
    try:
        yield heard
    finally:
        heard.ended.set()
        signal.signal(REPEATED, before_repeated or signal.SIG_DFL)
        if heard.first is None:
            for number in heeded:
                signal.signal(number, before[number] or signal.SIG_DFL)
            arrivals.close()
        else:
            atexit.register(_ignore, heeded)


def _is_uninterrupted(frame: FrameType | None) -> bool:
    """Say whether the program is where an exception from outside does harm."""
    while frame is not None:
        if any(part in frame.f_code.co_filename for part in UNINTERRUPTED):
            return True
        frame = frame.f_back
    return False


def _is_unwinding() -> bool:
    """Say whether the program is on its way out: an interrupt is being handled, by whatever clean-up."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def _ignore(numbers: Iterable[int]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
