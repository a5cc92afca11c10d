"""What starts early is stopped once, while the thread lives in which it was started."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

import pytest

from search.study.config import Resources
from search.workers import launch
from search.workers.launch import Launch


def test_it_is_stopped_once_and_before_its_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[bool] = []

    def start(resources: Resources) -> object:
        thread = threading.current_thread()
        return lambda: alive.append(thread.is_alive())

    monkeypatch.setattr(launch, "_start", start)
    with Launch(Resources()) as started:
        started.wait()
        started.close()
    assert alive == [True]


def test_what_kept_it_from_starting_is_told_and_nothing_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(resources: Resources) -> object:
        raise OSError("no room")

    monkeypatch.setattr(launch, "_start", start)
    with Launch(Resources()) as started, pytest.raises(OSError, match="no room"):
        started.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_signals_that_a_library_has_taken_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))

    def start(resources: Resources) -> object:
        ignore = ctypes.c_void_p(1)
        ctypes.CDLL(None).signal(int(signal.SIGTERM), ignore)  # behind Python's back
        return None

    monkeypatch.setattr(launch, "_start", start)
    try:
        with Launch(Resources()) as started:
            started.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            until = time.monotonic() + 10
            while not got and time.monotonic() < until:
                time.sleep(0.01)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM]


def test_other_executors_need_no_start() -> None:
    with Launch(Resources(executor="inline")) as started:
        started.wait()
