"""Ctrl-C: heard once, and again only when winding down has had its time."""

from __future__ import annotations

import signal

import pytest

from search.commands.interrupts import interrupted_once


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_the_first_interrupt_ends_the_block_and_the_next_ones_do_not_break_its_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wound_down = False
    with pytest.raises(KeyboardInterrupt), interrupted_once():
        try:
            press()
            pytest.fail("the interrupt was not heard")
        finally:
            press()
            press()
            wound_down = True
    assert wound_down
    assert capsys.readouterr().err == "stopping: workers and databases are being closed\n"


def test_what_hangs_while_winding_down_can_be_interrupted() -> None:
    heard = 0
    with interrupted_once(patience=0.0):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                press()
            heard += 1
    assert heard == 2


def test_the_old_handler_is_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupted_once():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_job_in_the_background_hears_nothing() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupted_once():
            press()
    finally:
        signal.signal(signal.SIGINT, before)
