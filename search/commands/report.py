"""A page about studies: ``report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.completion import complete_studies
from search.commands.options import DIRECTORY, OUTPUT, Directory
from search.commands.output import note, put
from spaces.errors import InputError

if TYPE_CHECKING:
    from search.fronts.off_the_shelf import OffTheShelf
    from search.report.study_view import StudyView
    from search.store.studies import StudyFiles


def report(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STUDY…",
            show_default=False,
            autocompletion=complete_studies,
            help="Names of studies; the latest if left out.",
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            show_default=False,
            help="Where to write it; report.html in the study's folder if left out.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.csv",
            show_default=False,
            help="Networks off the shelf beside the front, such as timm's results-imagenet.csv; may be repeated.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    directory: Directory = DIRECTORY,
) -> None:
    """Write one page about one study or several: front, widths, curves, importances, settings."""
    from search.fronts.off_the_shelf import read_tables
    from search.report.plots import save
    from search.report.study_page import study_page
    from search.store.studies import StudyFiles

    names: list[str | None] = [*dict.fromkeys(studies or [])] or [None]
    if to is not None and to.suffix.lower() != ".html":
        raise InputError(f"--to {str(to)!r}: a report is a page, its name must end in .html")
    opened = [StudyFiles.open(directory, name) for name in names]
    shelf = read_tables(beside) if beside else []
    page = study_page([_view(files, shelf) for files in opened])
    path = save(page, to or opened[0].root / "report.html")
    put(str(path))
    note(f"{len(page.encode()) / 1000:.0f} kB; open it in a browser, nothing is loaded from elsewhere")


def _view(files: StudyFiles, shelf: Sequence[OffTheShelf]) -> StudyView:
    from search.fronts.quantised import precisions
    from search.report.study_view import StudyView
    from search.store.quantised import read_quantised
    from search.store.reruns import read_confirmation
    from search.study.importances import parameter_importances
    from spaces import Space

    front, record = files.front(), files.record()
    # A study of an earlier version may hold no space; then nothing is said of what decides.
    space = Space.from_json(record["space"]) if "space" in record else None
    weights = {} if space is None else parameter_importances(space, front.outcomes, front.objectives)
    in_bits = precisions(front, read_quantised(files))
    return StudyView(front, files.outcomes(), record, weights, read_confirmation(files), in_bits, shelf)
