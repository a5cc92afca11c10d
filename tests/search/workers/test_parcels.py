"""Trials that come home from machines without the study's folder."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from search.records.trial_spec import TrialSpec
from search.store.studies import StudyFiles
from search.trials.checkpoint import checkpoint_folder
from search.workers.finish import finish_trial
from search.workers.parcels import Storage, pack, scratch_files, unpack
from spaces import InputError
from tests.search.workers.settings import POINT, make_tiny_setting

SPEC = TrialSpec(3, "magnitude", POINT, 1)


@pytest.fixture
def away(tmp_path: Path) -> StudyFiles:
    """A finished trial on a worker's disk."""
    files = StudyFiles(tmp_path / "away", "s")
    files.root.mkdir(parents=True)
    finish_trial(make_tiny_setting(), SPEC, files)
    return files


def content(files: StudyFiles) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in files.folder(3).iterdir()}


def test_a_parcel_brings_a_trial_home_whole_and_the_first_stays(tmp_path: Path, away: StudyFiles) -> None:
    home = StudyFiles(tmp_path / "home", "s")
    unpack(home, 3, pack(away, 3))
    assert content(home) == content(away) and home.outcome(3).complete
    unpack(home, 3, {"outcome.json": b"{}"})
    assert content(home) == content(away), "what is finished is not written again"
    unpack(home, 4, {"../../../escaped": b"x"})
    assert not list(tmp_path.rglob("escaped")) or (home.folder(4) / "escaped").exists()


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_a_storage_moves_trials_and_keeps_checkpoints(tmp_path: Path, away: StudyFiles, scheme: str) -> None:
    storage = Storage(f"{scheme}{tmp_path / 'shared'}", "abc")
    storage.check()
    if scheme != "memory://":
        storage = pickle.loads(pickle.dumps(storage))
    storage.send(away, 3)
    home = StudyFiles(tmp_path / "home", "s")
    storage.fetch(home, 3)
    assert content(home) == content(away)

    kept = checkpoint_folder(away.root, 7)
    kept.mkdir(parents=True)
    for name, text in (("trial.json", "{}"), ("phase.pt", "one"), ("phase.pt", "two")):
        (kept / name).write_text(text)
        storage.keep_checkpoint(kept / name)
    elsewhere = checkpoint_folder(home.root, 7)
    storage.restore_checkpoint(elsewhere)
    assert {path.name: path.read_text() for path in elsewhere.iterdir()} == {"trial.json": "{}", "phase.pt": "two"}
    (elsewhere / "phase.pt").write_text("three")
    storage.restore_checkpoint(elsewhere)
    assert (elsewhere / "phase.pt").read_text() == "three", "a machine that has a checkpoint keeps its own"
    storage.drop_checkpoint(7)
    gone = checkpoint_folder(tmp_path, 7)
    storage.restore_checkpoint(gone)
    assert not gone.exists()
    storage.clear()
    storage.clear()


def test_a_trial_goes_on_from_a_checkpoint_of_another_machine(tmp_path: Path) -> None:
    class Killed(RuntimeError):
        pass

    class Once(Storage):
        def keep_checkpoint(self, path: Path) -> None:
            super().keep_checkpoint(path)
            if path.suffix == ".pt" and self.left == 0:
                raise KeyboardInterrupt
            self.left -= path.suffix == ".pt"

        left = 1

    setting = make_tiny_setting(steps=8)  # four epochs
    whole = StudyFiles(tmp_path / "whole", "s")
    finish_trial(setting, SPEC, whole)
    first, second = (StudyFiles(tmp_path / name, "s") for name in ("first", "second"))
    with pytest.raises(KeyboardInterrupt):
        finish_trial(setting, SPEC, first, Once(str(tmp_path / "shared"), "x"))
    storage = Storage(str(tmp_path / "shared"), "x")
    finish_trial(setting, SPEC, second, storage)
    assert (second.folder(3) / "weights.safetensors").read_bytes() == (
        whole.folder(3) / "weights.safetensors"
    ).read_bytes()
    fresh = checkpoint_folder(tmp_path, 3)
    storage.restore_checkpoint(fresh)
    assert not fresh.exists(), "the checkpoint goes with its trial"


def test_what_cannot_be_used_is_said_without_secrets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="storage 'nonsense://b/c' cannot be used.*s3://bucket/runs"):
        Storage("nonsense://anna:secret@b/c", "x")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Storage(str(blocked / "sub"), "x").check()


class Buckets(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Like an object store: a path begins with its bucket, and a folder in a new one makes that, too."""

    protocol = "bucketed"
    store: ClassVar[dict[str, object]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("bucketed://"))).lstrip("/")


def test_a_bucket_that_is_not_there_is_refused_and_not_made(away: StudyFiles) -> None:
    fsspec.register_implementation("bucketed", Buckets, clobber=True)
    with pytest.raises(InputError, match="there is no bucket 'rums'; make it, or correct its name"):
        Storage("bucketed://rums/deep", "abc").check()
    assert not fsspec.filesystem("bucketed").find("rums")
    Buckets.store["runs/readme"] = MemoryFile(Buckets(), "runs/readme", b"there")
    Storage("bucketed://runs/deep", "abc").check()


def test_scratch_is_one_place_on_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    one, other = scratch_files("s", "id"), scratch_files("s", "id")
    assert one.root == other.root and one.root.is_relative_to(tmp_path)
    assert (one.directory.stat().st_mode & 0o777) == 0o700
