from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from search.records.errors import StoreWarning
from search.store.files import write_json
from search.store.studies import StudyFiles, study_names
from search.trials.trial import Finished
from spaces import InputError
from tests.search.cases import make_quick_config, outcome


def study(directory: Path, name: str = "one") -> StudyFiles:
    files = StudyFiles(directory, name)
    config = make_quick_config(directory, name=name).model_dump(mode="json")
    files.create({"config": config, "dense": {"accuracy": 0.95, "flops": 1000, "params": 100, "seconds": 2.0}})
    return files


def make_finished(number: int, **changes: object) -> Finished:
    result = outcome(number, **changes)
    if result.state == "failed":
        return Finished(result, None, {})
    return Finished(result, {"format": 1, "modules": {}}, {"w": torch.arange(3.0)})


def test_a_trial_comes_back_as_it_was_written(tmp_path: Path) -> None:
    files = study(tmp_path)
    files.write(make_finished(4))
    files.write(make_finished(2, error="Traceback\nValueError: no"))
    assert files.numbers() == [2, 4]
    assert files.outcome(4) == outcome(4)
    assert [o.state for o in files.outcomes()] == ["failed", "complete"]
    assert torch.equal(files.weights(4)["w"], torch.arange(3.0))
    assert sorted(p.name for p in files.folder(4).iterdir()) == [
        "architecture.json",
        "kept.json",
        "outcome.json",
        "weights.safetensors",
    ]


def test_a_half_written_trial_does_not_exist(tmp_path: Path) -> None:
    files = study(tmp_path)
    half = files.folder(3).with_name(".0003.999")
    half.mkdir()
    (half / "outcome.json").write_text("{")
    assert files.numbers() == []
    with pytest.raises(InputError, match=r"trial 3 of study 'one' is not finished \(finished: none\)"):
        files.outcome(3)


def test_front_is_read_from_files(tmp_path: Path) -> None:
    files = study(tmp_path)
    files.write(make_finished(0))
    files.write(make_finished(1, error="Traceback\nValueError: no"))
    files.write_tested({"dense": {"accuracy": 0.94}, "0": {"accuracy": 0.89}})
    front = files.front()
    assert [m.trial for m in front.members] == [0]
    assert front.members[0].test_accuracy == 0.89
    assert front.dense.test_accuracy == 0.94
    with pytest.raises(InputError, match="trial 1 of study 'one' failed: it has no network"):
        files.rebuild(1)


def test_accuracies_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    files = study(tmp_path)
    (files.root / "test.json").write_text('{"dense": 0.94, "0": 0.89}')
    assert files.read_tested() == {"dense": {"accuracy": 0.94}, "0": {"accuracy": 0.89}}


def test_latest_study_is_the_default_and_unknown_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no study in .*; `paretoprune sweep` makes one"):
        StudyFiles.open(tmp_path)
    study(tmp_path, "zebra")
    time.sleep(0.01)
    study(tmp_path, "ant")
    assert study_names(tmp_path) == ["zebra", "ant"]
    assert StudyFiles.open(tmp_path).name == "ant"
    with pytest.raises(InputError, match="unknown study 'zebr'; did you mean 'zebra'"):
        StudyFiles.open(tmp_path, "zebr")
    with pytest.raises(InputError, match="study 'ant' exists; continue it with `paretoprune resume ant`"):
        study(tmp_path, "ant")


def test_status_tells_running_from_abandoned(tmp_path: Path) -> None:
    files = study(tmp_path)
    assert files.status()["states"] == {"complete": 0, "failed": 0, "running": 0, "waiting": 3}
    files.write_running([0, 1], total=5)
    with files.lock():
        assert files.is_driven()
        assert files.status()["states"] == {"complete": 0, "failed": 0, "running": 2, "waiting": 3}
        files.write(make_finished(0))
        assert files.status()["states"] == {"complete": 1, "failed": 0, "running": 1, "waiting": 3}
        with pytest.raises(InputError, match="is being run by another process"), StudyFiles(tmp_path, "one").lock():
            pass
    assert not files.is_driven()
    assert files.status()["states"] == {"complete": 1, "failed": 0, "running": 0, "waiting": 4}


def test_a_killed_process_lets_go_of_the_study(tmp_path: Path) -> None:
    files = study(tmp_path)
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


