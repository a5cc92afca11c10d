"""The rungs of a trial on disk: what a trial that was interrupted, or paused, goes on from.

One folder for each trial, ``studies/NAME/checkpoints/NNNN``, with one file for each training phase and each costly
step. It belongs to one specification under one budget; the state of another is thrown away. When the trial has an
outcome, the folder goes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from search.records.trial_spec import TrialSpec
from search.store.files import read_json, write_atomically, write_json
from search.trials.trial import Setting


class Checkpoints:
    """The states of one trial in a folder; the :class:`methods.contract.session.States` of a trial.

    Args:
        folder: The trial's own.
        setting: What all trials share.
        spec: The trial.
        keep: Is told of every file that was written, to copy it elsewhere.
    """

    def __init__(
        self, folder: Path, setting: Setting, spec: TrialSpec, keep: Callable[[Path], None] | None = None
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._identity = {
            "spec": {name: value for name, value in asdict(spec).items() if name != "until"},
            "steps": setting.steps,
            "recipe": setting.recipe.model_dump(mode="json"),
            "round_to": setting.round_to,
            "device": setting.device,
            "threads": setting.threads,
        }
        self._checked = False

    def get(self, name: str) -> bytes | None:
        """Return what was put last.

        Args:
            name: Name of a phase or a step.

        Returns:
            The bytes; ``None`` if there are none of this trial.
        """
        self._check()
        path = self._path(name)
        return path.read_bytes() if path.exists() else None

    def put(self, name: str, state: bytes) -> None:
        """Write a state in place of the one before.

        Args:
            name: Name of a phase or a step.
            state: The bytes.
        """
        self._check()
        path = self._path(name)
        write_atomically(path, state)
        if self._keep is not None:
            self._keep(path)

    def clear(self) -> None:
        """Remove the folder: the trial is over."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._checked = False

    def _check(self) -> None:
        """Make sure, once, that the folder is there and what it holds is of this trial."""
        if self._checked:
            return
        whose = self._folder / "trial.json"
        known = json.loads(json.dumps(self._identity))
        if not whose.exists() or read_json(whose) != known:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
            write_json(whose, known)
            if self._keep is not None:
                self._keep(whose)
        self._checked = True

    def _path(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.pt"


def checkpoint_folder(study: Path, number: int) -> Path:
    """Say where the rungs of a trial lie.

    Args:
        study: The folder of the study.
        number: Number of the trial.

    Returns:
        The folder; it need not exist.
    """
    return study / "checkpoints" / f"{number:04d}"
