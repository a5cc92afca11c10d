from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from paretoprune import Sweep, load_front
from search.driver.guard import GuardedListener
from search.driver.sweep import train_dense
from search.records.listener import NullListener
from search.store.studies import StudyFiles
from tests.search.cases import make_quick_config

NEWS = {name for name in vars(NullListener) if not name.startswith("_")}


class Broken:
    """Fails at everything it hears, and counts it."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name not in NEWS:
            raise AttributeError(name)

        def fail(*news: Any) -> None:
            self.heard.append(name)
            raise ZeroDivisionError(f"in {name}")

        return fail


def test_a_sweep_outlives_a_listener_that_fails_at_everything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken()
    with caplog.at_level(logging.WARNING, logger="paretoprune"):
        front = Sweep(make_quick_config(tmp_path, name="a", trials=2), broken).run()
    assert load_front("a", tmp_path).to_json() == front.to_json()
    assert StudyFiles.open(tmp_path, "a").status()["states"]["complete"] == 2
    told = [record for record in caplog.records if "Broken." in record.getMessage()]
    assert {"stage", "sweep_started", "trial_started", "trial_finished", "close"} <= set(broken.heard)
    assert broken.heard.count("trial_finished") == 2
    assert len(told) == len(set(broken.heard)), "each kind is told once"
    assert all(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in told)


def test_training_the_dense_network_outlives_it_too(tmp_path: Path) -> None:
    broken = Broken()
    assert train_dense(make_quick_config(tmp_path), broken).metrics["accuracy"] > 0
    assert "dense_epoch" in broken.heard


def test_a_warning_is_not_lost_with_the_listener(caplog: pytest.LogCaptureFixture) -> None:
    guarded = GuardedListener(Broken())
    for text in ("the first", "the second"):
        guarded.warning(text)
    assert [text for text in caplog.messages if text.startswith("the ")] == ["the first", "the second"]


def test_an_interrupt_in_a_listener_ends_the_sweep(tmp_path: Path) -> None:
    class Interrupting(NullListener):
        def trial_started(self, number: int, method: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Sweep(make_quick_config(tmp_path, trials=2), Interrupting()).run()
