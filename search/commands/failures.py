"""How a failure ends the program: one sentence on stderr and an exit code.

0 is done, 1 failed, 2 usage or configuration, 130 interrupted.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Generator
from contextlib import contextmanager

import typer

from search.commands.output import note
from spaces.errors import InputError

FAILED = 1
MISUSED = 2
INTERRUPTED = 130

FRAMEWORK = ("typer", "click")
"""Packages whose exceptions are the command line's own business: usage errors and exits."""

ROOMS = ("search", "methods", "spaces")
"""Packages whose errors say in a sentence what went wrong."""


@contextmanager
def reported(show_traceback: bool) -> Generator[None]:
    """Turn every exception of the block into a sentence and an exit code.

    Args:
        show_traceback: Print the traceback of a failure as well.

    Yields:
        Nothing; runs the block.

    Raises:
        typer.Exit: With the exit code of the failure.
    """
    try:
        yield
    except KeyboardInterrupt:
        note("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if _package(error) in FRAMEWORK:
            raise
        if show_traceback:
            traceback.print_exc()
        note(f"error: {_sentence(error, show_traceback)}")
        raise typer.Exit(MISUSED if isinstance(error, InputError) else FAILED) from None


def _sentence(error: Exception, shown: bool) -> str:
    """Say what went wrong, and for the unexpected where the whole story is."""
    if isinstance(error, InputError) or _package(error) in ROOMS:
        return _one_line(str(error))
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    story = "" if shown else f"; the traceback is in {_write_traceback(error)}"
    return f"unexpected {type(error).__name__}: {_one_line(str(error)) or 'no message'}{story}"


def _write_traceback(error: Exception) -> str:
    handle, path = tempfile.mkstemp(prefix="paretoprune-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
    return path


def _package(error: Exception) -> str:
    return type(error).__module__.partition(".")[0]


def _one_line(text: str) -> str:
    return " ".join(text.split())
