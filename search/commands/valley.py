"""Whether pruning stayed in the valley of the dense network: ``valley``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.options import DIRECTORY, OUTPUT, RUN, Directory, Json, Quiet, StudyAndTrial, study_and_trial
from search.commands.output import note, put_json, put_tables

if TYPE_CHECKING:
    from methods.training.paths import Paths
    from search.report.fitted import FittedTable


def valley(
    words: StudyAndTrial,
    points: Annotated[
        int,
        typer.Option(
            min=2,
            metavar="N",
            help="Points of either way; each costs two passes over the training data.",
            rich_help_panel=RUN,
        ),
    ] = 21,
    steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            show_default=False,
            help="Steps of training of the curve; half of a trial's budget if left out.",
            rich_help_panel=RUN,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Decides everything random.", rich_help_panel=RUN)] = 0,
    plot: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to draw: .png, .svg or .pdf.", rich_help_panel=OUTPUT)
    ] = Path("valley.png"),
    directory: Directory = DIRECTORY,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure the training loss between the dense network and a trial's: on a line, and on a curve that is trained."""
    from search.driver.valley import trial_valley
    from search.report.listeners import choose_listener
    from search.report.plots import check_still, save
    from search.report.valley import valley_figure
    from search.store.studies import StudyFiles

    study, trial = study_and_trial(words)
    check_still(plot)
    files = StudyFiles.open(directory, study)
    outcome = files.outcome(trial)
    listener = choose_listener(quiet, sys.stderr)
    try:
        paths = trial_valley(files, trial, listener, points, steps, seed)
    finally:
        listener.close()
    save(valley_figure(paths.profiles, f"Trial {trial} · {outcome.method}", ("dense", "pruned")), plot)
    if as_json:
        profiles = {name: [list(pair) for pair in pairs] for name, pairs in paths.profiles.items()}
        put_json({"study": files.name, "trial": trial, **paths.numbers, "profiles": profiles})
    else:
        put_tables(_table(paths))
    if not quiet:
        note(f"plot: {plot}")


def _table(paths: Paths) -> FittedTable:
    """One row per way."""
    from search.report.fitted import Column, FittedTable

    ways = (paths.line, paths.curve)
    losses = [[way.losses[0], way.losses[-1], max(way.losses), way.barrier] for way in ways]
    columns = [Column("way", ["straight line", "trained curve"], words=True)]
    for name, numbers in zip(("dense", "pruned", "largest", "barrier"), zip(*losses, strict=True), strict=True):
        columns.append(Column(name, [f"{number:.4f}" for number in numbers]))
    return FittedTable("training loss", columns)
