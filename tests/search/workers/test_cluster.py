"""What Ray's processes are told before they start."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from search.workers.cluster import preloaded
from search.workers.launch import PRELOADED

NAME = "RAY_preload_python_modules"


@pytest.mark.parametrize(("before", "inside"), [(None, PRELOADED), ("theirs", f"theirs,{PRELOADED}")])
def test_workers_import_ahead_what_trials_need_beside_what_the_user_wants(
    monkeypatch: pytest.MonkeyPatch, before: str | None, inside: str
) -> None:
    monkeypatch.delenv(NAME, raising=False)
    if before is not None:
        monkeypatch.setenv(NAME, before)
    with preloaded(PRELOADED):
        assert os.environ[NAME] == inside
    assert os.environ.get(NAME) == before
    with preloaded(None):
        assert os.environ.get(NAME) == before


def test_what_is_imported_ahead_is_what_a_first_step_of_training_would_import() -> None:
    script = (
        f"import {PRELOADED}, sys, torch\n"
        "before = set(sys.modules)\n"
        "torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1).step()\n"
        "print(len(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 20
