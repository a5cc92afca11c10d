"""What is said of a sweep when it is over: how it went, and how to go on."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from search.commands.options import DIRECTORY
from search.records.text import remove_credentials

if TYPE_CHECKING:
    from search.driver.sweep import Sweep
    from search.fronts.front import Front

PICTURES = (".png", ".html")


def summary(sweep: Sweep) -> list[str]:
    """Say how long a sweep took, what failed, where the pictures are, and how to look at the runs.

    Args:
        sweep: A sweep that has run.

    Returns:
        Lines of text.
    """
    from search.objectives.units import write_duration

    facts: list[tuple[str, str]] = []
    if sweep.summary is not None:
        told = sweep.summary
        shares = {"trials": told.share("trials"), "dense network": told.share("dense")}
        shares |= {"exports": told.share("exports")} if told.busy["exports"] else {}
        spent = ", ".join(f"{what} {share:.0%}" for what, share in {**shares, "overhead": told.overhead}.items())
        facts.append(("time", f"{write_duration(told.seconds)}; of the workers' time: {spent}"))
        pictures = [_shorten_path(path) for path in sweep.summary.files.values() if path.suffix in PICTURES]
        if pictures:  # of several drivers of a study one draws
            facts.append(("plots", "  ".join(pictures)))
    if failed := _list_failed(sweep):
        first = command_line("show", sweep.name, failed[0], directory=sweep.config.directory)
        facts.append(("failed", f"trials {', '.join(map(str, failed))}; why: {first}"))
    page = command_line(
        "ui",
        directory=sweep.config.directory,
        tracking_uri=remove_credentials(uri) if (uri := sweep.config.tracking_uri) else None,
    )
    facts.append(("ui", page))
    return [f"{name:<8}{text}" for name, text in facts]


def resume_hint(sweep: Sweep) -> str:
    """Say how to go on with a sweep that ended before its time.

    Args:
        sweep: The sweep.

    Returns:
        The end of a sentence; empty if the sweep has not begun to keep anything.
    """
    if not _has_begun_to_keep(sweep):
        return ""
    command = command_line("resume", sweep.name, directory=sweep.config.directory)
    return f"; finished trials are kept, go on with: {command}"


def front_so_far(sweep: Sweep) -> Front | None:
    """Read the front of a sweep that ended before its time.

    Args:
        sweep: The sweep.

    Returns:
        The front of what was finished; ``None`` if there is nothing on it.
    """
    from search.store.studies import load_front

    front = load_front(sweep.name, sweep.config.directory) if _has_begun_to_keep(sweep) else None
    return front if front is not None and front.members else None


def _has_begun_to_keep(sweep: Sweep) -> bool:
    """Whether the sweep has begun to keep anything."""
    from search.store.studies import study_names

    return sweep.name is not None and sweep.name in study_names(sweep.config.directory)


def _list_failed(sweep: Sweep) -> list[int]:
    from search.store.studies import StudyFiles

    outcomes = StudyFiles.open(sweep.config.directory, sweep.name).outcomes()
    return [outcome.number for outcome in outcomes if not outcome.complete]


def command_line(*words: object, directory: Path, tracking_uri: str | None = None) -> str:
    """Write a command line that can be pasted into the shell; what is the default is left out.

    Args:
        *words: The command and its arguments.
        directory: The store that it is about.
        tracking_uri: The MLflow store, where it is not the directory's.

    Returns:
        The line, quoted where need be.
    """
    parts = ["paretoprune", *map(str, words)]
    if directory.resolve() != DIRECTORY.resolve():
        parts += ["--directory", _shorten_path(directory)]
    if tracking_uri is not None:
        parts += ["--tracking-uri", tracking_uri]
    return shlex.join(parts)


def _shorten_path(path: Path) -> str:
    """The path from here, or in full where that is shorter."""
    return min(os.path.relpath(path), str(path), key=len)
