"""How a failure ends the program: one sentence on stderr and an exit code.

0 is done, 1 failed, 2 usage or configuration, 130 interrupted.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from search.commands.interrupts import exit_code
from search.commands.output import note
from search.records.errors import StoreWarning
from search.store.files import LITTLE, is_of_full_disk
from spaces.errors import InputError

FAILED = 1
MISUSED = 2

FRAMEWORK = ("typer", "click")
"""Packages whose exceptions are the command line's own business: usage errors and exits."""

ROOMS = ("search", "methods", "spaces")
"""Packages whose errors say in a sentence what went wrong."""


@contextmanager
def report_failures(show_traceback: bool) -> Generator[None]:
    """Turn every exception of the block into a sentence and an exit code.

    Args:
        show_traceback: Print the traceback of a failure as well.

    Yields:
        Nothing; runs the block.

    Raises:
        typer.Exit: With the exit code of the failure.
    """
    try:
        with _shorten_warnings():
            yield
    except KeyboardInterrupt as interrupt:
        note("interrupted")
        raise typer.Exit(exit_code(interrupt)) from None
    except Exception as error:
        if _package(error) in FRAMEWORK:
            raise
        if show_traceback:
            traceback.print_exc()
        note(f"error: {_sentence(error, show_traceback)}")
        raise typer.Exit(MISUSED if isinstance(error, InputError) else FAILED) from None


@contextmanager
def _shorten_warnings() -> Generator[None]:
    """Say what is passed over in a run store in one line each, without the place in the code."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, StoreWarning):
                note(f"warning: {_join_lines(str(message))}")
            else:
                shown(message, category, *rest, **more)

        warnings.showwarning = show
        warnings.simplefilter("default", StoreWarning)
        yield


def _sentence(error: Exception, shown: bool) -> str:
    """Say what went wrong, and for the unexpected where the whole story is."""
    if (full := _find_full_disk(error)) is not None:
        return full
    if isinstance(error, InputError) or _package(error) in ROOMS:
        return _join_lines(str(error))
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    story = "" if shown else _write_traceback(error)
    return f"unexpected {type(error).__name__}: {_join_lines(str(error)) or 'no message'}{story}"


def _find_full_disk(error: BaseException) -> str | None:
    """Name the disk that is full, if that is what went wrong; libraries wrap the error in others of theirs."""
    cause: BaseException | None = error
    while cause is not None:
        if is_of_full_disk(cause):
            return _disk_sentence(getattr(cause, "filename", None))
        cause = cause.__cause__ or cause.__context__
    return None


def _disk_sentence(path: object) -> str:
    """Say which disk is full: the one of a file, or else whichever of the usual ones has no room."""
    candidates = [path] if isinstance(path, str | Path) else [os.getcwd(), tempfile.gettempdir()]
    for candidate in candidates:
        mount = Path(candidate).absolute()
        while not os.path.ismount(mount):
            mount = mount.parent
        free = shutil.disk_usage(mount).free
        if path is not None or free < LITTLE:
            return f"the disk of {mount} is full ({free // 2**20} MiB left); free some room, what is finished is kept"
    return "a disk is full; free some room, what is finished is kept"


def _write_traceback(error: Exception) -> str:
    """Write the whole story to a file, if that is possible, and say where it is."""
    try:
        handle, path = tempfile.mkstemp(prefix="paretoprune-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return "; --traceback prints the traceback"
    return f"; the traceback is in {path}"


def _package(error: Exception) -> str:
    return type(error).__module__.partition(".")[0]


def _join_lines(text: str) -> str:
    return " ".join(text.split())
