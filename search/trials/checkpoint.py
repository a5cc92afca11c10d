"""Where the rungs of a trial lie, and by what they are known as its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from search.records.trial_spec import TrialSpec
from search.store.checkpoints import Checkpoints
from search.trials.trial import Setting


def checkpoint_folder(study: Path, number: int) -> Path:
    """Say where the rungs of a trial lie.

    Args:
        study: The folder of the study.
        number: Number of the trial.

    Returns:
        The folder; it need not exist.
    """
    return study / "checkpoints" / f"{number:04d}"


def open_checkpoints(
    folder: Path, setting: Setting, spec: TrialSpec, keep: Callable[[Path], None] | None = None
) -> Checkpoints:
    """Open the states of a trial: those of one specification under one budget.

    Args:
        folder: The trial's own.
        setting: What all trials share.
        spec: The trial.
        keep: Is told of every file that was written, to copy it elsewhere.

    Returns:
        The states.
    """
    whose = {
        "spec": {name: value for name, value in asdict(spec).items() if name != "until"},
        "steps": setting.steps,
        "recipe": setting.recipe.model_dump(mode="json"),
        "round_to": setting.round_to,
        "device": setting.device,
        "threads": setting.threads,
    }
    return Checkpoints(folder, whose, keep)
