"""Trials of machines that do not see the study's folder: how their files come home, and where checkpoints wait.

Such a worker writes into a folder of its own. A finished trial comes home as a parcel through Ray, or, where a
storage is given that all machines reach, through that: a directory, or an address of fsspec (``s3://bucket/runs``).
The storage also keeps the checkpoints, so that a trial goes on elsewhere when its machine is lost.
"""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from search.records.text import remove_credentials
from search.store.files import create_folder
from search.store.studies import StudyFiles
from spaces import InputError
from spaces.errors import shorten_error

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Parcel = Mapping[str, bytes]
"""The files of a finished trial by name."""


def pack(files: StudyFiles, number: int) -> dict[str, bytes]:
    """Read the files of a finished trial.

    Args:
        files: Where the worker wrote it.
        number: Number of the trial.

    Returns:
        Content by name.
    """
    return {path.name: path.read_bytes() for path in sorted(files.folder(number).iterdir())}


def unpack(files: StudyFiles, number: int, parcel: Parcel) -> None:
    """Write a finished trial into its study, whole or not at all; one that is there already stays.

    Args:
        files: The study.
        number: Number of the trial.
        parcel: Content by name.

    Raises:
        OSError: If the folder cannot be written.
    """
    target = files.folder(number)
    try:
        with create_folder(target) as fresh:
            for name, content in parcel.items():
                (fresh / Path(name).name).write_bytes(content)
    except OSError:
        if not (target / "outcome.json").exists():
            raise


def scratch_files(name: str, identity: str) -> StudyFiles:
    """Name the folder in which this machine writes trials of a study that it does not see.

    Args:
        name: Name of the study.
        identity: Tells this run of the study from others.

    Returns:
        Its files, the same for all workers of a machine: a trial goes on here from its checkpoint.
    """
    root = Path(tempfile.gettempdir(), f"paretoprune-{identity}")
    root.mkdir(mode=0o700, exist_ok=True)
    files = StudyFiles(root, name)
    files.root.mkdir(parents=True, exist_ok=True)
    return files


class Storage:
    """A place that the driver and all workers reach.

    Args:
        address: A directory, or an address of fsspec.
        identity: Tells this run of the study from others.
    """

    def __init__(self, address: str, identity: str) -> None:
        self._address, self._identity = address, identity
        self._system, root = _open_filesystem(address)
        self._root = posixpath.join(root, f"paretoprune-{identity}")

    def __reduce__(self) -> tuple[type[Storage], tuple[str, str]]:
        """Open a connection of its own in every process."""
        return Storage, (self._address, self._identity)

    def check(self) -> None:
        """Try it.

        Raises:
            InputError: If nothing can be written there, or its bucket does not exist.
        """
        path, bucket = self._path("probe"), self._root.partition("/")[0]
        public = remove_credentials(self._address)
        try:
            is_missing = bool(bucket) and not self._system.exists(bucket)
            if not is_missing:
                self._system.makedirs(self._root, exist_ok=True)
                self._system.pipe_file(path, b"paretoprune")
                self._system.rm_file(path)
        except Exception as error:  # every file system of fsspec raises errors of its own
            raise InputError(f"storage {public!r} cannot be written: {shorten_error(error)}") from error
        if is_missing:  # to make a folder in it would make it, whoever mistyped it
            raise InputError(f"storage {public!r}: there is no bucket {bucket!r}; make it, or correct its name")

    def send(self, files: StudyFiles, number: int) -> None:
        """Copy a finished trial into the storage.

        Args:
            files: Where the worker wrote it.
            number: Number of the trial.
        """
        folder = self._path("trials", f"{number:04d}")
        self._system.makedirs(folder, exist_ok=True)
        for path in sorted(files.folder(number).iterdir()):
            self._system.put_file(str(path), posixpath.join(folder, path.name))

    def fetch(self, files: StudyFiles, number: int) -> None:
        """Move a finished trial from the storage into its study; one that is there already stays.

        Args:
            files: The study.
            number: Number of the trial.

        Raises:
            OSError: If the study cannot be written.
        """
        folder, target = self._path("trials", f"{number:04d}"), files.folder(number)
        try:
            with create_folder(target) as fresh:
                for remote in self._system.ls(folder, detail=False):
                    self._system.get_file(remote, str(fresh / posixpath.basename(remote)))
        except OSError:
            if not (target / "outcome.json").exists():
                raise
        self._system.rm(folder, recursive=True)

    def keep_checkpoint(self, path: Path) -> None:
        """Copy a file of a checkpoint into the storage.

        Args:
            path: The file, in the folder of its trial.
        """
        folder = self._path("checkpoints", path.parent.name)
        self._system.makedirs(folder, exist_ok=True)
        fresh = posixpath.join(folder, f"{path.name}.part")
        self._system.put_file(str(path), fresh)
        self._system.mv(fresh, posixpath.join(folder, path.name))

    def restore_checkpoint(self, folder: Path) -> None:
        """Bring the checkpoint of a trial to this machine, unless it has one.

        Args:
            folder: Where it belongs.
        """
        remote = self._path("checkpoints", folder.name)
        if folder.exists() or not self._system.exists(remote):
            return
        with create_folder(folder) as fresh:
            for path in self._system.ls(remote, detail=False):
                if not path.endswith(".part"):
                    self._system.get_file(path, str(fresh / posixpath.basename(path)))

    def drop_checkpoint(self, number: int) -> None:
        """Remove the checkpoint of a trial that has ended.

        Args:
            number: Number of the trial.
        """
        folder = self._path("checkpoints", f"{number:04d}")
        if self._system.exists(folder):
            self._system.rm(folder, recursive=True)

    def clear(self) -> None:
        """Remove all that this study has put there."""
        if self._system.exists(self._root):
            self._system.rm(self._root, recursive=True)

    def _path(self, *parts: str) -> str:
        return posixpath.join(self._root, *parts)


def _open_filesystem(address: str) -> tuple[AbstractFileSystem, str]:
    """Open what an address names; the second value is the path in it."""
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(address)
    except Exception as error:  # unknown protocols, missing packages, wrong options: each library its own error
        raise InputError(
            f"storage {remove_credentials(address)!r} cannot be used: {shorten_error(error)}; give a directory that "
            "all nodes see, or an address of fsspec such as s3://bucket/runs"
        ) from error
    return system, str(root)
