"""A front with further seeds: run, interrupted, extended, told, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

import paretoprune
from search.commands.cli import app
from search.driver.confirm import confirm
from search.driver.sweep import Sweep
from search.objectives.quality import measure_quality
from search.records.listener import NullListener
from search.store.files import read_json, write_json
from search.store.studies import StudyFiles
from search.workers.inline import InlinePool
from spaces import InputError
from tests.search.cases import make_quick_config, outcome


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs")
    Sweep(make_quick_config(directory, name="c", trials=3), NullListener()).run()
    return directory


@pytest.fixture
def store(swept: Path, tmp_path: Path) -> Path:
    """A copy of the swept store, for each test to write into."""
    shutil.copytree(swept, tmp_path / "mlruns")
    return tmp_path / "mlruns"


def call(store: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["confirm", *arguments, "--directory", str(store)], prog_name="paretoprune")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_in_pieces_it_is_the_same_and_the_study_stays_as_it_is(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = StudyFiles.open(store, "c")
    before, members = contents(files.root), [member.trial for member in files.front().members]
    whole = tmp_path / "whole"
    shutil.copytree(store, whole)
    expected = confirm("c", whole, seeds=2, listener=NullListener()).to_json()

    tested: list[int] = []
    run_one = InlinePool.run_one
    begun: list[tuple[int, int]] = []

    def interrupt(self: Any, setting: Any, spec: Any, part: Any) -> Any:
        if len(begun) == 1:
            raise KeyboardInterrupt
        begun.append((spec.number, spec.seed))
        return run_one(self, setting, spec, part)

    monkeypatch.setattr(InlinePool, "run_one", interrupt)

    def measure(*given: Any) -> dict[str, float]:
        tested.append(1)
        return measure_quality(*given)

    monkeypatch.setattr("search.driver.confirm.measure_quality", measure)
    with pytest.raises(KeyboardInterrupt):
        confirm("c", store, seeds=2, listener=NullListener())
    assert not tested, "no test set before all reruns are there"

    def count_and_measure(self: Any, setting: Any, spec: Any, part: Any) -> Any:
        begun.append((spec.number, spec.seed))
        return run_one(self, setting, spec, part)

    monkeypatch.setattr(InlinePool, "run_one", count_and_measure)
    found = confirm("c", store, seeds=2, listener=NullListener())
    assert len(begun) == len(set(begun)) == 2 * len(members), "nothing is run twice"
    assert len({seed for _, seed in begun}) == 2, "the same seeds for all members"
    assert not {seed for _, seed in begun} & {each.seed for each in files.outcomes()}, "further seeds"
    assert len(tested) == 2 * len(found.confirmed)

    told, wanted = found.to_json(), expected
    assert [each["trial"] for each in told["members"]] == members
    assert told == wanted == read_json(files.root / "confirmations" / "confirmation.json")
    assert {name: content for name, content in contents(files.root).items() if "confirmations" not in name} == before

    again = len(begun), len(tested)
    assert confirm("c", store, seeds=2, listener=NullListener()).to_json() == told
    assert (len(begun), len(tested)) == again, "a second call has nothing to do"
    more = confirm("c", store, seeds=3, listener=NullListener())
    assert len(begun) == 3 * len(members)
    for each, earlier in zip(more.members, found.members, strict=True):
        assert each.validation("accuracy").values[:2] == earlier.validation("accuracy").values


def test_the_command_tells_and_the_networks_are_those_that_were_measured(store: Path) -> None:
    told = json.loads(call(store, "c", "--seeds", "2", "--json", "--quiet").stdout)
    assert told["seeds"] == 2 and told["confirmed"]
    for member in told["members"]:
        values = member["validation"]["accuracy"]["values"]
        assert member["complete"] == len(values) == 2 and all(0 <= value <= 1 for value in values)
        tested = member["test"].get("accuracy", {"values": []})["values"]
        assert len(tested) == (2 if member["verdict"] == "confirmed" else 0)
        if tested:
            gaps = [seen - unseen for seen, unseen in zip(values, tested, strict=True)]
            assert member["optimism"]["accuracy"]["values"] == pytest.approx(gaps)
    shown = call(store, "c", "--seeds", "2")
    assert shown.exit_code == 0 and "stands" in shown.stdout and "2 further seeds" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 120


def test_it_is_there_to_import() -> None:
    assert paretoprune.confirm is confirm


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["c", "--seeds", "1"], "error: seeds = 1: an interval needs at least 2 further seeds"),
        (["c", "--seeds", "-3"], "error: seeds = -3: an interval needs at least 2 further seeds"),
        (["d"], "error: unknown study 'd'"),
        (["empty"], "error: study 'empty' has no front to confirm: none of its trials is complete"),
    ],
)
def test_bad_input_is_a_sentence(store: Path, arguments: list[str], sentence: str) -> None:
    record = StudyFiles.open(store, "c").record()
    empty = StudyFiles(store, "empty")
    empty.create(record)
    empty.folder(0).mkdir()
    write_json(empty.folder(0) / "outcome.json", outcome(0, error="ValueError: nothing left").to_json())
    done = call(store, *arguments)
    assert done.exit_code == 2 and sentence in done.stderr and "Traceback" not in done.stderr
    assert not (empty.root / "confirmations").exists()


def test_two_processes_and_foreign_reruns_are_refused(store: Path) -> None:
    files = StudyFiles.open(store, "c")
    trial = files.front().members[0].trial
    folder = files.root / "confirmations" / "000" / "trials" / f"{trial:04d}"
    folder.mkdir(parents=True)
    with (
        FileLock(files.root / "confirmations" / "lock"),
        pytest.raises(InputError, match="study 'c' is being confirmed by another process"),
    ):
        confirm("c", store, listener=NullListener())
    write_json(folder / "outcome.json", outcome(trial).to_json())
    with pytest.raises(InputError, match="is the rerun of another point or seed; remove the folder"):
        confirm("c", store, listener=NullListener())
