"""SQLite databases that may be damaged: found out, moved out of the way."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection
from contextlib import AbstractContextManager, closing
from pathlib import Path

SUFFIXES = ("", "-journal", "-wal", "-shm")
"""Files that make up one SQLite database."""


def is_sound(path: Path, tables: Collection[str] = ()) -> bool:
    """Whether a database can be read.

    Args:
        path: The file; it exists.
        tables: Tables that it has if it has any.

    Returns:
        False for a file that is no database, a damaged one, or one of something else. One that another process holds,
        or that may not be read, is not for us to judge and counts as sound.
    """
    try:
        with closing(sqlite3.connect(path, timeout=60)) as connection:
            answer = connection.execute("PRAGMA quick_check(1)").fetchone()
            found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError:
        return True
    except sqlite3.DatabaseError:
        return False
    return answer == ("ok",) and (not found or set(tables) <= found)


def lock_database(path: Path) -> AbstractContextManager[object]:
    """Take the lock beside a database: one process at a time makes it, or moves it away.

    Args:
        path: The database.

    Returns:
        A context manager that holds the lock.
    """
    import filelock

    return filelock.FileLock(f"{path}.lock", mode=0o666).acquire()


def set_aside(path: Path) -> Path:
    """Move a damaged database, with all files that belong to it, out of the way.

    Args:
        path: The database.

    Returns:
        Where it is now.
    """
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    for suffix in SUFFIXES:
        part = Path(f"{path}{suffix}")
        if part.exists():
            part.rename(f"{aside}{suffix}")
    return aside
