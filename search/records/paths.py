"""Paths as people write them, made absolute in one way wherever they come from."""

from __future__ import annotations

from pathlib import Path

from spaces import InputError


def expand_home(path: Path | str) -> Path:
    """Put the home directory for a leading ``~`` or ``~user``.

    Args:
        path: The path as it was written.

    Returns:
        The path, relative if it was.

    Raises:
        InputError: If there is no such user, or the path holds a character that no path can.
    """
    if "\0" in str(path):
        raise InputError(f"path {str(path)!r} holds a zero byte, which no path can")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"path {str(path)!r} begins with the home directory of a user who is not known here; write the directory "
            "in full, or ./~NAME for a folder of that name"
        ) from error


def resolve_path(path: Path | str, base: Path | None = None) -> Path:
    """Make the path of a folder absolute: without ``~``, ``..`` and symbolic links.

    Two ways to one folder give one path, so that what is written by one part of a sweep is found by another.

    Args:
        path: The path as it was written.
        base: Where a relative path starts; ``None`` for the working directory.

    Returns:
        The absolute path; it need not exist.

    Raises:
        InputError: If the path cannot be one.
    """
    whole = (base or Path()) / expand_home(path)
    try:
        return whole.resolve()
    except (OSError, RuntimeError) as error:  # links that lead in a circle, by version of Python
        raise InputError(f"path {str(whole)!r} leads nowhere: {error}") from error


def resolve_file(path: Path | str, base: Path | None = None) -> Path:
    """Make the path of a file absolute; it keeps its own name, and thereby its suffix, where it is a link.

    Args:
        path: The path as it was written.
        base: Where a relative path starts; ``None`` for the working directory.

    Returns:
        The absolute path; it need not exist.
    """
    whole = (base or Path()) / expand_home(path)
    return resolve_path(whole.parent) / whole.name
