"""The page about ports: its file, written outside the repository, is a sweep, and passes the contract tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def blocks(language: str) -> str:
    page = (ROOT / "docs" / "ports.md").read_text(encoding="utf-8")
    return "\n\n\n".join(re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ports")
    (folder / "mine.py").write_text(blocks("python"))
    (folder / "study.toml").write_text(blocks("toml"))
    (folder / "test_mine.py").write_text(blocks("pytest"))
    return folder


def run(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_all_parts_in_one_sweep(folder: Path) -> None:
    said = run(folder, "-m", "search", "sweep", "study.toml", "--name", "mine", "--quiet")
    assert "mine:Mine" in said and "trial 3:" in said
    shown = json.loads(subprocess.run(
        [sys.executable, "-m", "search", "front", "mine", "--json"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    ).stdout)  # fmt: skip
    members = shown["members"]
    assert members and all({"top2", "energy"} <= member.keys() for member in members)
    outcomes = [
        json.loads((folder / "mlruns" / "studies" / "mine" / "trials" / f"{number:04d}" / "outcome.json").read_text())
        for number in range(4)
    ]
    assert {outcome["state"] for outcome in outcomes} <= {"complete", "stopped"}
    assert {len(outcome["history"]) for outcome in outcomes if outcome["state"] == "stopped"} <= {1}
    complete = [outcome for outcome in outcomes if outcome["state"] == "complete"]
    own = next(outcome["number"] for outcome in complete if outcome["method"] == "mine:Mine")
    run(folder, "-m", "search", "export", "mine", "--trial", str(own), "--to", "exported")
    (card,) = [json.loads(path.read_text()) for path in folder.glob("exported*/card.json")]
    (choice,) = card["execution"]["layers"].values()
    assert set(choice["seconds"]) == {"factored", "whole"}


def test_the_contract_tests_of_small_parts_pass(folder: Path) -> None:
    assert "1 passed" in run(
        folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py::test_the_other_parts"
    )


@pytest.mark.slow
def test_the_contract_tests_of_the_method_pass(folder: Path) -> None:
    assert " passed" in run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py")


def test_every_group_of_entry_points_is_on_the_page() -> None:
    page = (ROOT / "docs" / "ports.md").read_text(encoding="utf-8")
    groups = set()
    for room in ("methods", "search"):
        for path in (ROOT / room).rglob("*.py"):
            groups |= set(re.findall(r'"paretoprune\.([a-z]+)"', path.read_text(encoding="utf-8")))
    groups.discard("examples")  # of a doctest
    missing = {group for group in groups if f"`.{group}`" not in page and f"`paretoprune.{group}`" not in page}
    assert groups and not missing
