"""Parts by name: what a reference finds, and the one sentence for each way in which it does not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path

import pytest

from methods import load_method
from methods.contract import named
from methods.contract.method import Method
from methods.contract.named import call_named, load_named
from search.study.config_file import load_config
from spaces import InputError

MINE = """
from methods import Method

class Mine(Method):
    title = "mine"
    source = "me"
    @classmethod
    def space(cls, groups): raise NotImplementedError
    def prune(self, problem): raise NotImplementedError

class Unfinished(Method):
    title = "half"
    source = "me"
    @classmethod
    def space(cls, groups): raise NotImplementedError

def function(): ...
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "named_mine.py").write_text(MINE)
    (tmp_path / "named_broken.py").write_text("1 / 0")
    (tmp_path / "named_package").mkdir()
    (tmp_path / "named_package" / "__init__.py").write_text("")
    (tmp_path / "named_package" / "mine.py").write_text(MINE)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("named_")]:
        del sys.modules[name]


def test_class_in_the_working_directory() -> None:
    path = list(sys.path)
    for reference in ("named_mine:Mine", "named_package.mine:Mine"):
        found = load_method(reference)
        assert issubclass(found, Method) and found.title == "mine"
    assert sys.path == path


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (
            "named_absent:Mine",
            r"^method 'named_absent:Mine': there is no module 'named_absent'; it must be installed or",
        ),
        ("named_mine.deeper:Mine", r"^method 'named_mine.deeper:Mine': there is no module 'named_mine.deeper'"),
        ("named_mine:Mime", r"^method 'named_mine:Mime': unknown name in named_mine: 'Mime'; did you mean 'Mine'\?"),
        ("named_mine:function", r"^method 'named_mine:function': function is no subclass of methods.Method$"),
        ("named_mine:Unfinished", r"^method 'named_mine:Unfinished': Unfinished is abstract: it lacks prune$"),
        ("named_broken:Mine", r"^method 'named_broken:Mine': importing named_broken failed: ZeroDivisionError: "),
        ("named mine:Mine", r"^method 'named mine:Mine' must have the form package.module:Name$"),
        ("named_mine:", r"^method 'named_mine:' must have the form package.module:Name$"),
    ],
)
def test_one_sentence_for_each_mistake(reference: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load_method(reference)
    assert "\n" not in str(caught.value)


def test_names_of_ours_come_first_and_unknown_ones_name_the_nearest() -> None:
    assert load_named("function", "root", {"root": "math:sqrt"}, "paretoprune.nothing")(9) == 3
    with pytest.raises(InputError, match=r"unknown function 'roof'; did you mean 'root'\?.*package.module:Name"):
        load_named("function", "roof", {"root": "math:sqrt"}, "paretoprune.nothing")


def test_what_a_function_raises_is_said_in_one_sentence() -> None:
    def fail() -> None:
        raise KeyError("oh\nno")

    with pytest.raises(InputError, match=r"^data 'x:fails' failed: KeyError: 'oh"):
        call_named(fail, "x:fails", "data")


def test_references_in_a_configuration(tmp_path: Path) -> None:
    toml = tmp_path / "study.toml"
    toml.write_text('methods = ["named_package.mine:Mine", "random"]\n[space."named_package.mine:Mine"]\nrate = 2\n')
    given = load_config(toml)
    assert given.methods == ("named_package.mine:Mine", "random")
    assert given.space == {"named_package.mine:Mine": {"rate": 2}}
    for key in (
        "space.named_package.mine:Mine.sparsity.flops.low",
        'space."named_package.mine:Mine".sparsity.flops.low',
    ):
        option = load_config(None, [f"{key}=0.2"])
        assert option.space == {"named_package.mine:Mine": {"sparsity.flops": {"low": 0.2}}}


def test_installed_packages_are_read_once_for_an_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[None] = []

    def count(group: str) -> EntryPoints:
        reads.append(None)
        return entry_points(group=group)

    monkeypatch.setattr(named, "entry_points", count)
    information = tmp_path / "mine-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[paretoprune.tests]\nroot = math:sqrt\n")
    assert named.list_known_names({}, "paretoprune.tests") == []
    before = len(reads)
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(3):
        assert named.list_known_names({"own": "math:sin"}, "paretoprune.tests") == ["own", "root"]
        assert named.load_named("function", "root", {}, "paretoprune.tests")(9) == 3
    assert len(reads) == before + 1
