"""Which file imports which: no circles, also none through imports inside functions, for types alone, or by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("spaces", "methods", "search", "paretoprune")


def modules_of(root: Path) -> dict[str, Path]:
    """All modules of the rooms by dotted name."""
    found = {}
    for room in ROOMS:
        for path in (root / room).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def list_named(text: str, known: Mapping[str, object], package: str) -> Iterator[str]:
    """What a source names: imports wherever they stand, and strings that are a module's name (and an attribute)."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield inner if inner in known else module
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            module = node.value.partition(":")[0]
            if "." in module:  # for import_module and for tables of homes
                yield module


def imports_of(root: Path) -> dict[str, set[str]]:
    """The modules of the rooms that each module imports."""
    known = modules_of(root)
    graph = {}
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        graph[name] = {each for each in list_named(path.read_text(encoding="utf-8"), known, package) if each in known}
        graph[name].discard(name)
    return graph


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = imports_of(ROOT)
    assert len(graph) > 200 and sum(map(len, graph.values())) > 1000
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail("a circle of imports: " + " <- ".join(error.args[1]))
    assert set(order) == set(graph)


@pytest.mark.parametrize(
    "back",
    [
        "from methods.a import x",
        "from methods import a",
        "import methods.a",
        "from . import a",
        "from .a import x",
        "def f():\n    from methods.a import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from methods.a import X",
        "from importlib import import_module\ndef f():\n    return import_module('methods.a')",
        "HOMES = {'x': 'methods.a:X'}",
    ],
)
def test_every_way_to_import_is_seen(back: str, tmp_path: Path) -> None:
    room = tmp_path / "methods"
    room.mkdir()
    (room / "__init__.py").write_text("")
    (room / "a.py").write_text("from methods.b import y\n")
    (room / "b.py").write_text("import os\n")
    assert imports_of(tmp_path) == {"methods": set(), "methods.a": {"methods.b"}, "methods.b": set()}
    (room / "b.py").write_text(back)
    with pytest.raises(CycleError):
        TopologicalSorter(imports_of(tmp_path)).prepare()
