"""Studies on disk, and finished trials."""

from __future__ import annotations

from pathlib import Path

import torch

from search.store.studies import StudyFiles
from search.trials.trial import Finished
from tests.search.cases import make_quick_config, outcome


def make_study(directory: Path, name: str = "one", **changes: object) -> StudyFiles:
    files = StudyFiles(directory, name)
    config = make_quick_config(directory, name=name, **changes).model_dump(mode="json")
    files.create({"config": config, "dense": {"accuracy": 0.95, "flops": 1000, "params": 100, "seconds": 2.0}})
    return files


def make_finished(number: int, **changes: object) -> Finished:
    result = outcome(number, **changes)
    if result.state == "failed":
        return Finished(result, None, {})
    return Finished(result, {"format": 1, "modules": {}}, {"w": torch.arange(3.0)})
