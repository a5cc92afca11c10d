from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from search.records.errors import StoreWarning
from search.report.tables import front_table
from search.store.studies import StudyFiles, study_names
from spaces import InputError
from tests.search.store.cases import make_finished, make_study


def test_front_is_read_from_files(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    files.write(make_finished(0))
    files.write(make_finished(1, error="Traceback\nValueError: no"))
    files.write_tested({"dense": {"accuracy": 0.94}, "0": {"accuracy": 0.89}})
    front = files.front()
    assert [m.trial for m in front.members] == [0]
    assert front.members[0].test_accuracy == 0.89
    assert front.dense.test_accuracy == 0.94
    with pytest.raises(InputError, match="trial 1 of study 'one' failed: it has no network"):
        files.rebuild(1)


def test_what_came_out_beyond_a_limit_of_the_study_has_no_place_on_its_front(tmp_path: Path) -> None:
    """Of some methods only training tells the cost: what they leave may lie outside what was asked for."""
    files = make_study(tmp_path, min_flops="20%", max_flops="50%", max_params="60%")
    measured = [(500.0, 60.0), (500.0, 61.0), (501.0, 50.0), (199.0, 50.0), (200.0, 50.0)]
    for number, (flops, params) in enumerate(measured):
        metrics = {"accuracy": 0.9 - 0.01 * number, "flops": flops, "params": params, "seconds": 1.0}
        files.write(make_finished(number, metrics=metrics))
    front = files.front()
    assert [member.trial for member in front.members] == [4, 0]
    assert front.outside == (1, 2, 3)
    assert len(front.outcomes) == 2
    caption = str(front_table(front).caption)
    assert "2 of 2 trials on the front" in caption
    assert "beyond the limits of the study: trials 1, 2, 3" in caption


def test_latest_study_is_the_default_and_unknown_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no study in .*; `paretoprune sweep` makes one"):
        StudyFiles.open(tmp_path)
    make_study(tmp_path, "zebra")
    time.sleep(0.01)
    make_study(tmp_path, "ant")
    assert study_names(tmp_path) == ["zebra", "ant"]
    assert StudyFiles.open(tmp_path).name == "ant"
    with pytest.raises(InputError, match="unknown study 'zebr'; did you mean 'zebra'"):
        StudyFiles.open(tmp_path, "zebr")
    with pytest.raises(InputError, match="study 'ant' exists; continue it with `paretoprune resume ant`"):
        make_study(tmp_path, "ant")


def test_status_tells_running_from_abandoned(tmp_path: Path) -> None:
    files = make_study(tmp_path)
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


def test_damaged_json_is_named(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    (files.root / "study.json").write_text("{")
    with pytest.raises(InputError, match=r"study\.json is damaged: it is not valid JSON"):
        files.record()


@pytest.mark.parametrize("name", ["test.json", "mlflow.json", "driver.json"])
def test_a_damaged_note_is_passed_over_with_a_warning(tmp_path: Path, name: str) -> None:
    files = make_study(tmp_path)
    (files.root / name).write_text("[")
    with pytest.warns(StoreWarning, match=f"{name} is damaged: .*; it is passed over, and written again"):
        assert files.read_tested() == {} and files.read_tracked() == {} and files.status()["total"] == 3


def test_the_latest_study_is_the_one_that_was_made_last_not_touched_last(tmp_path: Path) -> None:
    make_study(tmp_path, "first")
    make_study(tmp_path, "second")
    (tmp_path / "studies" / "first" / "study.json").touch()
    assert study_names(tmp_path) == ["first", "second"]
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "studies" / "second", copy / "studies" / "second")
    shutil.copytree(tmp_path / "studies" / "first", copy / "studies" / "first")
    assert study_names(copy) == ["first", "second"]


def test_a_study_is_finished_until_another_trial_ends(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    files.write(make_finished(0))
    assert not files.is_finished()
    files.write_finished()
    assert files.is_finished()
    files.write(make_finished(1))
    assert not files.is_finished()
