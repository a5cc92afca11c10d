"""Taking a network out of a study: ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.options import DIRECTORY, LIMITS, OUTPUT, Directory, Drop, Json, Pick, Study
from search.commands.output import note, put, put_json
from spaces.errors import InputError

if TYPE_CHECKING:
    from search.store.studies import StudyFiles


def export(
    to: Annotated[
        Path,
        typer.Option(metavar="DIR", show_default=False, help="Folder to write to.", rich_help_panel=OUTPUT),
    ],
    study: Study = None,
    trial: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", show_default=False, help="The network of this trial.", rich_help_panel=LIMITS),
    ] = None,
    pick: Pick = None,
    drop: Drop = 0.5,
    directory: Directory = DIRECTORY,
    as_json: Json = False,
) -> None:
    """Write one pruned network to a folder: weights, architecture, numbers, and how to load it."""
    from search.artefacts.export import export_member
    from search.objectives.units import write_percent
    from search.store.studies import StudyFiles

    files = StudyFiles.open(directory, study)
    record = export_member(files, _number(files, trial, pick, drop), to)
    if as_json:
        put_json(record)
    else:
        put(str(to))
        accuracy, cost = write_percent(record["accuracy"]), f"{100 * record['flops_share']:.1f} % of the dense FLOPs"
        note(f"trial {record['trial']}, {record['method']}: accuracy {accuracy} with {cost}")
        note(f"load it in Python: from paretoprune import rebuild; model = rebuild({str(to)!r})")


def _number(files: StudyFiles, trial: int | None, pick: str | None, drop: float) -> int:
    """The trial that was meant, by number or by rule."""
    if trial is not None and pick is None:
        return trial
    if pick is not None and trial is None:
        return files.front().pick(pick, drop).trial
    raise InputError("say which network with --trial N or with --pick knee|best|cheapest, one of the two")
