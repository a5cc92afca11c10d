"""Which changes of a method's equations no test of the method notices: mutation testing with cosmic-ray's operators.

    pip install cosmic-ray coverage
    python -m benchmarks.mutations spp --count 22 --seed 1 --to spp.jsonl

Places where an operator, comparison, number or flag stands are drawn at random from the files that hold the equations
(not from annotations, fields, search spaces, decorators and messages), and at each one of cosmic-ray's replacements. A
coverage run tells which tests of the method pass there, and how long they take; those run, the quickest first, until
one fails. Everything happens in a copy of the tree, each mutant in a process that is forked after torch was imported,
and each result is a line of the file: the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

EQUATIONS = {
    "increg": ("increg", "kernels penalties pacing method"),
    "spp": ("spp", "probabilities method"),
    "sdprun": ("sdprun", "dual_averaging growth raising steering carry_over method"),
    "greedy": (
        "greedy",
        "forward_selection imitation layerwise orderings rank_one readers selection small_maps method",
    ),
    "eigendamage": (
        "eigendamage",
        "allotment directions eigenspace filter_surgery kronecker marginal rotation rotation_cost separable surgeon "
        "unit_damage method",
    ),
    "pivoting": (
        "pivoting",
        "arrangement block_budget block_matrices blocking blocks concentration division mixing permutations pivots "
        "portions method",
    ),
}
"""Folder and files of each method that hold equations."""

SHARED = {"increg": ["methods/ranked/ranking.py"]}
"""Further files, with what they share with other methods."""

ARITHMETIC = {
    "Add": "Sub Mul", "Sub": "Add Mul", "Mul": "Div Add", "Div": "Mul Sub", "FloorDiv": "Div Mul", "Mod": "FloorDiv",
    "Pow": "Mul", "BitAnd": "BitOr BitXor", "BitOr": "BitAnd", "BitXor": "BitAnd",
}  # fmt: skip
"""What an operation becomes: what would still run, not what fails at once."""

COMPARISONS = {
    "Eq": "NotEq", "NotEq": "Eq", "Lt": "LtE Gt GtE", "LtE": "Lt Gt", "Gt": "GtE Lt", "GtE": "Gt Lt", "Is": "IsNot",
    "IsNot": "Is",
}  # fmt: skip
"""What a comparison becomes."""

OTHERS = (
    "AddNot NumberReplacer ReplaceAndWithOr ReplaceOrWithAnd ReplaceTrueWithFalse ReplaceFalseWithTrue "
    "ReplaceBreakWithContinue ReplaceContinueWithBreak ZeroIterationForLoop ReplaceUnaryOperator_Delete_Not "
    "ReplaceUnaryOperator_USub_UAdd ReplaceUnaryOperator_Delete_Invert"
).split()

PYTEST = (
    "-o", "addopts=--doctest-modules --strict-markers -m 'not slow'", "-q", "-p", "no:cacheprovider", "--no-header",
    "--tb=line", "-W", "ignore::pytest.PytestAssertRewriteWarning",
)  # fmt: skip
"""In this process, and without complaints that it has imported things before pytest."""


def list_operators() -> list[str]:
    """List the names of cosmic-ray's operators that are used."""
    pairs = [f"ReplaceBinaryOperator_{old}_{new}" for old, many in ARITHMETIC.items() for new in many.split()]
    pairs += [f"ReplaceComparisonOperator_{old}_{new}" for old, many in COMPARISONS.items() for new in many.split()]
    return sorted(f"core/{name}" for name in [*pairs, *OTHERS])


def list_skipped(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """List beginnings and ends (line, column) of what is no equation."""
    found: list[ast.AST] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found += node.decorator_list
        if isinstance(node, ast.FunctionDef):
            found += [each.annotation for each in ast.walk(node.args) if isinstance(each, ast.arg) and each.annotation]
            found += [node.returns] if node.returns else []
            found += [node] if node.name in ("space", "check", "_check_together") else []
        if isinstance(node, ast.ClassDef):
            found += [each for each in node.body if not isinstance(each, ast.FunctionDef)]
        if isinstance(node, ast.AnnAssign):
            found.append(node.annotation)
        if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.Assert):
            found.append(node)
    return [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in found]  # type: ignore[attr-defined]


def draw_mutants(files: Mapping[str, str], seed: int) -> list[tuple[str, int, str, int]]:
    """Draw one replacement for every place, in random order.

    Args:
        files: Source text by path.
        seed: Decides the draw.

    Returns:
        Path, line, operator, and which of its occurrences in the file.
    """
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    rng, mutants = random.Random(seed), []
    for path, source in files.items():
        nodes, skipped = list(ast_nodes(get_ast(source))), list_skipped(source)
        places: dict[tuple[int, int], list[tuple[str, int]]] = {}
        for name in list_operators():
            operator = plugins.get_operator(name)()
            positions = (position for node in nodes for position in operator.mutation_positions(node))
            for occurrence, (begin, _) in enumerate(positions):
                if not any(first <= tuple(begin) <= last for first, last in skipped):
                    places.setdefault(tuple(begin), []).append((name, occurrence))
        mutants += [(path, place[0], *rng.choice(places[place])) for place in sorted(places)]
    rng.shuffle(mutants)
    return mutants


