"""The front door: light to import, complete, and safe from a user's modules of the same names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import paretoprune

HEAVY = ("torch", "optuna", "ray", "mlflow", "matplotlib", "numpy", "pandas", "pydantic", "plotly")
ROOT = Path(__file__).parent.parent.parent


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with this clone on the path behind the folder itself."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_every_public_name_is_there() -> None:
    assert paretoprune.__all__ == sorted(paretoprune.__all__, key=lambda name: (not name[0].isupper(), name))
    assert set(paretoprune.__all__) <= set(dir(paretoprune))
    for name in paretoprune.__all__:
        assert getattr(paretoprune, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'paretoprune' has no attribute 'Sweeep'"):
        paretoprune.Sweeep  # noqa: B018


def test_importing_costs_nothing_heavy(tmp_path: Path) -> None:
    done = python(tmp_path, "-c", f"import sys, paretoprune; print([n for n in {HEAVY!r} if n in sys.modules])")
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("name", ["load_front", "load_config", "StudyFiles", "Front"])
def test_reading_needs_no_torch(tmp_path: Path, name: str) -> None:
    code = f"import sys; from paretoprune import {name}; print([n for n in {HEAVY[:5]!r} if n in sys.modules])"
    done = python(tmp_path, "-c", code)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_rebuilding_needs_no_search_library(tmp_path: Path) -> None:
    missing = "import sys; sys.modules.update(dict.fromkeys(('ray', 'mlflow', 'optuna', 'matplotlib', 'plotly')))"
    done = python(tmp_path, "-c", f"{missing}; from paretoprune import rebuild; rebuild('nowhere')")
    assert "InputError: nowhere is not an exported network" in done.stderr


@pytest.mark.parametrize("name", ["search", "methods", "spaces"])
def test_a_module_of_the_same_name_beside_the_script_does_no_harm(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("scale = 2\n", encoding="utf-8")
    (tmp_path / "script.py").write_text("from paretoprune import load_config\nprint(load_config(trials=3).trials)\n")
    done = python(tmp_path, "script.py")
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_modules_of_the_same_names_do_the_command_no_harm(tmp_path: Path) -> None:
    for name in ("search", "methods", "spaces"):
        (tmp_path / f"{name}.py").write_text("scale = 2\n", encoding="utf-8")
    done = python(tmp_path, "-m", "paretoprune", "methods", "--json")
    assert '"magnitude"' in done.stdout and done.returncode == 0


def test_a_module_of_the_same_name_that_is_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "methods.py").write_text("scale = 2\n", encoding="utf-8")
    done = python(tmp_path, "-c", "import methods; from paretoprune import load_config")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: the name 'methods' is taken: ") and "methods.py is loaded" in last
    assert "rename yours" in last


def test_packages_that_a_cluster_has_unpacked_each_in_its_own_folder_find_each_other(tmp_path: Path) -> None:
    folders = []
    for name in ("paretoprune", "search", "methods", "spaces"):
        shutil.copytree(ROOT / name, tmp_path / f"sent_{name}" / name, ignore=shutil.ignore_patterns("__pycache__"))
        folders.append(str(tmp_path / f"sent_{name}"))
    code = "import search.trials.trial, spaces, paretoprune as p; print(p.load_config(seed=3).seed, spaces.__file__)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3", str(tmp_path / "sent_spaces" / "spaces" / "__init__.py")]
