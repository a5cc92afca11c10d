"""Killed drivers lose nothing: real processes, real Ray, kill -9."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from benchmarks.faults.continuation import KILLED_AT, kill_and_continue
from search.store.studies import StudyFiles

pytestmark = pytest.mark.slow

ARGUMENTS = [
    *("--trials", "6", "--seed", "5", "--methods", "magnitude,random"),
    *("--set", "finetune.epochs=1", "--set", "dense.epochs=1", "--set", "exports=[]", "--quiet"),
]

LONG = ["--trials", "12", "--set", "finetune.epochs=5"]
"""For a sweep that is still at work when its first trial is seen to have ended."""


def command(directory: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "search", *arguments, "--directory", str(directory)]


def points(directory: Path, name: str) -> list[tuple[int, str, dict[str, object]]]:
    outcomes = StudyFiles.open(directory, name).outcomes()
    return [(outcome.number, outcome.method, dict(outcome.point)) for outcome in outcomes]


def test_killed_at_random_moments_and_resumed_equals_never_interrupted(tmp_path: Path) -> None:
    subprocess.run(command(tmp_path, "sweep", "--name", "whole", *ARGUMENTS), check=True, capture_output=True)
    draw = random.Random(1)
    finished: dict[int, int] = {}
    arguments = ["sweep", "--name", "killed", *ARGUMENTS]
    for _ in range(3):
        driver = subprocess.Popen(
            command(tmp_path, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wanted = len(finished) + draw.randint(1, 2)
        trials = tmp_path / "studies" / "killed" / "trials"
        while driver.poll() is None and len(list(trials.glob("[0-9]*/outcome.json"))) < wanted:
            time.sleep(0.05)
        if driver.poll() is not None:
            assert driver.returncode == 0
            break
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        files = StudyFiles.open(tmp_path, "killed")
        assert files.status()["states"]["running"] == 0
        stamps = {n: (files.folder(n) / "outcome.json").stat().st_mtime_ns for n in files.numbers()}
        assert all(stamps[number] == stamp for number, stamp in finished.items()), "a finished trial ran again"
        finished = stamps
        arguments = ["resume", "killed", "--quiet"]
    subprocess.run(command(tmp_path, "resume", "killed", "--quiet"), check=True, capture_output=True)
    assert points(tmp_path, "killed") == points(tmp_path, "whole")
    study = optuna.load_study(study_name="killed", storage=f"sqlite:///{tmp_path}/optuna.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6


@pytest.mark.parametrize("method", ["magnitude", "increg"], ids=["prunes once", "prunes while it trains"])
def test_a_trial_that_is_killed_near_its_end_goes_on_from_there(method: str, tmp_path: Path) -> None:
    found = kill_and_continue(method, tmp_path)
    assert found.kept >= KILLED_AT and found.repeated <= 1
    assert found.history_equal and found.weights_equal


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupts_end_with_their_code_a_front_and_a_way_on(number: int, code: int, tmp_path: Path) -> None:
    driver = subprocess.Popen(
        command(tmp_path, "sweep", "--name", "stopped", *ARGUMENTS, *LONG),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    trials = tmp_path / "studies" / "stopped" / "trials"
    while driver.poll() is None and not list(trials.glob("[0-9]*/outcome.json")):
        time.sleep(0.05)
    driver.send_signal(number)
    time.sleep(0.2)
    driver.send_signal(number)  # impatience must not leave processes or tracebacks behind
    shown, said = driver.communicate(timeout=60)
    assert driver.returncode == code, said
    assert "Pareto front of stopped" in shown
    assert "paretoprune resume stopped" in said and "Traceback" not in said
    assert StudyFiles.open(tmp_path, "stopped").status()["driver"] is False
