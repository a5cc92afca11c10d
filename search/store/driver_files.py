"""Who works on a study: locks that a killed process lets go of by itself, and a note of what runs."""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from search.store.files import file_lock, read_note, write_json
from spaces import InputError


class DriverFiles:
    """The drivers of one study.

    A part of :class:`search.store.studies.StudyFiles`, which sets the attributes.

    Attributes:
        root: The folder of the study.
        name: Name of the study, for messages.
    """

    root: Path
    name: str

    def lock(self) -> AbstractContextManager[object]:
        """Claim the study for this process until the context ends; a killed process lets go by itself.

        Returns:
            A context manager.

        Raises:
            InputError: If another driver is at work on the study.
        """
        import filelock

        try:
            # A moment's patience: whoever looks whether a driver is at work holds a shared lock for an instant.
            return file_lock(self.root / "driver.lock", timeout=0.5).acquire(poll_interval=0.02)
        except filelock.Timeout as error:
            raise InputError(
                f"study {self.name!r} is being run by another process; `paretoprune status {self.name}` shows it"
            ) from error

    @contextmanager
    def join(self) -> Generator[None]:
        """Show, until the context ends, that this process works on the study beside the driver that holds the lock.

        Yields:
            Nothing; runs the block.
        """
        folder = self.root / "drivers"
        folder.mkdir(exist_ok=True)
        for old in folder.glob("*.lock"):  # of processes that were killed
            if not is_held(old):
                old.unlink(missing_ok=True)
        path = folder / f"{uuid.uuid4().hex}.lock"
        try:
            with file_lock(path):
                yield
        finally:
            path.unlink(missing_ok=True)

    def is_locked(self) -> bool:
        """Tell whether some process holds the lock of the study; nothing is written, nor a driver kept away.

        Returns:
            Whether one does: the only driver, or of several the one that also tests, draws and mirrors.
        """
        return is_held(self.root / "driver.lock")

    def is_driven(self) -> bool:
        """Tell whether a driver is at work on the study now; nothing is written, nor a driver kept away.

        Returns:
            True while some process does.
        """
        return self.is_locked() or any(is_held(path) for path in (self.root / "drivers").glob("*.lock"))

    def write_running(self, numbers: Sequence[int], total: int) -> None:
        """Note which trials are with workers now.

        Args:
            numbers: Their numbers.
            total: How many trials the study shall have.
        """
        write_json(self.root / "driver.json", {"running": sorted(numbers), "total": total})

    def read_driver_note(self) -> dict[str, Any]:
        """Read what the last driver noted.

        Returns:
            As :meth:`write_running` was given it; nothing before the first trial.
        """
        return read_note(self.root / "driver.json")


def is_held(path: Path) -> bool:
    """Look whether another process holds the lock of a file.

    Args:
        path: The file.

    Returns:
        Whether one does; not where there is no such file.
    """
    import fcntl

    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)  # lets go of the lock, too
    return False
