"""What the shell completes, asked as the shell asks it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from search.commands.cli import app
from search.store.studies import StudyFiles
from tests.search.cases import make_quick_config


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with studies in two stores."""
    monkeypatch.chdir(tmp_path)
    for directory, name in (("mlruns", "digits-one"), ("mlruns", "digits-two"), ("elsewhere", "other")):
        files = StudyFiles(tmp_path / directory, name)
        files.create({"config": make_quick_config(tmp_path / directory, name=name).model_dump(mode="json")})


def complete(line: str) -> set[str]:
    """Complete the last word of a line, as bash does."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_PARETOPRUNE_COMPLETE": "complete_bash"}
    return set(CliRunner().invoke(app, [], prog_name="paretoprune", env=asked).output.split())


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("paretoprune front ", {"digits-one", "digits-two"}),
        ("paretoprune front digits-t", {"digits-two"}),
        ("paretoprune show digits-o", {"digits-one"}),
        ("paretoprune compare digits-one digits-t", {"digits-two"}),
        ("paretoprune rename --directory elsewhere ", {"other"}),
        ("paretoprune sweep --warm-start digits-one,digits-t", {"digits-one,digits-two"}),
        ("paretoprune sweep --methods increg,mag", {"increg,magnitude"}),
        ("paretoprune space sd", {"sdprun"}),
        ("paretoprune sweep --model resnet1", {"resnet110"}),
        ("paretoprune doctor vgg", {"vgg16", "vgg19"}),
        ("paretoprune train --data cif", {"cifar10", "cifar100"}),
        ("paretoprune sweep --set finetune.ep", {"finetune.epochs="}),
        ("paretoprune fro", {"front"}),
    ],
)
def test_names_are_completed(line: str, found: set[str]) -> None:
    assert complete(line) == found


def test_nothing_heavy_is_loaded_for_it() -> None:
    script = (
        "import sys; from search.commands import completion as c; "
        "c.complete_methods(''), c.complete_models(''), c.complete_data(''), c.complete_settings(''); "
        "print(sorted({'torch', 'ray', 'mlflow', 'optuna', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
