from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from search.commands.output import note, prepare_streams
prepare_streams()
for number in range(3):
    note(f"line {number} \\u2264 \\xfc \\x1b[31mred")
print("to stdout \\u2264", flush=True)
open(sys.argv[1], "w").write("survived")
"""


def run(tmp_path: Path, redirect: str, **environment: str) -> tuple[int, str, bool]:
    """Run the program under a shell; exit code, what came on stdout, and whether it got to its end."""
    end = tmp_path / "end"
    command = f'"{sys.executable}" -c "$PROGRAM" {end} {redirect}'
    variables = os.environ | {"PROGRAM": PROGRAM} | environment
    done = subprocess.run(["bash", "-c", command], env=variables, stdout=subprocess.PIPE, text=True, timeout=60)
    return done.returncode, done.stdout, end.exists()


def test_characters_that_an_encoding_lacks_become_plain_ones(tmp_path: Path) -> None:
    _, out, survived = run(tmp_path, "2>&1", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert survived and out.splitlines()[0] == "line 0 <= ? red" and out.splitlines()[-1] == "to stdout <="


@pytest.mark.parametrize(
    "redirect",
    ["2>&-", "2> >(exit 0)", "2>/dev/full", "2> >(head -1 >/dev/null)", "<&- 2>&-"],
    ids=["closed", "reader gone", "disk full", "reader goes", "all closed"],
)
def test_nothing_that_happens_to_stderr_ends_the_work(tmp_path: Path, redirect: str) -> None:
    code, out, survived = run(tmp_path, redirect)
    assert (code, survived) == (0, True)
    assert out == "to stdout ≤\n"
