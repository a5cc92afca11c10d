"""A study that several drivers run together, over one folder of the study and one database on a server.

Each driver plays the same schedule: which trial is asked next, and with which point, follows from the outcomes, which
all of them see. So they need not talk to each other. A driver runs the trials that it has claimed in Optuna's storage,
and takes in what the others have written; a trial whose driver has died is claimed by the next one that is free, and
goes on from its last epoch.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.study.schedule import Schedule

LOOKED_EVERY = 1.0
"""Seconds between two looks at what the other drivers have done."""


class Claims(Protocol):
    """Says which driver runs which trial; :class:`search.study.storage.Storage` is one."""

    def claim(self, number: int, driver: str, is_gone: Callable[[str], bool]) -> bool:
        """Take a trial, unless another driver runs it.

        Args:
            number: Its number.
            driver: Names this driver.
            is_gone: Tells whether a driver is known to have ended.
        """

    def beat(self, numbers: list[int]) -> None:
        """Give a sign of life.

        Args:
            numbers: The trials that this driver runs.
        """

    def release(self, number: int, driver: str) -> None:
        """Let go of a trial.

        Args:
            number: Its number.
            driver: Names this driver.
        """


class SharedSchedule(Schedule):
    """Hands out the trials that this driver has claimed, and takes in those of the others; a context while it does.

    Args:
        *args: As of :class:`search.study.schedule.Schedule`.
        claims: Says which driver runs which trial.
        ended: Looks up what came of a leg of a trial, whichever driver ran it.
        on_elsewhere: Hears of each trial that another driver runs.
        beat: Seconds between two signs of life.
        looked_every: Seconds between two looks at what the others have done.
        **more: As of :class:`search.study.schedule.Schedule`.
    """

    def __init__(
        self,
        *args: Any,
        claims: Claims,
        ended: Callable[[TrialSpec], Outcome | None],
        on_elsewhere: Callable[[TrialSpec], None],
        beat: float,
        looked_every: float = LOOKED_EVERY,
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self.driver = name_driver()
        self.seconds = 0.0
        self._claims, self._ended, self._on_elsewhere = claims, ended, on_elsewhere
        self._beat, self._looked_every = beat, looked_every
        self._unclaimed: dict[int, TrialSpec] = {}
        self._elsewhere: set[int] = set()
        self._mine: set[int] = set()
        self._looked = -looked_every
        self._over_now = threading.Event()
        self._beating = threading.Thread(target=self._keep_beating, name="beats", daemon=True)

    def __enter__(self) -> Self:
        """Begin to give signs of life."""
        self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of what was claimed and has not ended, so that others need not wait for it."""
        self._over_now.set()
        self._beating.join()
        for number in sorted(self._mine):
            with suppress(Exception):  # without a database the claims grow stale by themselves
                self._claims.release(number, self.driver)

    @property
    def exhausted(self) -> bool:
        """Whether no further trial will be handed out: those of other drivers may come back to this one."""
        return super().exhausted and (self._over() or self._closed or not self._unclaimed)

    def next(self) -> TrialSpec | None:
        """Hand out a trial; waits for the other drivers where this one has nothing else to do.

        Returns:
            The trial, claimed; ``None`` if there is none to hand out at the moment.
        """
        while True:
            new = self._fetch()
            if new or time.monotonic() - self._looked >= self._looked_every:
                self._take_in()
                self._fetch()
                for number, spec in sorted(self._unclaimed.items()):
                    if not self._over() and self._claims.claim(number, self.driver, has_ended):
                        del self._unclaimed[number]
                        self._elsewhere.discard(number)
                        if (outcome := self._ended(spec)) is not None:  # since the look above
                            super().finish(outcome)
                            continue
                        self._mine.add(number)
                        return spec
                    if number not in self._elsewhere:
                        self._elsewhere.add(number)
                        self._on_elsewhere(spec)
                self._looked = time.monotonic()
            if self._mine or self.exhausted or self._over():
                return None
            time.sleep(self._looked_every / 4)

    def finish(self, outcome: Outcome) -> None:
        """Take the result of a trial that this driver has run.

        Args:
            outcome: The trial, finished or paused.
        """
        self._mine.discard(outcome.number)
        self.seconds += outcome.seconds
        super().finish(outcome)
        if outcome.state == "paused":
            self._claims.release(outcome.number, self.driver)
        self._looked = -self._looked_every

    def _fetch(self) -> bool:
        """Take what is due out of the schedule; tell whether there was anything."""
        before = len(self._unclaimed)
        while (spec := super().next()) is not None:
            self._unclaimed[spec.number] = spec
        return len(self._unclaimed) > before

    def _take_in(self) -> None:
        """Take in what other drivers have finished."""
        for number, spec in sorted(self._unclaimed.items()):
            outcome = self._ended(spec)
            if outcome is not None:
                del self._unclaimed[number]
                self._elsewhere.discard(number)
                super().finish(outcome)

    def _keep_beating(self) -> None:
        while not self._over_now.wait(self._beat):
            with suppress(Exception):  # a server that is away comes back, or the driver says that it does not
                self._claims.beat(sorted(self._mine))


def name_driver() -> str:
    """Name this driver so that others on its machine can see whether it lives.

    Returns:
        Machine, process and a number that no other driver has.
    """
    return f"{_machine()}:{os.getpid()}:{_started(os.getpid())}:{uuid.uuid4().hex[:8]}"


def has_ended(driver: str) -> bool:
    """Tell whether a driver is known to have ended.

    Args:
        driver: As :func:`name_driver` named it.

    Returns:
        True if it ran on this machine and its process is gone; of others nothing is known.
    """
    machine, pid, started, _ = driver.rsplit(":", 3)
    return machine == _machine() and started != "" and _started(int(pid)) != started


def _machine() -> str:
    """Name the machine and its table of processes: a container has one of its own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}:{boot}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty where that is not known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
