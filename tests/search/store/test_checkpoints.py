"""States of a training in a folder."""

from __future__ import annotations

import math
from pathlib import Path

from search.store.checkpoints import Checkpoints


def test_states_of_another_are_not_given_and_go_when_one_is_written(tmp_path: Path) -> None:
    folder, whose = tmp_path / "a", {"seed": 1, "range": (0, 1)}
    assert Checkpoints(folder, whose).get("grow") is None
    Checkpoints(folder, whose).put("grow", b"one")
    Checkpoints(folder, whose).put("grow", b"two")
    assert Checkpoints(folder, whose).get("grow") == b"two"
    other = Checkpoints(folder, {"seed": 2})
    assert other.get("grow") is None
    other.put("train", b"three")
    assert other.get("train") == b"three" and other.get("grow") is None
    assert Checkpoints(folder, whose).get("grow") is None, "they are gone"


def test_looking_writes_nothing(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "a", {}).get("grow") is None
    assert not (tmp_path / "a").exists()


def test_who_may_go_on_can_be_said(tmp_path: Path) -> None:
    def is_close(one: object, other: object) -> bool:
        return math.isclose(one["x"], other["x"], rel_tol=1e-3)  # type: ignore[index]

    Checkpoints(tmp_path / "a", {"x": 1.0}).put("train", b"state")
    assert Checkpoints(tmp_path / "a", {"x": 1.0001}, is_same=is_close).get("train") == b"state"
    assert Checkpoints(tmp_path / "a", {"x": 1.1}, is_same=is_close).get("train") is None


def test_every_file_is_handed_on_and_names_may_be_anything(tmp_path: Path) -> None:
    written: list[Path] = []
    states = Checkpoints(tmp_path / "a", {}, written.append)
    states.put("../phase 1/\0", b"state")
    assert [path.parent for path in written] == [tmp_path / "a"] * 2
    assert sorted(tmp_path.rglob("*.*")) == sorted(written)
    states.clear()
    assert not (tmp_path / "a").exists() and states.get("x") is None
