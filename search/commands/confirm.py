"""Whether a front is more than luck: ``confirm``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from search.commands.options import DIRECTORY, OUTPUT, RUN, Directory, Json, Quiet, Study
from search.commands.output import note, put_json, put_tables


def confirm(
    study: Study = None,
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N", help="Further seeds; at least 2. More add to those that are there.", rich_help_panel=RUN
        ),
    ] = 3,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Draw what all seeds, half of them and any of them reach, as .png, .svg or .pdf.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    directory: Directory = DIRECTORY,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Prune the front again with further seeds: means, intervals, which members stand, then the test set.

    What was interrupted goes on with the same command; the trials of the study stay as they are.
    """
    from search.driver.confirm import confirm as confirm_front
    from search.report.confirmation import confirmation_table
    from search.report.listeners import choose_listener
    from search.report.plots import check_still, confirmation_figure, save

    if plot is not None:
        check_still(plot)  # before hours are spent on seeds
    found = confirm_front(study, directory, seeds=seeds, listener=choose_listener(quiet, sys.stderr))
    if plot is not None:
        save(confirmation_figure(found), plot)
        if not quiet:
            note(f"plot: {plot}")
    if as_json:
        put_json(found.to_json())
    else:
        put_tables(confirmation_table(found))
        if not quiet:
            note(f"kept in {directory / 'studies' / found.front.study / 'confirmations'}")
