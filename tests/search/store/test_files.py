from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import Timeout

from search.store.files import (
    create_folder,
    file_lock,
    find_full_disk_error,
    read_json,
    read_object,
    remove_folder,
    replace_file,
    write_atomically,
    write_json,
)
from spaces import InputError


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_are_those_of_the_umask_whatever_the_writer_does(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "text", "ä\n")
        with replace_file(tmp_path / "private") as fresh:
            fresh.write_bytes(b"1")
            fresh.chmod(0o600)
        (tmp_path / "plain").touch()
    finally:
        os.umask(before)
    assert modes(tmp_path) == dict.fromkeys(("text", "private", "plain"), 0o666 & ~umask)
    assert (tmp_path / "text").read_bytes() == "ä\n".encode()


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError, match="stop"), replace_file(path) as fresh:
        fresh.write_text("half")
        raise RuntimeError("stop")
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(path, {"a": float("nan")})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert read_json(path) == {"a": 1}


def test_everything_is_flushed_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flush(handle: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{handle}")).name
        events.append(f"flush {'beside' if name.startswith('.file.') else name}")
        fsync(handle)

    def move(source: Path, target: Path) -> None:
        events.append(f"move to {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", move)
    folder = tmp_path / "parent"
    folder.mkdir()
    write_atomically(folder / "file", "1")
    assert events == ["flush beside", "move to file", "flush parent"]


def test_a_folder_appears_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    with create_folder(target) as fresh:
        (fresh / "sub").mkdir()
        (fresh / "sub" / "a").write_text("1")
        assert not target.exists()
    assert (target / "sub" / "a").read_text() == "1"
    with pytest.raises(RuntimeError, match="stop"), create_folder(tmp_path / "other") as fresh:
        (fresh / "a").write_text("1")
        raise RuntimeError("stop")
    with pytest.raises(OSError, match="not empty"), create_folder(target) as fresh:
        (fresh / "b").touch()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep"]
    remove_folder(target)
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"a": "\x01"}', b"nul"], ids=lambda c: repr(c[:8])
)
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="x.json is damaged: it is not valid JSON"):
        read_json(path)


@pytest.mark.parametrize(
    ("content", "kind"), [("[]", "a list"), ("null", "null"), ("3", "a number"), ('"a"', "a text")]
)
def test_another_kind_of_json_is_named(tmp_path: Path, content: str, kind: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"x.json is damaged: it holds {kind} where an object belongs"):
        read_object(path)


def test_texts_of_files_cannot_speak_to_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    hostile = {"\x1b[2Jkey": ["\x1b[31mred\x07", "\u202egnp", "\x9b1m", "line\nnext\ttab", "über ≤"]}
    for ascii_only in (True, False):
        path.write_text(json.dumps(hostile, ensure_ascii=ascii_only))
        assert read_json(path) == {"key": ["red", "gnp", "1m", "line\nnext\ttab", "über ≤"]}


def test_a_full_disk_is_named_where_the_error_does_not_say_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite = RuntimeError("(sqlite3.OperationalError) database or disk is full")
    assert find_full_disk_error(sqlite, tmp_path) is None, "there is room here"
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=4096))
    wrapped = RuntimeError("a trial failed")
    wrapped.__cause__ = sqlite
    rust = ValueError("Error while serializing: I/O error: No space left on device (os error 28)")
    for error in (sqlite, wrapped, rust, OSError(errno.ENOSPC, "No space left on device")):
        named = find_full_disk_error(error, tmp_path)
        assert named is not None and (named.errno, named.filename) == (errno.ENOSPC, str(tmp_path))
    assert find_full_disk_error(OSError(errno.ENOSPC, "No space left", "/other/file"), tmp_path) is None, "it is named"
    assert find_full_disk_error(ValueError("no"), tmp_path) is None


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_lock_has_the_mode_that_the_umask_gives(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with file_lock(tmp_path / "lock"), pytest.raises(Timeout):
            file_lock(tmp_path / "lock", timeout=0).acquire()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == mode


def test_json_is_written_whole_and_strict(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
