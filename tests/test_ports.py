"""The page about ports: its file, written outside the repository, is a sweep, and passes the contract tests."""

from __future__ import annotations

import json
import os
import re
import shutil
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


OURS = (
    ("methods/__init__.py", "METHODS: dict[str, str] = {", '"mine": "methods.mine:Mine",'),
    (
        "search/objectives/__init__.py",
        "from search.objectives.latency import",
        "from search.objectives.mine import MINE",
    ),
    ("search/objectives/__init__.py", "OBJECTIVES: Mapping[str, Objective] =", '"mine": MINE,'),
    (
        "search/study/samplers/choice.py",
        "SAMPLERS: Mapping",
        '"mine": "search.study.samplers.mine:Spread",',
    ),
    (
        "search/study/schedulers/making.py",
        "SCHEDULERS: Mapping",
        '"mine": "search.study.schedulers.mine:Mine",',
    ),
    ("search/study/config.py", "EXECUTORS: Mapping[str, str] =", '"mine": "mine:mine_pool",'),
    ("search/tasks/data/sets.py", "DATA: dict[str, str] =", '"mine": "search.tasks.data.mine:mine",'),
)
"""A file with a list of ours, where the list begins, and the line that one more part takes."""

PARTS = {
    "methods": "from methods.magnitude import Magnitude\nclass Mine(Magnitude):\n    pass\n",
    "search/objectives": "from search.objectives.base import Objective\n"
    "MINE = Objective(name='mine', title='mine', direction='minimise', measure=lambda context: 1.0)\n",
    "search/study/schedulers": "from search.study.schedulers.none import NoScheduler\n"
    "class Mine(NoScheduler):\n    pass\n",
    "search/workers": "from search.workers.inline import inline_pool as mine_pool\n",
    "search/tasks/data": "from search.tasks.data.digits import digits as mine\n",
}
"""The text of ``mine.py`` in each room."""


@pytest.mark.slow
def test_a_part_of_ours_is_its_file_and_one_line(folder: Path, tmp_path: Path) -> None:
    for room in ("methods", "search", "spaces", "paretoprune"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    for listing, start, line in OURS:
        path = tmp_path / listing
        lines = path.read_text(encoding="utf-8").splitlines()
        (place,) = [number for number, text in enumerate(lines) if text.startswith(start)]
        head, brace, rest = lines[place].partition("{")
        lines[place : place + 1] = [head + brace, line, *([rest] if rest else [])]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for room, text in {**PARTS, "search/study/samplers": (folder / "mine.py").read_text(encoding="utf-8")}.items():
        (tmp_path / room / "mine.py").write_text(text, encoding="utf-8")
    named = {"methods": "mine", "objectives": "accuracy,flops,mine", "sampler": "mine", "scheduler": "mine"}
    named |= {"executor": "mine", "data": "mine", "model": "resnet20", "trials": "2", "epochs": "1", "name": "all"}
    options = [word for name, value in named.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "search",
            "sweep",
            *options,
            "--set",
            "dense.epochs=1",
            "--set",
            "exports=[]",
            "--quiet",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    trials = sorted((tmp_path / "mlruns" / "studies" / "all" / "trials").glob("*/outcome.json"))
    outcomes = [json.loads(path.read_text(encoding="utf-8")) for path in trials]
    assert [outcome["method"] for outcome in outcomes] == ["mine", "mine"]
    assert all(outcome["metrics"]["mine"] == 1.0 for outcome in outcomes)


def test_every_group_of_entry_points_is_on_the_page() -> None:
    page = (ROOT / "docs" / "ports.md").read_text(encoding="utf-8")
    groups = set()
    for room in ("methods", "search"):
        for path in (ROOT / room).rglob("*.py"):
            groups |= set(re.findall(r'"paretoprune\.([a-z]+)"', path.read_text(encoding="utf-8")))
    groups.discard("examples")  # of a doctest
    missing = {group for group in groups if f"`.{group}`" not in page and f"`paretoprune.{group}`" not in page}
    assert groups and not missing
