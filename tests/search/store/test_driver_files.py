from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

from tests.search.store.cases import make_finished, make_study


def test_a_killed_process_lets_go_of_the_study(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    program = (
        "import sys, time; from pathlib import Path; from search.store.studies import StudyFiles;"
        "held = StudyFiles(Path(sys.argv[1]), 'one').lock(); print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        assert files.is_driven()
        child.kill()
    assert not files.is_driven()


def test_looking_writes_nothing_and_keeps_no_driver_away(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    files.write(make_finished(0))
    before = sorted(tmp_path.rglob("*"))
    assert not files.is_driven() and files.status()["driver"] is False
    assert sorted(tmp_path.rglob("*")) == before
    with files.lock():
        pass
    handle = os.open(files.root / "driver.lock", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)  # somebody looks just now
    threading.Timer(0.1, os.close, [handle]).start()
    with files.lock():
        assert files.is_driven()


def test_further_drivers_are_seen_and_what_they_write_is_left_alone(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    (files.root / "tune-1").mkdir()
    (files.root / "shared-1.json").touch()
    with files.join():
        assert files.is_driven() and not files.is_locked()
        files.remove_leftovers()
        assert (files.root / "tune-1").exists()
    assert not files.is_driven()
    of_one_that_was_killed = files.root / "drivers" / "dead.lock"
    of_one_that_was_killed.touch()
    with files.lock(), files.join():
        assert files.is_locked() and not of_one_that_was_killed.exists()
    files.remove_leftovers()
    assert not (files.root / "tune-1").exists() and not (files.root / "shared-1.json").exists()
