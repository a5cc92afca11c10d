from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from search.records.errors import StoreWarning
from spaces import InputError
from tests.search.cases import outcome
from tests.search.store.cases import make_finished, make_study


def test_a_trial_comes_back_as_it_was_written(tmp_path: Path) -> None:
    files = make_study(tmp_path)
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
    files = make_study(tmp_path)
    half = files.folder(3).with_name(".0003.999")
    half.mkdir()
    (half / "outcome.json").write_text("{")
    assert files.numbers() == []
    with pytest.raises(InputError, match=r"trial 3 of study 'one' is not finished \(finished: none\)"):
        files.outcome(3)


def test_accuracies_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    (files.root / "test.json").write_text('{"dense": 0.94, "0": 0.89}')
    assert files.read_tested() == {"dense": {"accuracy": 0.94}, "0": {"accuracy": 0.89}}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\x00", b"{}", b'{"number": 1}'], ids=repr)
def test_one_damaged_outcome_hides_one_trial_and_names_the_cure(tmp_path: Path, content: bytes) -> None:
    files = make_study(tmp_path)
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
    files = make_study(tmp_path)
    files.write(make_finished(1))
    shutil.copytree(files.folder(1), files.folder(1).with_name("0001.bak"))
    shutil.copytree(files.folder(1), files.folder(1).with_name("1"))
    (files.root / "trials" / "0002").touch()
    assert [o.number for o in files.outcomes()] == [1]
    shutil.copytree(files.folder(1), files.folder(3))
    with pytest.warns(StoreWarning, match="0003/outcome.json is damaged: it is the outcome of trial 1"):
        assert [o.number for o in files.outcomes()] == [1]


def test_weights_that_are_cut_short_are_named_where_they_lie(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    files.write(make_finished(0))
    assert files.find_damaged() == {}
    path = files.folder(0) / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-2])
    assert "0000/weights.safetensors cannot be read as safetensors" in files.find_damaged()[0]
    with pytest.raises(InputError, match=r"0000/weights.safetensors cannot be read .*; remove the folder"):
        files.weights(0)


def test_a_result_that_is_there_already_stays(tmp_path: Path) -> None:
    files = make_study(tmp_path)
    files.write(make_finished(0))
    files.write(make_finished(0, seconds=99.0))
    assert files.outcome(0).seconds == 1.5
    assert [p.name for p in (files.root / "trials").iterdir()] == ["0000"]
