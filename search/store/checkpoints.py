"""States of a training on disk: what a training that was interrupted, or paused, goes on from.

One folder for each training, with one file for each of its phases and costly steps. It belongs to what it was made by;
the states of another go when the first is written. When the training has come to its end, the folder goes.
"""

from __future__ import annotations

import hashlib
import json
import operator
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from search.store.files import read_json, write_atomically, write_json

MADE_BY = "made_by.json"
"""The file in a folder that says whose it is."""


class Checkpoints:
    """The states of one training in a folder; its :class:`methods.contract.session.States`.

    Args:
        folder: The training's own.
        whose: What decides the states, as JSON; those of another are not given back, and go at the first that is put.
        keep: Is told of every file that was written, to copy it elsewhere.
        is_same: Whether what the folder was made by and ``whose`` are one; equal, if not said otherwise.
    """

    def __init__(
        self,
        folder: Path,
        whose: Mapping[str, Any],
        keep: Callable[[Path], None] | None = None,
        is_same: Callable[[Mapping[str, Any], Mapping[str, Any]], bool] = operator.eq,
    ) -> None:
        self._folder = folder
        self._whose = json.loads(json.dumps(whose))
        self._keep = keep
        self._is_same = is_same
        self._ours = False

    def get(self, name: str) -> bytes | None:
        """Return what was put last.

        Args:
            name: Name of a phase or a step.

        Returns:
            The bytes; ``None`` if there are none of this training.
        """
        path = self._path(name)
        return path.read_bytes() if self._is_ours() and path.exists() else None

    def put(self, name: str, state: bytes) -> None:
        """Write a state in place of the one before.

        Args:
            name: Name of a phase or a step.
            state: The bytes.
        """
        if not self._is_ours():
            self._begin()
        path = self._path(name)
        write_atomically(path, state)
        if self._keep is not None:
            self._keep(path)

    def clear(self) -> None:
        """Remove the folder: the training is over."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._ours = False

    def _is_ours(self) -> bool:
        """Whether what the folder holds is of this training; asked once, for nobody else writes there."""
        if not self._ours and (made_by := self._folder / MADE_BY).exists():
            self._ours = self._is_same(read_json(made_by), self._whose)
        return self._ours

    def _begin(self) -> None:
        """Make the folder, without what was there of another."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        made_by = self._folder / MADE_BY
        write_json(made_by, self._whose)
        if self._keep is not None:
            self._keep(made_by)
        self._ours = True

    def _path(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.pt"
