"""What starts early is stopped once, while the thread lives in which it was started."""

from __future__ import annotations

import threading

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


def test_other_executors_need_no_start() -> None:
    with Launch(Resources(executor="inline")) as started:
        started.wait()
