"""Whether a front is more than luck: ``confirm``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from search.commands.options import DIRECTORY, RUN, Directory, Json, Quiet, Study
from search.commands.output import note, put_json, put_tables


def confirm(
    study: Study = None,
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N", help="Further seeds; at least 2. More add to those that are there.", rich_help_panel=RUN
        ),
    ] = 3,
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

    found = confirm_front(study, directory, seeds=seeds, listener=choose_listener(quiet, sys.stderr))
    if as_json:
        put_json(found.to_json())
    else:
        put_tables(confirmation_table(found))
        if not quiet:
            note(f"kept in {directory / 'studies' / found.front.study / 'confirmations'}")
