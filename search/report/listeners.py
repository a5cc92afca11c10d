"""How progress is shown: a live display on a terminal, an output that renews itself in a notebook, else lines."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from search.records.listener import Listener
from search.report.progress import Lines, Warnings

PLAIN_TERMINALS = ("dumb", "unknown")


def choose_listener(quiet: bool = False, stream: TextIO | None = None) -> Listener:
    """Choose how progress is shown.

    Args:
        quiet: Show warnings alone.
        stream: Where to write; ``None`` is stderr. Data goes to stdout, so nothing is written there.

    Returns:
        A live display where the stream is a terminal that can move its cursor; in a notebook one output that renews
        itself; else a listener that writes lines.
    """
    if stream is None and not quiet and is_in_notebook():
        from search.report.notebook import NotebookProgress

        return NotebookProgress()
    stream = sys.stderr if stream is None else stream
    if quiet:
        return Warnings(stream)
    # The stream is asked, not rich: a log file must stay free of control codes even under FORCE_COLOR.
    if stream.isatty() and os.environ.get("TERM", "").lower() not in PLAIN_TERMINALS:
        from rich.console import Console

        from search.report.live import Display

        return Display(Console(file=stream))
    return Lines(stream)


def is_in_notebook() -> bool:
    """Tell whether this process is the kernel of a notebook.

    Returns:
        Whether IPython runs here and shows rich output; it is not imported for the question.
    """
    shell = sys.modules.get("IPython")
    running = None if shell is None else shell.get_ipython()
    return running is not None and getattr(running, "kernel", None) is not None
