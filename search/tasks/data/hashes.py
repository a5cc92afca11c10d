"""Content of many files as one hash, with a memory of files that have not changed since."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from search.store.files import read_object, write_json
from spaces import InputError

ENDS = 1 << 17
"""Bytes at either end of a file that are read; what lies between is told by the size."""


def content_hash(folder: Path, paths: Sequence[str]) -> str:
    """Hash files by what they hold.

    Args:
        folder: Folder that holds them.
        paths: Paths below it, in order.

    Returns:
        Hexadecimal digits; others when a file holds something else, wherever the folder lies.
    """
    memory = _memory(folder)
    known, fresh = _read(memory), dict[str, list[Any]]()
    digest = sha256()
    for path in paths:
        state = (folder / path).stat()
        key = [state.st_size, state.st_mtime_ns]
        old = known.get(path)
        if not (isinstance(old, list) and len(old) == 3 and old[:2] == key):
            old = fresh[path] = [*key, _file_hash(folder / path, state.st_size)]
        digest.update(f"{path} {old[2]}\n".encode())
    if fresh:
        _write(memory, known | fresh)
    return digest.hexdigest()


def _file_hash(path: Path, size: int) -> str:
    with path.open("rb") as file:
        digest = sha256(str(size).encode())
        digest.update(file.read(ENDS))
        if size > 2 * ENDS:
            file.seek(-ENDS, os.SEEK_END)
        digest.update(file.read())
    return digest.hexdigest()[:32]


def _memory(folder: Path) -> Path:
    """Name the file that remembers the hashes of a folder: with the user's caches, for data may be read-only."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "paretoprune" / f"{sha256(str(folder.resolve()).encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, InputError):  # none yet, or damaged: all files are read again
        return {}


def _write(path: Path, hashes: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, hashes)
    except OSError:  # no home, or a full disk: the next start reads the files again
        return
