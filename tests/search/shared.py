"""What whole sweeps need before the first trial, made once for many tests of one process.

Proving the channels of a network takes most of a second, and so does making the tables of an MLflow database. Both have
tests of their own, which do not stand below a ``conftest.py`` that shares them.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from methods.network.anatomy import fingerprint_of
from methods.network.preflight import Findings
from search.driver import prepare
from search.store.databases import sqlite_file
from search.tracking.run_store import RunStore

Proven = tuple[Findings, frozenset[str]]
_PROVEN: dict[str, Proven] = {}


@contextmanager
def share_preparations(folder: Path) -> Generator[None]:
    """Prove equal networks once, and begin MLflow's databases as copies of an empty one.

    Args:
        folder: For the empty database.

    Yields:
        Nothing; runs the block.
    """
    prove_channels, begin = prepare.prove_channels, RunStore.prepare

    def prove_once(model: Any, example: Any, ignored: Sequence[str]) -> Proven:
        key = fingerprint_of(model, example, ignored)
        if key not in _PROVEN:
            _PROVEN[key] = prove_channels(model, example, ignored)
        return _PROVEN[key]

    def copy_empty(self: RunStore) -> None:
        self.require_directory()
        if self.scheme == "sqlite":
            path, empty = Path(sqlite_file(self.uri)), folder / "mlflow.db"
            if not empty.exists():
                import mlflow

                mlflow.MlflowClient(f"sqlite:///{empty}").search_experiments()
            if path.name == empty.name and path.parent.is_dir() and not path.exists():
                shutil.copyfile(empty, path)
        begin(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "prove_channels", prove_once)
        patch.setattr(RunStore, "prepare", copy_empty)
        yield
