"""The studies of a store as ``list`` tells them."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from paretoprune import Sweep
from search.commands.cli import app
from tests.search.cases import make_quick_config


def test_studies_are_listed_with_date_best_and_size(tmp_path: Path) -> None:
    home = ["--directory", str(tmp_path)]
    nothing = CliRunner().invoke(app, ["list", *home])
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    front = Sweep(make_quick_config(tmp_path, name="one", trials=1)).run()
    (row,) = json.loads(CliRunner().invoke(app, ["list", "--json", *home]).stdout)
    assert (row["study"], row["finished"], row["total"], row["driver"]) == ("one", 1, 1, False)
    assert row["best"] == front.pick("best").metrics["accuracy"] and row["quality"] == "accuracy"
    files = [path for path in (tmp_path / "studies" / "one").rglob("*") if path.is_file()]
    assert row["bytes"] == sum(path.stat().st_size for path in files)
    text = CliRunner().invoke(app, ["list", *home], env={"COLUMNS": "60"}).stdout
    assert row["best_text"] in text and "1/1" in text and "MB" in text and "begun (UTC)" in text
