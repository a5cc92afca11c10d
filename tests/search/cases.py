"""Outcomes, settings and configurations for the tests of search: small, and the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search.records.listener import NullListener
from search.records.outcome import Outcome
from search.study.config import StudyConfig


def outcome(number: int = 0, **changes: Any) -> Outcome:
    """A finished trial; a failed one if ``error`` is given."""
    complete = changes.get("error") is None
    metrics = {"accuracy": 0.9, "flops": 500.0, "params": 50.0, "seconds": 1.5} if complete else {}
    fields: dict[str, Any] = {
        "number": number,
        "method": "magnitude",
        "point": {"sparsity.mode": "flops", "sparsity.flops": 0.5, "sparsity.tilt": 0.0},
        "state": "complete" if complete else "failed",
        "metrics": metrics,
        "history": [{"epoch": 1.0, "loss": 0.5, "accuracy": 0.9}],
        "widths": {"conv1": (8, 16)} if complete else {},
        "extra": {},
        "seed": 7,
        "error": None,
        "started": 1_700_000_000.0,
        "seconds": 1.5,
    }
    return Outcome(**(fields | changes))


def make_quick_config(directory: Path, **changes: Any) -> StudyConfig:
    """Digits, two steps of training, everything in this process."""
    fields: dict[str, Any] = {
        "directory": directory,
        "trials": 3,
        "dense": {"epochs": 1},
        "finetune": {"epochs": 0.5, "recipe": {"recalibrate": 1}},
        "methods": ["magnitude", "random"],
        "resources": {"executor": "inline"},
        "exports": [],
    }
    return StudyConfig.model_validate(fields | changes)


class Warned(NullListener):
    """Keeps what it is warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def toml(directory: Path, text: str) -> Path:
    """Write a configuration into a folder."""
    path = directory / "study.toml"
    path.write_text(text)
    return path
