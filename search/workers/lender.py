"""A process that imports beside the trials what work after them needs, and then does it in forks of itself.

New processes would import torch and its exporters again, each of them, while nothing else is left to do.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import cloudpickle

from search.records.collector import import_for_good
from search.records.errors import RunError

Part = TypeVar("Part")
Done = TypeVar("Done")

LOOK_EVERY = 0.05
"""Seconds after which the process looks whether its forks have ended, and whether the driver is still there."""

_PROGRAM = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from search.workers.lender import lend; lend(sys.stdin.buffer)"
)


class Lender:
    """Does work other than trials, on this machine, until it is closed (``contextlib.closing``).

    Args:
        prepare: Imports what the work needs; called once in the process, can be pickled.
    """

    def __init__(self, prepare: Callable[[], object]) -> None:
        self._prepare = prepare
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = False

    def start(self) -> None:
        """Begin to import, unless that has begun; does not wait for it. May be called from any thread."""
        with self._lock:
            if self._process is not None or self._closed:
                return
            self._said = tempfile.TemporaryFile()
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                start_new_session=True,  # Ctrl-C is for the driver, which ends the process by itself
            )
            with suppress(BrokenPipeError):  # it has died; the first work says so
                self._send(pickle.dumps(sys.path) + cloudpickle.dumps(self._prepare))

    def spread(self, function: Callable[[Part], Done], parts: Sequence[Part]) -> list[Done]:
        """Do work in parts, all at the same time.

        Args:
            function: Does one part; it can be pickled, and so can what it returns.
            parts: The parts, about one for each core.

        Returns:
            What came of each, in order. What a part raises is raised here.

        Raises:
            RunError: If a process dies.
        """
        self.start()
        process = self._process
        if process is None or process.stdout is None:
            raise RunError("the process for the work after the trials has been ended")
        try:
            self._send(cloudpickle.dumps((function, list(parts))))
            answers: list[tuple[bool, Any]] = pickle.load(process.stdout)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError) as error:
            raise RunError(f"the process for the work after the trials died: {self._last_line()}") from error
        for well, what in answers:
            if not well:
                raise what
        return [what for _, what in answers]

    def close(self) -> None:
        """End the process and its forks, whatever they do; it cannot be started again."""
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
            if process is None or process.stdin is None or process.stdout is None or self._said is None:
                return
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
            self._said.close()

    def _send(self, data: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def _last_line(self) -> str:
        """Read what the process said last; its exit code where it said nothing."""
        if self._process is None or self._said is None:
            return "it was ended"
        code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {code}"


def lend(asked: IO[bytes]) -> None:
    """Import, and do what is asked until nobody is left to ask: the whole of the process.

    Args:
        asked: What prepares, and then pairs of a function and its parts, pickled; its end is the driver's.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what foreign code prints is no answer
    with import_for_good():
        cloudpickle.load(asked)()
    while True:
        try:
            function, parts = cloudpickle.load(asked)
        except EOFError:
            return
        answers.write(cloudpickle.dumps(_do_parts(function, parts, asked)))
        answers.flush()


def _do_parts(function: Callable[[Any], Any], parts: Sequence[Any], asked: IO[bytes]) -> list[tuple[bool, Any]]:
    """Do each part in a fork; where a system's forks cannot be relied on, one after the other here."""
    if sys.platform != "linux":
        return [pickle.loads(_do(function, part)) for part in parts]
    with tempfile.TemporaryDirectory(prefix="paretoprune-parts-") as folder:
        files = {}
        for number, part in enumerate(parts):
            file = Path(folder, f"{number}.pickle")
            files[_fork(function, part, file)] = file
        ends = _wait_for(set(files), asked)
        return [_read_answer(file, ends[child]) for child, file in files.items()]


def _fork(function: Callable[[Any], Any], part: Any, file: Path) -> int:
    """Do a part in a new process and write what came of it; return the process's number."""
    if child := os.fork():
        return child
    try:
        file.write_bytes(_do(function, part))
    finally:
        os._exit(0 if file.exists() else 1)


def _do(function: Callable[[Any], Any], part: Any) -> bytes:
    """Do a part; return, pickled, whether it went well, and what it returned or raised."""
    try:
        return _pickle((True, function(part)))
    except Exception as error:
        try:
            return _pickle((False, error))
        except Exception:  # an error may hold anything
            return _pickle((False, RunError(f"{type(error).__name__}: {error}")))


def _pickle(answer: tuple[bool, Any]) -> bytes:
    """Pickle an answer that the driver can read: many an error cannot be made again from what was pickled."""
    data = bytes(cloudpickle.dumps(answer))
    pickle.loads(data)
    return data


def _wait_for(children: set[int], asked: IO[bytes]) -> dict[int, int]:
    """Wait for all forks and return their exit codes; end with them when the driver has gone."""
    ends: dict[int, int] = {}
    driver = select.poll()
    driver.register(asked, select.POLLHUP)
    while children:
        for child in list(children):
            number, status = os.waitpid(child, os.WNOHANG)
            if number:
                ends[child] = os.waitstatus_to_exitcode(status)
                children.remove(child)
        if children and driver.poll(LOOK_EVERY * 1000):
            os.killpg(0, signal.SIGKILL)
    return ends


def _read_answer(file: Path, code: int) -> tuple[bool, Any]:
    if not file.exists():
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return False, RunError(f"a process of the work after the trials died ({how})")
    answer: tuple[bool, Any] = pickle.loads(file.read_bytes())
    return answer
