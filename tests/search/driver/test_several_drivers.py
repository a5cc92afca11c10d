"""Two drivers of one study over a real PostgreSQL, one of which is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from sqlalchemy.pool import NullPool

from benchmarks.faults.kills import POSTGRESQL, numbers, postgresql_server
from search.store.studies import StudyFiles

pytestmark = pytest.mark.slow

SETTINGS = [
    *("--trials", "10", "--seed", "5", "--methods", "magnitude,random", "--executor", "inline", "--quiet"),
    *("--set", "finetune.epochs=4", "--set", "dense.epochs=2", "--set", "exports=[]"),
]


@pytest.mark.skipif(not POSTGRESQL.exists(), reason="needs Debian's postgresql")
def test_a_second_driver_joins_and_takes_over_from_one_that_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")

    def command(*words: str) -> list[str]:
        return [sys.executable, "-m", "paretoprune", *words, "--directory", str(tmp_path)]

    subprocess.run(command("sweep", "--name", "alone", *SETTINGS), check=True, capture_output=True)
    with postgresql_server() as (_, url):
        storage = ["--study-storage", url]
        files = StudyFiles(tmp_path, "both")
        line = command("sweep", "--name", "both", *SETTINGS, *storage)
        first = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while first.poll() is None and not (files.root / "study.json").exists():
            time.sleep(0.05)
        line = command("resume", "both", "--executor", "inline", *storage)
        second = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while first.poll() is None and second.poll() is None and not list((files.root / "drivers").glob("*.lock")):
            time.sleep(0.05)
        assert files.is_driven() and files.is_locked()
        first.kill()
        first.wait()
        out, err = second.communicate(timeout=300)
        assert second.returncode == 0 and "Pareto front of both" in out, err
        assert "joining the other drivers of both" in err
        assert numbers(files.outcomes()) == numbers(StudyFiles(tmp_path, "alone").outcomes())
        storage_ = optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": NullPool})
        trials = optuna.load_study(study_name="both", storage=storage_).trials
        assert [trial.state.name for trial in trials] == ["COMPLETE"] * 10
        assert (files.root / "test.json").exists(), "the one that is left finishes the front"
    secret = url.split(":")[2].partition("@")[0]
    assert not any(secret in path.read_text(errors="replace") for path in files.root.rglob("*.json"))
