"""What the documents say is there, is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from methods import METHODS, load_method
from search.commands.cli import COMMANDS
from search.study.config_file import load_config
from spaces import LayerGroup

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
GROUPS = [LayerGroup("a", 8, "8x8", 0.0), LayerGroup("b", 8, "4x4", 1.0)]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_page_and_a_row(name: str) -> None:
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in README
    names = load_method(name).space(GROUPS).names
    own = {parameter.partition("[")[0] for parameter in names if not parameter.startswith("sparsity.")}
    assert own <= set(re.findall(r"`([\w.]+)`", page)), "a searched parameter is missing on the page"


def test_every_command_is_in_the_readme() -> None:
    for _, _, example in COMMANDS:
        name = example.split()[1]
        assert f"paretoprune {name}" in README, name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


def test_the_readmes_configuration_is_valid(tmp_path: Path) -> None:
    block = re.search(r"```toml\n(# study\.toml.*?)```", README, re.S)
    assert block is not None
    file = tmp_path / "study.toml"
    file.write_text(block.group(1), encoding="utf-8")
    assert load_config(file).model == "resnet20"


def test_ci_finds_the_readmes_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    function = re.search(r"readme_block\(\) \{.*?\n\}", script, re.S)
    assert function is not None
    for name, wanted in {
        "sweep": "pip install -e . && paretoprune sweep",
        "test": 'pip install -e ".[test]" && pytest',
    }.items():
        command = f"{function.group(0)}\nreadme_block {name}"
        found = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == wanted


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "results").glob("league_*.csv")), ids=lambda path: path.stem)
def test_the_leagues_table_is_that_of_its_csv(path: Path) -> None:
    from search.records.league import read_csv
    from search.report.league import league_table

    rows, about = read_csv(path.read_text(encoding="utf-8"), path.name)
    page = path.with_name("league.md").read_text(encoding="utf-8")
    assert league_table(rows, about).strip() in page
    assert f"docs/results/{path.name}" in page
