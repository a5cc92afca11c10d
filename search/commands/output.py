"""Where words go: data to stdout and nothing else there, everything else to stderr.

Nothing that happens to stderr ends the work: a reader that has gone away, a log file on a full disk, a terminal that
cannot show a character.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import typer

from search.records.text import strip_control_characters

if TYPE_CHECKING:
    from rich.console import RenderableType

FILE_COLUMNS = 120
"""Width of what is written to files and pipes, unless ``COLUMNS`` says otherwise; a terminal decides for itself."""


_PLAIN = str.maketrans({
    "≤": "<=", "≥": ">=", "×": "x", "·": "-", "–": "-", "—": "-", "…": "...", "’": "'", "→": "->", "±": "+-", "²": "2"
})  # fmt: skip


class PatientStream:
    """A text stream whose failures are not passed on; everything else is the stream's own.

    What cannot be written is lost: after a reader has gone away all of it, on a full disk until there is room again.

    Args:
        stream: The stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write if that is possible.

        Args:
            text: What to write.

        Returns:
            Number of characters of the text.
        """
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Flush if that is possible."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def prepare_streams() -> None:
    """Make the process's streams fit for long work; called once, before anything is opened.

    Streams that the caller has closed are opened on the null device, since a database that gets number 2 would
    receive what libraries write to stderr. Characters that a terminal's encoding lacks are replaced by plain ones.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)  # takes the lowest number that is free
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)
    codecs.register_error("paretoprune", _replace_unencodable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="paretoprune")
    sys.stderr = PatientStream(sys.stderr)


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that cannot be encoded: an error handler of :mod:`codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return "".join(letter if letter.isascii() else "?" for letter in text), error.end


def note(text: str) -> None:
    """Tell the user something that is not data.

    Args:
        text: One or more lines, for stderr.
    """
    print(strip_control_characters(text), file=sys.stderr, flush=True)


def put(text: str) -> None:
    """Write data to stdout.

    Args:
        text: One or more lines.
    """
    with _end_with_reader():
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
    with _end_with_reader():
        console.print(*tables, sep="\n")
        sys.stdout.flush()


@contextmanager
def _end_with_reader() -> Generator[None]:
    """End quietly when the reader has seen enough (``| head``)."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: the terminal has gone
            raise
        # What is still in the buffer must not fail again when Python closes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
