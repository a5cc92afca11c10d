"""Files that are there whole or not at all, also after a power cut, and JSON that was written by others.

A file or a folder is written beside its place under a hidden name, flushed to the disk, and then renamed; a reader
sees the old one or the new one. Modes are those that the umask of the process gives. What is read is not trusted: a
damaged file is an :class:`spaces.InputError` that names it, and control characters in its texts are taken out, so that
no file can speak to the terminal.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.records.errors import StoreWarning
from search.records.text import strip_control_characters
from spaces import InputError

if TYPE_CHECKING:
    from filelock import FileLock

_SUSPICIOUS = re.compile(r"[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]|\\u(?:00[0189]|007[fF]|20|206)")
"""Raw or escaped characters in JSON that :func:`search.records.text.strip_control_characters` may have to take out."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says of a disk without room, and of a user who may have no more of it."""

LITTLE = 16 * 2**20
"""Bytes below which a disk counts as full where an error does not name it."""


@contextmanager
def replace_file(path: Path) -> Generator[Path]:
    """Write a file so that it appears whole: beside its place first, flushed, then moved there.

    Args:
        path: The file; its folder exists.

    Yields:
        Where to write. If the block raises, the file at ``path`` is as it was.
    """
    fresh = _name_neighbour(path)
    try:
        mode = _create_file(fresh)
        yield fresh
        os.chmod(fresh, mode)  # writers that make private files do not decide who may read the store
        _flush(fresh)
        os.replace(fresh, path)
        _flush(path.parent)
    finally:
        fresh.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file.

    Args:
        path: The file; its folder exists.
        content: Text (written as UTF-8) or bytes.
    """
    with replace_file(path) as fresh:
        fresh.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def create_folder(path: Path) -> Generator[Path]:
    """Fill a folder so that it appears whole: every file in it is flushed before it gets its name.

    Args:
        path: The folder; it must not exist, or be empty. Folders above it are made as needed.

    Yields:
        The folder to fill. If the block raises, nothing is left of it. A ``path`` that has content by then is an
        :class:`OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = _name_neighbour(path)
    fresh.mkdir()
    try:
        yield fresh
        for folder, _, names in os.walk(fresh):
            for name in names:
                _flush(Path(folder, name))
            _flush(Path(folder))
        fresh.rename(path)
        _flush(path.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # gone already if all went well


def remove_folder(path: Path) -> None:
    """Remove a folder so that a kill in between leaves a hidden remainder and never half of the folder.

    Args:
        path: The folder.
    """
    doomed = _name_neighbour(path)
    path.rename(doomed)
    _flush(path.parent)
    shutil.rmtree(doomed)


def file_lock(path: Path, timeout: float = -1) -> FileLock:
    """Make the lock of a file, whose mode is the one that the umask gives, as that of every other file here.

    Args:
        path: The lock's own file; its folder exists.
        timeout: Seconds to wait for it when it is acquired; negative for as long as it takes.

    Returns:
        The lock, not yet acquired.
    """
    from filelock import FileLock

    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        mode = os.fstat(handle).st_mode & 0o777
    finally:
        os.close(handle)
    return FileLock(path, timeout=timeout, mode=mode)


def is_of_full_disk(error: BaseException) -> bool:
    """Say whether an error, by itself, tells of a disk without room: of the system, of SQLite, of safetensors.

    Args:
        error: What was raised, without what it came of.

    Returns:
        Whether it does.
    """
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return any(text in str(error) for text in ("database or disk is full", *map(os.strerror, FULL)))


def find_full_disk_error(error: BaseException, folder: Path) -> OSError | None:
    """Name the disk in an error that came of a full one, where the error does not say which.

    Args:
        error: What was raised; libraries wrap the error of the system in others of theirs.
        folder: Where the program was writing.

    Returns:
        The error to raise instead; ``None`` if something else went wrong, or there is room where ``folder`` lies.
    """
    cause: BaseException | None = error
    while cause is not None:
        if is_of_full_disk(cause):
            named = getattr(cause, "filename", None) is not None
            if named or not folder.exists() or shutil.disk_usage(folder).free >= LITTLE:
                return None
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        cause = cause.__cause__ or cause.__context__
    return None


def json_text(data: object) -> str:
    """Write data as the JSON that all files here hold.

    Args:
        data: What ``json.dumps`` accepts; NaN and infinities are refused.

    Returns:
        The text, ended by a newline.
    """
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def write_json(path: Path, data: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it.

    Args:
        path: The file.
        data: What ``json.dumps`` accepts; NaN and infinities are refused.
    """
    write_atomically(path, json_text(data))


def read_json(path: Path) -> Any:
    """Read a JSON file; control characters are taken out of its texts.

    Args:
        path: The file.

    Returns:
        The data.

    Raises:
        InputError: If it is not JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested without end
        raise InputError(f"{path} is damaged: it is not valid JSON ({str(error) or 'nested too deeply'})") from error
    return _strip_control_characters(data) if _SUSPICIOUS.search(text) else data


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        InputError: If it is not JSON, or anything but an object.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError(f"{path} is damaged: it holds {_kind(data)} where an object belongs")
    return data


def _kind(data: object) -> str:
    names = {list: "a list", str: "a text", type(None): "null", bool: "a truth value"}
    return names.get(type(data), "a number")


def _strip_control_characters(data: Any) -> Any:
    """Take control characters out of all texts of parsed JSON."""
    if isinstance(data, str):
        return strip_control_characters(data)
    if isinstance(data, list):
        return [_strip_control_characters(part) for part in data]
    if isinstance(data, dict):
        return {strip_control_characters(key): _strip_control_characters(part) for key, part in data.items()}
    return data


def _name_neighbour(path: Path) -> Path:
    """Name a hidden neighbour that no other process or thread chooses."""
    return path.with_name(f".{path.name[:80]}.{os.getpid()}.{uuid.uuid4().hex[:8]}")


def _create_file(path: Path) -> int:
    """Make an empty file and return the mode that the umask gave it."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(handle).st_mode & 0o777
    finally:
        os.close(handle)


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot flush a folder; they order their operations themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(handle)


def read_note(path: Path) -> dict[str, Any]:
    """Read a file that can be made again; where it is damaged, warn and do as if it were not there.

    Args:
        path: The file.

    Returns:
        What it holds; nothing where it is not there.
    """
    if not path.exists():
        return {}
    try:
        return read_object(path)
    except InputError as error:
        warnings.warn(f"{error}; it is passed over, and written again by the next `resume`", StoreWarning, stacklevel=3)
        return {}
