from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from methods.contract.method import Problem, Pruned
from methods.contract.recipe import Recipe
from search.records.listener import NullListener
from search.records.trial_spec import TrialSpec
from search.store.studies import StudyFiles
from search.trials import trial
from search.workers import finish, progress
from search.workers.progress import Mark, Marker, marks, watch_progress
from tests.methods import cases

SPEC = TrialSpec(3, "greedy", {}, seed=0)


class Clock:
    """Stands still until it is told to go on."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Heard(NullListener):
    """Notes what it hears, and says that it did."""

    def __init__(self) -> None:
        self.said: list[tuple[int, str, str, int, int]] = []
        self.spoken = threading.Event()

    def trial_progress(self, number: int, method: str, what: str, done: int, total: int) -> None:
        self.said.append((number, method, what, done, total))
        self.spoken.set()


def test_a_trial_writes_now_and_then(tmp_path: Path) -> None:
    files, clock = StudyFiles(tmp_path, "one"), Clock()
    files.root.mkdir(parents=True)
    marker = Marker(files, SPEC, clock)
    assert marks(files) == []
    written = []
    for step in range(10):
        marker("channels", step, 10)
        written.append(marks(files)[0].done)
        clock.now += progress.WRITTEN_EVERY / 4
    assert written == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]
    assert marks(files) == [Mark(3, "greedy", "channels", 8, 10)]
    marker.clear()
    marker.clear()
    assert marks(files) == []


def test_the_driver_hears_of_it_once(tmp_path: Path) -> None:
    files, heard = StudyFiles(tmp_path, "one"), Heard()
    files.root.mkdir(parents=True)
    Marker(files, TrialSpec(9, "spp", {}, seed=0))("of a driver that was killed", 1, 2)
    with watch_progress(files, heard, every=0.005):
        assert marks(files) == []
        Marker(files, SPEC)("channels", 1, 10)
        assert heard.spoken.wait(20)
        heard.spoken.clear()
        assert not heard.spoken.wait(0.05)  # nothing new, nothing said
        Marker(files, SPEC)("channels", 2, 10)
        assert heard.spoken.wait(20)
    assert heard.said == [(3, "greedy", "channels", 1, 10), (3, "greedy", "channels", 2, 10)]


class Talking:
    """A method that takes long, says so, and fails."""

    def prune(self, problem: Problem) -> Pruned:
        problem.progress("channels", 1, 4)
        raise RuntimeError("made to fail")


def test_trials_are_heard_of_while_they_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, seen = StudyFiles(tmp_path, "told"), list[Mark]()
    files.root.mkdir(parents=True)

    class Noted(Marker):
        def __call__(self, what: str, done: int, total: int) -> None:
            super().__call__(what, done, total)
            seen.extend(marks(files))

    monkeypatch.setattr(finish, "Marker", Noted)
    monkeypatch.setattr(trial, "build_method", lambda *_: Talking())
    data = cases.blobs(cases.IMAGE, 8)
    example = torch.zeros(1, *cases.IMAGE)
    setting = trial.Setting(cases.seeded(cases.NETS["vgg"]), example, data, data, Recipe(), 0, ("accuracy", "flops"))
    with watch_progress(files, NullListener()):
        outcome = finish.finish_trial(setting, SPEC, files)
    assert outcome.error is not None and "made to fail" in outcome.error
    assert seen == [Mark(3, "greedy", "channels", 1, 4)]
    assert not (files.root / "progress").exists(), "the trial is over"
