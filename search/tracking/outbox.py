"""Events sent one after the other by a background thread; what is lost is counted, not raised."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

PATIENCE = 15.0
"""Seconds that failures in a row may take once nothing is left to do but send."""


@dataclass(frozen=True)
class Delivery:
    """What became of the events.

    Attributes:
        sent: Events that arrived.
        lost: Events that did not.
        first_error: What went wrong first, if anything.
    """

    sent: int
    lost: int
    first_error: str | None

    @property
    def warning(self) -> str | None:
        """One line for the user, or None when nothing was lost."""
        if not self.lost:
            return None
        return f"MLflow did not get {self.lost} of {self.sent + self.lost} events (first: {self.first_error})"


class Outbox:
    """Runs calls in their order, in one thread of its own.

    Args:
        readable: Turns what a call raised into one line.
    """

    def __init__(self, readable: Callable[[BaseException], str]) -> None:
        self._readable = readable
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._events: list[tuple[str, Future[object]]] = []
        self._closing = False
        self._wasted = 0.0  # seconds that failures took since something arrived

    def submit(self, what: str, act: Callable[[], object]) -> None:
        """Have an event sent after all earlier ones; returns at once.

        Args:
            what: Names the event in a complaint.
            act: Sends it.
        """
        self._events.append((what, self._sender.submit(self._send, act)))

    def close(self, timeout: float) -> Delivery:
        """Wait until everything is sent; nothing can be submitted afterwards.

        Args:
            timeout: How long to wait at most, in seconds. What is not sent by then is given up, and sooner when
                nothing but slow failures comes back: then there is no server.

        Returns:
            What was sent and what was lost.
        """
        self._closing = True
        _, late = wait([event for _, event in self._events], timeout)
        self._sender.shutdown(wait=not late, cancel_futures=True)
        complaints = []
        for what, event in self._events:
            if event in late:
                complaints.append(f"{what}: not sent within {timeout:g} s")
            elif (error := event.exception()) is not None:
                complaints.append(f"{what}: {self._readable(error)}")
        sent = len(self._events) - len(complaints)
        return Delivery(sent, len(complaints), complaints[0] if complaints else None)

    def _send(self, act: Callable[[], object]) -> None:
        """Run in the other thread."""
        if self._closing and self._wasted > PATIENCE:
            raise TimeoutError("given up")
        began = time.monotonic()
        try:
            act()
        except Exception:
            self._wasted += time.monotonic() - began
            raise
        self._wasted = 0.0
