"""SQLite databases that may be damaged: found out, moved out of the way; and places where none can be kept."""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Collection
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from urllib.parse import quote, unquote

from search.store.files import file_lock

SUFFIXES = ("", "-journal", "-wal", "-shm")
"""Files that make up one SQLite database."""

NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "beegfs", "glusterfs", "ncpfs"})
"""File systems of other machines, over which locks of files may not hold."""

LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.bindfs", "fuse.mergerfs", "fuse.lxcfs", "fuse.ntfs-3g"})
"""File systems in user space that lie on a disk of this machine; all others may lie anywhere."""

MOUNTS = Path("/proc/mounts")


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


def sqlite_url(path: Path) -> str:
    """Name an SQLite database as SQLAlchemy wants it.

    Args:
        path: The file, absolute.

    Returns:
        An URL that ``optuna.load_study`` and MLflow accept.

    Example:
        >>> sqlite_url(Path("/runs/optuna.db")), sqlite_file(sqlite_url(Path("/50%20 off/why?/optuna.db")))
        ('sqlite:////runs/optuna.db', '/50%20 off/why?/optuna.db')
    """
    plain = path.as_posix()
    if _has_decoded_percents("?%", plain):
        return f"sqlite:///{plain.replace('%', '%25').replace('?', '%3F')}"
    # A question mark ends the path in such an URL, unless the path is an URL of its own.
    return f"sqlite:///file:{quote(plain)}?uri=true" if "?" in plain else f"sqlite:///{plain}"


def sqlite_file(url: str) -> str:
    """Return the file in the URL of an SQLite database.

    Args:
        url: As :func:`sqlite_url` gives it, or as somebody wrote it.

    Returns:
        The path; empty for a database in memory.
    """
    path = url.partition("://")[2].partition("?")[0].removeprefix("/")
    if _has_decoded_percents("%", path):
        path = unquote(path)
    return unquote(path.removeprefix("file:")) if path.startswith("file:") else path


def _has_decoded_percents(letters: str, path: str) -> bool:
    """Whether a path has any of some letters, and the installed SQLAlchemy (2.1) decodes percents in paths."""
    if not set(letters) & set(path):
        return False
    from sqlalchemy.engine import make_url

    return make_url("sqlite:///a%20b").database == "a b"


def network_file_system(folder: Path, mounts: Path = MOUNTS) -> str | None:
    """Say on which network file system a folder lies.

    Args:
        folder: The folder, absolute; it need not exist.
        mounts: The table of mounts, as Linux writes it.

    Returns:
        Its kind and where it is mounted, such as ``"nfs4 (/home)"``; ``None`` for a local disk, or where the system
        has no such table.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    found, deepest = None, -1
    for line in lines:  # a later mount hides an earlier one at the same place
        _, place, kind, *_ = line.split(" ")
        at = Path(place.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\"))
        if folder.is_relative_to(at) and len(at.parts) >= deepest:
            found, deepest = (kind, at), len(at.parts)
    if found is None:
        return None
    kind, at = found
    remote = kind in NETWORK or (kind.startswith("fuse.") and kind not in LOCAL_FUSE)
    return f"{kind} ({at})" if remote else None


def lock_database(path: Path) -> AbstractContextManager[object]:
    """Take the lock beside a database: one process at a time makes it, or moves it away.

    Args:
        path: The database.

    Returns:
        A context manager that holds the lock. It holds none where nothing may be written.

    Raises:
        OSError: If the lock cannot be made for another reason, such as a full disk.
    """
    try:
        return file_lock(Path(f"{path}.lock")).acquire()
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return nullcontext()


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
