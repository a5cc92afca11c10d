"""Which trials were begun and did not end: what is left when a trial takes its process with it."""

from __future__ import annotations

from contextlib import suppress

from search.store.files import read_object, write_json
from search.store.studies import StudyFiles
from spaces import InputError


class Attempt:
    """One attempt at a trial, noted on disk before it begins and struck out when it ends in any orderly way.

    Args:
        files: The study.
        number: Number of the trial.
    """

    def __init__(self, files: StudyFiles, number: int) -> None:
        self._path = files.root / "attempts" / f"{number:04d}.json"
        self.before = self._read()

    def begin(self) -> None:
        """Note that the trial begins."""
        self._path.parent.mkdir(exist_ok=True)
        write_json(self._path, {"unfinished": self.before + 1})

    def cancel(self) -> None:
        """Strike this attempt out: it was stopped from outside."""
        with suppress(OSError):  # on a full disk, which has stopped the trial: one attempt more then counts
            if self.before:
                write_json(self._path, {"unfinished": self.before})
            else:
                self.end()

    def end(self) -> None:
        """Strike all attempts out: the trial has an outcome."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> int:
        """Count the attempts that did not end; a note that cannot be read was being written by one."""
        if not self._path.exists():
            return 0
        try:
            return int(read_object(self._path)["unfinished"])
        except (InputError, KeyError, TypeError, ValueError):
            return 1
