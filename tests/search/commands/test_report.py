"""``report`` writes one page, and says where."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from search.commands.cli import app
from search.driver.sweep import Sweep
from tests.search.cases import make_quick_config


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs")
    Sweep(make_quick_config(directory, name="first", trials=2)).run()
    return directory


def call(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["report", *words])
    return result.exit_code, result.stdout, result.stderr


def test_a_report_lies_with_its_study(runs: Path) -> None:
    code, out, _ = call("--directory", str(runs))
    path = runs / "studies" / "first" / "report.html"
    assert (code, out) == (0, f"{path}\n")
    assert "first" in path.read_text(encoding="utf-8")


def test_a_report_goes_where_it_is_wanted(runs: Path, tmp_path: Path) -> None:
    code, out, err = call("first", "--directory", str(runs), "--to", str(tmp_path / "new" / "page.html"))
    assert code == 0 and out.endswith("page.html\n") and "kB" in err


def test_what_is_no_page_and_no_study_is_said(runs: Path, tmp_path: Path) -> None:
    code, _, err = call("first", "--directory", str(runs), "--to", str(tmp_path / "page.pdf"))
    assert code == 2 and "its name must end in .html" in err
    code, _, err = call("frist", "--directory", str(runs))
    assert code == 2 and "did you mean 'first'" in err
