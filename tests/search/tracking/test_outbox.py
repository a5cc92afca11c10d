from __future__ import annotations

import threading

import pytest

from search.tracking.outbox import Delivery, Outbox


def shorten_error(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def test_events_are_sent_in_order_by_one_other_thread() -> None:
    seen: list[tuple[int, int]] = []
    outbox = Outbox(shorten_error)
    for number in range(50):
        outbox.submit("event", lambda n=number: seen.append((n, threading.get_ident())))  # type: ignore[misc]
    assert outbox.close(5) == Delivery(50, 0, None)
    assert [number for number, _ in seen] == list(range(50))
    assert len({thread for _, thread in seen} - {threading.get_ident()}) == 1


def test_what_fails_is_counted_and_the_rest_goes_on() -> None:
    outbox = Outbox(shorten_error)

    def fail() -> None:
        raise OSError("disk full\nand more")

    outbox.submit("trial 3", fail)
    outbox.submit("trial 4", fail)
    outbox.submit("trial 5", lambda: None)
    delivery = outbox.close(5)
    assert delivery == Delivery(1, 2, "trial 3: disk full")
    assert delivery.warning == "MLflow did not get 2 of 3 events (first: trial 3: disk full)"


def test_close_does_not_wait_for_ever() -> None:
    outbox = Outbox(shorten_error)
    release = threading.Event()
    outbox.submit("slow", release.wait)
    outbox.submit("behind it", lambda: None)
    delivery = outbox.close(0.05)
    release.set()
    assert (delivery.sent, delivery.lost, delivery.first_error) == (0, 2, "slow: not sent within 0.05 s")
    with pytest.raises(RuntimeError):
        outbox.submit("too late", lambda: None)


def test_nothing_lost_needs_no_warning() -> None:
    assert Outbox(shorten_error).close(1).warning is None


def test_a_lost_receiver_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.tracking.outbox.PATIENCE", 0.05)
    outbox = Outbox(shorten_error)
    calls: list[float] = []

    def time_out() -> None:
        calls.append(0.0)
        threading.Event().wait(0.03)
        raise OSError("nobody there")

    outbox.submit("arrives", lambda: None)
    for _ in range(30):
        outbox.submit("trial", time_out)
    delivery = outbox.close(30)
    assert (delivery.sent, delivery.lost, delivery.first_error) == (1, 30, "trial: nobody there")
    assert len(calls) < 10


def test_quick_failures_do_not_stop_what_comes_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.tracking.outbox.PATIENCE", 1.0)
    outbox = Outbox(shorten_error)

    def fail() -> None:
        raise OSError("no such file")

    for _ in range(30):
        outbox.submit("picture", fail)
    outbox.submit("end", lambda: None)
    assert outbox.close(30) == Delivery(1, 30, "picture: no such file")
