from __future__ import annotations

import errno
import warnings

import pytest
import typer

from search.commands.failures import report_failures
from search.records.errors import RunError, StoreWarning
from spaces import InputError


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (InputError("no\nsuch thing"), 2, "error: no such thing"),
        (RunError("gone"), 1, "error: gone"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 1, "error: /x/y: Permission denied"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/proc/x"),
            1,
            "error: the disk of /proc is full (0 MiB left",
        ),
    ],
)
def test_a_failure_is_a_sentence_and_a_code(
    error: Exception, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as exit_, report_failures(show_traceback=False):
        raise error
    assert exit_.value.exit_code == code
    assert capsys.readouterr().err.startswith(sentence)


def test_a_full_disk_is_named_however_a_library_wraps_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), report_failures(show_traceback=False):
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/proc/self/x")
        except OSError as error:
            raise RuntimeError("a paragraph of SQL") from error
    assert "the disk of /proc is full" in capsys.readouterr().err


def test_what_is_passed_over_in_a_store_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with report_failures(show_traceback=False):
        warnings.warn("x.json is damaged\n; do this", StoreWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: x.json is damaged ; do this\n"
