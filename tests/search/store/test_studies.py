from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from search.store.studies import StudyFiles, study_names, write_json
from search.trials.trial import Finished
from spaces import InputError
from tests.search.cases import outcome, quick_config


def study(directory: Path, name: str = "one") -> StudyFiles:
    files = StudyFiles(directory, name)
    config = quick_config(directory, name=name).model_dump(mode="json")
    files.create({"config": config, "dense": {"accuracy": 0.95, "flops": 1000, "params": 100, "seconds": 2.0}})
    return files


def finished(number: int, **changes: object) -> Finished:
    result = outcome(number, **changes)
    if result.state == "failed":
        return Finished(result, None, {})
    return Finished(result, {"format": 1, "modules": {}}, {"w": torch.arange(3.0)})


def test_a_trial_comes_back_as_it_was_written(tmp_path: Path) -> None:
    files = study(tmp_path)
    files.write(finished(4))
    files.write(finished(2, error="Traceback\nValueError: no"))
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
    files.write(finished(0))
    files.write(finished(1, error="Traceback\nValueError: no"))
    files.write_tested({"dense": 0.94, "0": 0.89})
    front = files.front()
    assert [m.trial for m in front.members] == [0]
    assert front.members[0].test_accuracy == 0.89
    assert front.dense.test_accuracy == 0.94
    with pytest.raises(InputError, match="trial 1 of study 'one' failed: it has no network"):
        files.rebuild(1)


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
        assert files.driven()
        assert files.status()["states"] == {"complete": 0, "failed": 0, "running": 2, "waiting": 3}
        files.write(finished(0))
        assert files.status()["states"] == {"complete": 1, "failed": 0, "running": 1, "waiting": 3}
        with pytest.raises(InputError, match="is being run by another process"), StudyFiles(tmp_path, "one").lock():
            pass
    assert not files.driven()
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
        assert files.driven()
        child.kill()
    assert not files.driven()


def test_json_is_written_whole_and_strict(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_damaged_json_is_named(tmp_path: Path) -> None:
    files = study(tmp_path)
    (files.root / "study.json").write_text("{")
    with pytest.raises(InputError, match=r"study\.json is not valid JSON .* was it edited\?"):
        files.record()
