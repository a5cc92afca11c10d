"""Signals: the first one winds down, an echo of it is not heard, a later one ends the process at once."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.commands import interrupts
from search.commands.interrupts import SIGNALS, Interrupted, exit_code, raise_at_first_signal


@pytest.fixture(autouse=True)
def signals_of_a_terminal() -> Iterator[None]:
    """A job in the background, or one under nohup, inherits signals that are ignored; these tests are about others."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_first_signal_ends_the_block_and_its_echo_does_not_break_the_end(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    wound_down = False
    with pytest.raises(Interrupted) as raised, raise_at_first_signal(echo=60):
        try:
            signal.raise_signal(number)
            pytest.fail("the signal was not heard")
        finally:
            signal.raise_signal(number)
            signal.raise_signal(signal.SIGTERM)
            wound_down = True
    assert wound_down and exit_code(raised.value) == code
    assert capsys.readouterr().err.startswith("stopping: the last epoch is kept")


def test_a_keyboard_interrupt_of_others_is_ctrl_c() -> None:
    assert exit_code(KeyboardInterrupt()) == 130
    with pytest.raises(KeyboardInterrupt) as raised, raise_at_first_signal(echo=60) as heard:
        try:
            signal.raise_signal(signal.SIGTERM)
        except Interrupted:
            raise KeyboardInterrupt from None  # as Ray does
    assert exit_code(raised.value, heard) == 143


def test_the_second_signal_ends_the_process_whatever_it_is_doing() -> None:
    program = (
        "import signal, time; from search.commands.interrupts import raise_at_first_signal\n"
        "with raise_at_first_signal(echo=0):\n"
        "    try: signal.raise_signal(signal.SIGINT)\n"
        "    finally:\n"
        "        while True: signal.raise_signal(signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 143 and done.stderr.splitlines()[-1] == "stopped at once; finished trials are kept"


def test_the_old_handlers_are_back_afterwards() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with raise_at_first_signal():
        assert all(signal.getsignal(n) is not old for n, old in zip(SIGNALS, before, strict=True))
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_an_echo_is_known_by_when_it_came_and_not_by_when_python_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    came = iter([10.0, 10.5, 11.5])
    monkeypatch.setattr(interrupts._Arrivals, "last", lambda arrivals: next(came))
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as raised, raise_at_first_signal(echo=1.0):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGINT)  # half a second after the first, whenever it is heard
            signal.raise_signal(signal.SIGINT)
    assert raised.value.code == 130 and next(came, None) is None


def test_signals_are_noted_when_they_come() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    arrivals = interrupts._Arrivals()
    try:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.3)
        later = time.monotonic()
        assert arrivals.last() < later
        assert arrivals.last() > later, "what was not noted, for others have taken that over, comes now"
    finally:
        arrivals.close()


def test_after_a_signal_the_exit_code_stays_until_the_process_has_ended() -> None:
    program = (
        "import atexit, signal, sys; from search.commands.interrupts import Interrupted, raise_at_first_signal\n"
        "atexit.register(signal.raise_signal, signal.SIGTERM)\n"
        "try:\n"
        "    with raise_at_first_signal(echo=60): signal.raise_signal(signal.SIGTERM)\n"
        "except Interrupted:\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    atexit.register(signal.raise_signal, signal.SIGTERM)\n"
        "    sys.exit(143)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 143 and "Traceback" not in done.stderr


def test_a_signal_in_the_middle_of_an_import_is_heard_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "interrupted_in_the_middle.py").write_text(
        "import signal, time\nsignal.raise_signal(signal.SIGTERM)\ntime.sleep(0.1)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Interrupted) as raised, raise_at_first_signal(echo=60):
        module = importlib.import_module("interrupted_in_the_middle")
        assert module.whole
        signal.pause()
    assert raised.value.number == signal.SIGTERM


def test_what_the_caller_ignores_stays_ignored_and_the_others_are_heard() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(Interrupted) as raised, raise_at_first_signal():
            signal.raise_signal(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        assert raised.value.number == signal.SIGTERM
    finally:
        signal.signal(signal.SIGINT, before)


class Swallowing:
    """A finaliser, in which exceptions are dropped."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_is_swallowed_is_raised_again() -> None:
    began = time.monotonic()
    with pytest.raises(Interrupted) as raised, raise_at_first_signal():
        thing = Swallowing()
        del thing
        while time.monotonic() - began < 20:
            time.sleep(0.01)
    assert time.monotonic() - began < 10 and exit_code(raised.value) == 143


def test_winding_down_is_not_disturbed_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "INSIST", 0.02)
    steps = 0
    with pytest.raises(Interrupted), raise_at_first_signal(echo=60):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            for _ in range(20):
                try:
                    raise ValueError("something else that is met on the way")
                except ValueError:
                    time.sleep(0.01)
                steps += 1
    assert steps == 20


def test_after_the_end_of_a_run_nothing_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "INSIST", 0.02)
    with raise_at_first_signal(echo=60) as heard:
        try:
            signal.raise_signal(signal.SIGTERM)
        except Interrupted:
            heard.ended.set()
        time.sleep(0.2)
