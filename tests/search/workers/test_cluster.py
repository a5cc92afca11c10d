"""What Ray's processes are told before they start."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import ray
from ray._private.runtime_env.packaging import create_package

from search.workers.cluster import describe_code, preloaded
from search.workers.launch import PRELOADED
from search.workers.ray_workers import could_not_begin

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


def test_nodes_are_sent_every_module_of_ours_and_of_the_user_but_not_the_users_data(tmp_path: Path) -> None:
    for name in ("net.py", "mine/data/parts.py", "data/images.bin", "mlruns/optuna.db", "weights.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    code = describe_code(str(tmp_path))

    def sent(folder: str, parent: bool) -> set[str]:
        target = tmp_path.parent / f"{Path(folder).name}.zip"
        create_package(folder, target, True, include_parent_dir=parent, excludes=code["excludes"])
        return {name for name in zipfile.ZipFile(target).namelist() if not name.endswith("/")}

    assert sent(code["working_dir"], parent=False) == {"net.py", "mine/data/parts.py"}
    assert "/data/" in code["excludes"]
    (tmp_path / "data" / "loaders.py").touch()
    assert "/data/" not in describe_code(str(tmp_path))["excludes"], "a package of the user's own"
    for folder in map(Path, code["py_modules"]):
        ours = {str(path.relative_to(folder.parent)) for path in folder.rglob("*.py")}
        assert sent(str(folder), parent=True) >= ours
    assert {Path(folder).name for folder in code["py_modules"]} == {"paretoprune", "search", "methods", "spaces"}


def test_a_worker_that_lacks_a_module_is_told_from_one_that_was_lost() -> None:
    died = ray.exceptions.ActorDiedError()
    task = ray.exceptions.RayTaskError("f", "trace", ValueError("x"))  # type: ignore[no-untyped-call]
    assert not could_not_begin(died)
    assert could_not_begin(task) and could_not_begin(ray.exceptions.ActorDiedError(task))
    died.error_msg += " RuntimeError: The actor with name ImplicitFunc failed to import on the worker."
    assert could_not_begin(died)