def test_json_is_written_whole_and_strict(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_damaged_json_is_named(tmp_path: Path) -> None:
    files = study(tmp_path)
    (files.root / "study.json").write_text("{")
    with pytest.raises(InputError, match=r"study\.json is damaged: it is not valid JSON"):
        files.record()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\x00", b"{}", b'{"number": 1}'], ids=repr)
def test_one_damaged_outcome_hides_one_trial_and_names_the_cure(tmp_path: Path, content: bytes) -> None:
    files = study(tmp_path)
    for number in range(3):
        files.write(make_finished(number))
    path = files.folder(1) / "outcome.json"
    path.write_bytes(content)
    cure = r"0001/outcome.json is damaged: .*; remove the folder .*0001, and `paretoprune resume one` runs the trial"
    with pytest.warns(StoreWarning, match=cure):
        assert [o.number for o in files.outcomes()] == [0, 2]
    with pytest.warns(StoreWarning, match=cure):
        assert len(files.front().outcomes) == 2
    with pytest.warns(StoreWarning, match=cure):
        assert files.status()["states"]["complete"] == 2
    with pytest.raises(InputError, match=cure):
        files.outcome(1)
    assert list(files.find_damaged()) == [1]


def test_foreign_folders_and_files_among_the_trials_are_passed_over(tmp_path: Path) -> None:
    files = study(tmp_path)
    files.write(make_finished(1))
    shutil.copytree(files.folder(1), files.folder(1).with_name("0001.bak"))
    shutil.copytree(files.folder(1), files.folder(1).with_name("1"))
    (files.root / "trials" / "0002").touch()
    assert [o.number for o in files.outcomes()] == [1]
    shutil.copytree(files.folder(1), files.folder(3))
    with pytest.warns(StoreWarning, match="0003/outcome.json is damaged: it is the outcome of trial 1"):
        assert [o.number for o in files.outcomes()] == [1]


def test_weights_that_are_cut_short_are_named_where_they_lie(tmp_path: Path) -> None:
    files = study(tmp_path)
    files.write(make_finished(0))
    assert files.find_damaged() == {}
    path = files.folder(0) / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-2])
    assert "0000/weights.safetensors cannot be read as safetensors" in files.find_damaged()[0]
    with pytest.raises(InputError, match=r"0000/weights.safetensors cannot be read .*; remove the folder"):
        files.weights(0)


@pytest.mark.parametrize("name", ["test.json", "mlflow.json", "driver.json"])
def test_a_damaged_note_is_passed_over_with_a_warning(tmp_path: Path, name: str) -> None:
    files = study(tmp_path)
    (files.root / name).write_text("[")
    with pytest.warns(StoreWarning, match=f"{name} is damaged: .*; it is passed over, and written again"):
        assert files.read_tested() == {} and files.read_tracked() == {} and files.status()["total"] == 3


def test_looking_writes_nothing_and_keeps_no_driver_away(tmp_path: Path) -> None:
    files = study(tmp_path)
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


def test_the_latest_study_is_the_one_that_was_made_last_not_touched_last(tmp_path: Path) -> None:
    study(tmp_path, "first")
    study(tmp_path, "second")
    (tmp_path / "studies" / "first" / "study.json").touch()
    assert study_names(tmp_path) == ["first", "second"]
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "studies" / "second", copy / "studies" / "second")
    shutil.copytree(tmp_path / "studies" / "first", copy / "studies" / "first")
    assert study_names(copy) == ["first", "second"]


def test_a_result_that_is_there_already_stays(tmp_path: Path) -> None:
    files = study(tmp_path)
    files.write(make_finished(0))
    files.write(make_finished(0, seconds=99.0))
    assert files.outcome(0).seconds == 1.5
    assert [p.name for p in (files.root / "trials").iterdir()] == ["0000"]


def test_further_drivers_are_seen_and_what_they_write_is_left_alone(tmp_path: Path) -> None:
    files = study(tmp_path)
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


def test_a_study_is_finished_until_another_trial_ends(tmp_path: Path) -> None:
    files = study(tmp_path)
    files.write(make_finished(0))
    assert not files.is_finished()
    files.write_finished()
    assert files.is_finished()
    files.write(make_finished(1))
    assert not files.is_finished()
