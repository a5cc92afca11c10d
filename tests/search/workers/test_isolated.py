"""Trials that crash, hang or fill their process: each has its end, and none takes the driver with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.driver.dense_setting import dense_setting
from search.driver.prepare import plan
from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.store.studies import StudyFiles
from search.trials.trial import Setting
from search.workers.attempts import Attempt
from search.workers.finish import finish_trial
from search.workers.inline import InlinePool
from search.workers.isolated import run_isolated
from spaces import Value
from tests.search.cases import make_quick_config
from tests.search.workers.hostile import COUNT

POINT: dict[str, Value] = {"sparsity.mode": "flops", "sparsity.flops": 0.5, "sparsity.tilt": 0.0}


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return dense_setting(plan(make_quick_config(tmp_path_factory.mktemp("runs"))), lambda record, epochs: None)[0]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFiles:
    monkeypatch.setenv(COUNT, str(tmp_path / "count"))
    files = StudyFiles(tmp_path, "s")
    (files.root / "trials").mkdir(parents=True)
    return files


def spec(name: str) -> TrialSpec:
    method = name if name == "magnitude" else f"tests.search.workers.hostile:{name}"
    return TrialSpec(0, method, dict(POINT), seed=11)


def attempts(tmp_path: Path) -> int:
    return len((tmp_path / "count").read_text())


@pytest.mark.slow
def test_a_trial_gives_the_same_in_a_process_of_its_own(setting: Setting, files: StudyFiles, tmp_path: Path) -> None:
    here = StudyFiles(tmp_path / "here", "s")
    (here.root / "trials").mkdir(parents=True)
    inside = finish_trial(setting, spec("magnitude"), here)
    outside = run_isolated(setting, spec("magnitude"), files)
    assert {**inside.metrics, "seconds": 0} == {**outside.metrics, "seconds": 0}
    assert [{**r, "seconds": 0} for r in inside.history] == [{**r, "seconds": 0} for r in outside.history]


@pytest.mark.slow
def test_a_trial_that_ends_its_process_twice_is_failed(setting: Setting, files: StudyFiles, tmp_path: Path) -> None:
    said: list[str] = []
    outcome = run_isolated(setting, spec("Aborts"), files, say=said.append)
    assert (outcome.state, outcome.error) == ("failed", "the trial has ended its process 2 times (killed by SIGABRT)")
    assert attempts(tmp_path) == 2 and len(said) == 1


@pytest.mark.slow
def test_a_trial_whose_process_was_killed_runs_again(setting: Setting, files: StudyFiles, tmp_path: Path) -> None:
    said: list[str] = []
    assert run_isolated(setting, spec("KilledTwice"), files, retries=2, say=said.append).complete
    assert attempts(tmp_path) == 3
    assert said == ["the process of trial 0 ended before the trial did (killed by SIGKILL); the trial runs again"] * 2


def test_a_trial_whose_process_is_killed_too_often_is_lost(setting: Setting, files: StudyFiles) -> None:
    outcome = run_isolated(setting, spec("KilledTwice"), files, retries=0)
    assert outcome.state == "lost" and "lost 1 times (killed by SIGKILL" in str(outcome.error)


@pytest.mark.slow
def test_a_trial_that_hangs_is_timed_out(setting: Setting, files: StudyFiles) -> None:
    outcome = run_isolated(setting, spec("Hangs"), files, timeout=2)
    assert (outcome.state, outcome.error) == ("timed_out", "the trial took longer than 2 s (--trial-timeout)")


def test_a_method_that_ends_the_program_ends_its_trial(setting: Setting, files: StudyFiles) -> None:
    outcome = finish_trial(setting, spec("Exits"), files)
    assert outcome.state == "failed" and str(outcome.error).endswith("SystemExit: no licence\n")


def test_a_trial_without_memory_is_run_again_in_pieces(setting: Setting, files: StudyFiles, tmp_path: Path) -> None:
    outcome = finish_trial(setting, spec("RunsOutOfMemory"), files)
    assert outcome.complete and outcome.extra["accumulate"] == 2 and attempts(tmp_path) == 2


def test_a_network_of_nan_has_diverged(setting: Setting, files: StudyFiles) -> None:
    outcome = finish_trial(setting, spec("GivesNaN"), files)
    assert outcome.state == "diverged" and "tensors of the network are not finite" in str(outcome.error)


class One:
    """A schedule of one trial."""

    def __init__(self, spec: TrialSpec) -> None:
        self.left: list[TrialSpec] = [spec]
        self.outcome: Outcome | None = None

    def next(self) -> TrialSpec | None:
        return self.left.pop() if self.left else None

    def finish(self, outcome: Outcome) -> None:
        self.outcome = outcome


def test_a_trial_that_took_the_driver_with_it_is_taken_up_in_a_process_of_its_own(
    setting: Setting, files: StudyFiles, tmp_path: Path
) -> None:
    Attempt(files, 0).begin()  # and then the driver was gone
    schedule = One(spec("Aborts"))
    InlinePool().run(schedule, setting, files, lambda spec: None)  # type: ignore[arg-type]
    assert schedule.outcome is not None and schedule.outcome.state == "failed"
    assert attempts(tmp_path) == 1, "it had ended one process before"
    assert Attempt(files, 0).before == 0


def test_a_trial_that_is_interrupted_in_order_has_not_ended_its_process(files: StudyFiles) -> None:
    attempt = Attempt(files, 0)
    attempt.begin()
    attempt.cancel()
    assert Attempt(files, 0).before == 0
