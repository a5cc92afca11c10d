"""Where words go: data to stdout and nothing else there, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

FILE_COLUMNS = 120
"""Width of what is written to files and pipes, unless ``COLUMNS`` says otherwise; a terminal decides for itself."""


def note(text: str) -> None:
    """Tell the user something that is not data.

    Args:
        text: One or more lines, for stderr.
    """
    print(text, file=sys.stderr, flush=True)


def put(text: str) -> None:
    """Write data to stdout.

    Args:
        text: One or more lines.
    """
    with _patient_stdout():
        print(text, flush=True)


def put_json(data: object) -> None:
    """Write data to stdout as JSON.

    Args:
        data: What ``json.dumps`` accepts; NaN and infinities are refused.
    """
    put(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def put_tables(*tables: RenderableType) -> None:
    """Write tables to stdout, in colour where it is a terminal that wants it.

    Args:
        *tables: What rich can print.
    """
    from rich.console import Console

    asked = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()  # which rich reads by itself
    console = Console(file=sys.stdout, width=None if asked else FILE_COLUMNS)
    with _patient_stdout():
        console.print(*tables, sep="\n")
        sys.stdout.flush()


@contextmanager
def _patient_stdout() -> Generator[None]:
    """End quietly when the reader has seen enough (``| head``)."""
    try:
        yield
    except BrokenPipeError:
        # What is still in the buffer must not fail again when Python closes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