class Coverage:
    """A plugin of pytest that notes which tests run which line, and how long each takes.

    Args:
        tree: Where the files are.
        files: Those that are looked at.
        to: Where the result goes.
    """

    def __init__(self, tree: Path, files: Sequence[str], to: Path) -> None:
        import coverage

        self.tree, self.to, self.seconds = tree, to, dict[str, float]()
        include = [str(tree / path) for path in files]
        self.coverage = coverage.Coverage(include=include, data_file=None, config_file=False)

    def pytest_sessionstart(self) -> None:
        """Begin."""
        self.coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Take the time of a test."""
        self.coverage.switch_context(item.nodeid)
        began = time.monotonic()
        result = yield
        self.seconds[item.nodeid] = time.monotonic() - began
        self.coverage.switch_context("")
        return result

    def pytest_sessionfinish(self) -> None:
        """Write what was found."""
        self.coverage.stop()
        data, lines = self.coverage.get_data(), {}
        for path in data.measured_files():
            for line, tests in data.contexts_by_lineno(path).items():
                lines[f"{Path(path).relative_to(self.tree)}:{line}"] = [test for test in tests if test]
        self.to.write_text(json.dumps({"seconds": self.seconds, "lines": lines}), encoding="utf-8")


def run_apart(function: Callable[[], int], seconds: float, log: Path) -> int | None:
    """Run a function in a forked process.

    Args:
        function: Returns the exit status.
        seconds: How long it may take.
        log: Where its output goes.

    Returns:
        The exit status; ``None`` if it was still running.
    """
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        status = 99
        try:
            status = int(function())
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def find_tests(
    lines: Mapping[str, list[str]], seconds: Mapping[str, float], path: str, line: int, source: str
) -> list[str]:
    """Find the tests that run a line, the quickest first.

    Args:
        lines: Tests by path and line.
        seconds: How long each takes.
        path: The file.
        line: The line. One further down a statement counts as its beginning; what runs when the file is imported
            concerns all tests that run anything of the file.
        source: Text of the file.

    Returns:
        Names of tests.
    """
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    if not any(node.body[0].lineno <= line <= (node.end_lineno or 0) for node in functions):
        found = {test for place, tests in lines.items() if place.startswith(f"{path}:") for test in tests}
        return sorted(found, key=lambda test: seconds[test])
    for number in range(line, max(0, line - 8), -1):
        if tests := lines.get(f"{path}:{number}"):
            return sorted(tests, key=lambda test: seconds[test])
    return []


def main() -> None:
    """Draw mutants, run the tests, and print what survives."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("method", choices=sorted(EQUATIONS))
    parser.add_argument("--count", type=int, default=30, help="how many mutants")
    parser.add_argument("--seed", type=int, default=1, help="decides which")
    parser.add_argument("--to", type=Path, help="file of results, gone on with; by default METHOD.jsonl")
    given = parser.parse_args()
    to = (given.to or Path(f"{given.method}.jsonl")).resolve()
    sys.dont_write_bytecode = True
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "mlruns", "data", "__pycache__"))
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        os.environ["PYTHONPATH"] = str(tree)
        import torchvision  # noqa: F401  # once, for all forks

        run(tree, given.method, given.count, given.seed, to)


def run(tree: Path, method: str, count: int, seed: int, to: Path) -> None:
    """Run what is missing.

    Args:
        tree: A copy of the repository.
        method: Whose equations and tests.
        count: How many mutants.
        seed: Decides which.
        to: File of results.
    """
    from cosmic_ray import mutating, plugins

    folder, names = EQUATIONS[method]
    paths = [f"methods/{folder}/{name}.py" for name in names.split()] + SHARED.get(method, [])
    tests, known, log = [f"tests/methods/{method}", *paths], to.with_suffix(".coverage.json"), tree.parent / "log"
    if not known.exists():
        status = run_apart(lambda: pytest.main([*PYTEST, *tests], [Coverage(tree, paths, known)]), 3600, log)
        if status != 0:
            raise SystemExit(f"the tests do not pass as they are:\n{log.read_text(errors='replace')[-2000:]}")
    covered: dict[str, Any] = json.loads(known.read_text(encoding="utf-8"))
    sources = {path: (tree / path).read_text(encoding="utf-8") for path in paths}
    done = [json.loads(line) for line in to.read_text(encoding="utf-8").splitlines()] if to.exists() else []
    for path, line, operator, occurrence in draw_mutants(sources, seed)[:count]:
        if any((each["path"], each["operator"], each["occurrence"]) == (path, operator, occurrence) for each in done):
            continue
        changed = mutating.mutate_code(sources[path], plugins.get_operator(operator)(), occurrence)
        chosen = find_tests(covered["lines"], covered["seconds"], path, line, sources[path])
        seconds = 20 + sum(covered["seconds"][test] for test in chosen)
        (tree / path).write_text(changed, encoding="utf-8")
        status = run_apart(lambda: pytest.main([*PYTEST, "-x", *chosen]), seconds, log) if chosen else 0  # noqa: B023
        (tree / path).write_text(sources[path], encoding="utf-8")
        pairs = zip(sources[path].splitlines(), changed.splitlines(), strict=False)
        before, after = next(((a.strip(), b.strip()) for a, b in pairs if a != b), ("", ""))
        state = "survived" if status == 0 else "too slow" if status is None else "killed"
        row = {"path": path, "line": line, "operator": operator, "occurrence": occurrence, "state": state}
        row |= {"tests": len(chosen), "before": before, "after": after}
        done.append(row)
        with to.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{state:<9} {path}:{line}\n  - {before}\n  + {after}", flush=True)
    counts = {state: sum(each["state"] == state for each in done) for state in ("killed", "too slow", "survived")}
    print(f"{method}: {len(done)} mutants, " + ", ".join(f"{number} {state}" for state, number in counts.items()))


if __name__ == "__main__":
    main()
