"""How far a long piece of work within a trial is: told by a worker, through a file, to whoever watches the driver.

A worker may be another process or another machine; what it shares with the driver is the folder of the study. It
writes one small file for each of its trials, at a rate that costs nothing, and a thread of the driver looks at the
files of running trials. Nothing of it decides a result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from search.records.listener import Listener
from search.records.trial_spec import TrialSpec
from search.store.files import read_json, write_json
from search.store.studies import StudyFiles

WRITTEN_EVERY = 1.0
"""Seconds between two writings of one trial."""

LOOKED_EVERY = 1.0
"""Seconds between two looks of the driver."""


@dataclass(frozen=True)
class Mark:
    """How far a trial's present work is.

    Attributes:
        number: Number of the trial.
        method: Its method.
        what: What is done now.
        done: How many parts of it are done.
        total: How many parts it has.
    """

    number: int
    method: str
    what: str
    done: int
    total: int


class Marker:
    """The :data:`methods.contract.analyses.Progress` of a trial: writes how far it is to a file.

    Args:
        files: The study.
        spec: The trial.
        clock: Seconds that only ever grow.
    """

    def __init__(self, files: StudyFiles, spec: TrialSpec, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = _folder(files) / f"{spec.number:04d}.json"
        self._spec = spec
        self._clock = clock
        self._next = clock()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Write how far the trial is, unless that was written a moment ago.

        Args:
            what: What is done now.
            done: How many parts of it are done.
            total: How many parts it has.
        """
        now = self._clock()
        if now < self._next:
            return
        self._next = now + WRITTEN_EVERY
        with suppress(OSError):  # a full disk stops the trial where it matters, at its outcome
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, asdict(Mark(self._spec.number, self._spec.method, what, done, total)))

    def clear(self) -> None:
        """Remove the file: the trial is over."""
        self._path.unlink(missing_ok=True)


@contextmanager
def watch_progress(files: StudyFiles, listener: Listener, every: float = LOOKED_EVERY) -> Generator[None]:
    """Pass on, while trials run, how far each is.

    Args:
        files: The study.
        listener: Whom to tell; called from a thread of its own.
        every: Seconds between two looks.

    Yields:
        Nothing; runs the block.
    """
    over = threading.Event()
    for old in marks(files):  # of a driver that was killed
        (_folder(files) / f"{old.number:04d}.json").unlink(missing_ok=True)
    thread = threading.Thread(target=_watch, args=(files, listener, every, over), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(OSError):  # never made, or a trial that was interrupted has left its file
            _folder(files).rmdir()


def marks(files: StudyFiles) -> list[Mark]:
    """Read how far the running trials are.

    Args:
        files: The study.

    Returns:
        What each has written, by number; trials without long work have written nothing.
    """
    found = []
    for path in sorted(_folder(files).glob("[0-9]*.json")):
        with suppress(FileNotFoundError):  # the trial has ended since
            found.append(Mark(**read_json(path)))
    return found


def _watch(files: StudyFiles, listener: Listener, every: float, over: threading.Event) -> None:
    told: dict[int, Mark] = {}
    while not over.wait(every):
        for mark in marks(files):
            if told.get(mark.number) != mark:
                told[mark.number] = mark
                listener.trial_progress(mark.number, mark.method, mark.what, mark.done, mark.total)


def _folder(files: StudyFiles) -> Path:
    return files.root / "progress"
