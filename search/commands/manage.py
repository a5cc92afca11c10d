"""Keeping studies in order: ``list``, ``check``, ``rename``, ``delete``, ``rerun``, ``mirror``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.commands.completion import complete_methods, complete_studies
from search.commands.options import DIRECTORY, OUTPUT, Directory, Json, Quiet, StudyStorage
from search.commands.output import note, put, put_json, put_tables
from search.commands.run import run_and_show
from spaces.errors import InputError

if TYPE_CHECKING:
    from search.driver.sweep import Sweep
    from search.records.listener import Listener
    from search.report.fitted import FittedTable
    from search.store.studies import StudyFiles

Name = Annotated[
    str,
    typer.Argument(metavar="STUDY", show_default=False, autocompletion=complete_studies, help="Name of the study."),
]


def list_studies(directory: Directory = DIRECTORY, as_json: Json = False) -> None:
    """List the studies of a store, oldest first."""
    from search.store.studies import StudyFiles, study_names

    rows = []
    for name in study_names(directory):
        try:
            files = StudyFiles(directory, name)
            status, described = files.status(), _describe_study(files)
        except InputError as error:
            note(f"warning: {error}")
            continue
        finished = status["total"] - status["states"]["waiting"] - len(status["running"])
        row = {"study": name, "finished": finished, "total": status["total"], "driver": status["driver"]}
        rows.append(row | described)
    if as_json:
        put_json(rows)
    elif rows:
        put_tables(_studies_table(rows))


def _describe_study(files: StudyFiles) -> dict[str, Any]:
    """When a study was begun, the best quality of its front, and the bytes that it takes."""
    front = files.front()
    best = front.pick("best").metrics[front.quality.name] if front.members else None
    return {
        "created": files.record().get("created"),
        "quality": front.quality.name,
        "best": best,
        "best_text": None if best is None else front.quality.format(best),
        "bytes": sum(path.stat().st_size for path in files.root.rglob("*") if path.is_file()),
    }


def _studies_table(rows: Sequence[Mapping[str, Any]]) -> FittedTable:
    """One row per study; the last columns go first where room is short."""
    from search.report.fitted import Column, FittedTable

    dates = [f"{datetime.fromtimestamp(row['created'], UTC):%Y-%m-%d %H:%M}" if row["created"] else "–" for row in rows]
    return FittedTable(
        "Studies",
        [
            Column("study", [row["study"] for row in rows], words=True),
            Column("trials", [f"{row['finished']}/{row['total']}" for row in rows]),
            Column("best", [row["best_text"] or "–" for row in rows]),
            Column("begun (UTC)", dates, 2),
            Column("size", [f"{row['bytes'] / 1e6:.1f} MB" for row in rows], 1),
            Column("", ["running" if row["driver"] else "" for row in rows], words=True),
        ],
    )


def enqueue(
    study: Name,
    method: Annotated[
        str,
        typer.Argument(
            metavar="METHOD", show_default=False, autocompletion=complete_methods, help="One of the study's methods."
        ),
    ],
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            show_default=False,
            help="Parameters by the method's own names; what is left out has the authors' value.",
        ),
    ] = None,
    directory: Directory = DIRECTORY,
    as_json: Json = False,
) -> None:
    """Have a point of your own tried next, before the sampler proposes further ones.

    Raises:
        InputError: If the point is not one of the study's space.
    """
    from search.store.studies import StudyFiles
    from search.study.config_file import read_value

    files = StudyFiles.open(directory, study)
    given = {}
    for text in values or ():
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"{text!r} is not of the form key=value, such as sparsity.flops=0.3")
        given[key.strip()] = read_value(value.strip())
    from search.driver.queueing import enqueue_point

    point, notes = enqueue_point(files, method, given)
    if as_json:
        put_json(point)
    else:
        shown = ", ".join(f"{name} = {value}" for name, value in point.items())
        put(f"queued in {files.name}: {shown}")
    for line in notes:
        note(line)


def check(study: Name, directory: Directory = DIRECTORY, as_json: Json = False) -> None:
    """Look whether a study is whole: files, weights, Optuna's database; nothing is written.

    Raises:
        typer.Exit: With code 1 if something is wrong.
    """
    from search.driver import keeping
    from search.store.studies import StudyFiles

    problems = keeping.check(StudyFiles.open(directory, study))
    if as_json:
        put_json({"study": study, "problems": problems})
    else:
        put("\n".join(problems) or f"study {study} is whole")
    if problems:
        raise typer.Exit(1)


def rename(
    study: Name,
    new: Annotated[str, typer.Argument(metavar="NEW", show_default=False, help="Its new name.")],
    directory: Directory = DIRECTORY,
) -> None:
    """Give a study another name."""
    from search.driver import keeping

    keeping.rename(directory, study, new)
    note(f"study {study} is now {new}; its MLflow run keeps the old name until the next resume")


def delete(
    study: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", rich_help_panel=OUTPUT)] = False,
    directory: Directory = DIRECTORY,
    study_storage: StudyStorage = None,
) -> None:
    """Remove a study, with its networks; its runs in MLflow stay."""
    from search.driver import keeping

    if not yes:
        typer.confirm(f"Remove study {study} of {directory} and all its networks?", abort=True, err=True)
    note(f"removed {' and '.join(keeping.delete(directory, study, study_storage))}; its runs in MLflow stay")


def rerun(
    study: Name,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", min=0, show_default=False, help="Number of the trial.")],
    directory: Directory = DIRECTORY,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a finished trial again, from the same point and seed, and go on with the study."""
    from search.driver import keeping
    from search.store.studies import StudyFiles

    files = StudyFiles.open(directory, study)
    keeping.give_up(files, trial)

    def continue_sweep(listener: Listener) -> Sweep:
        from search.driver.sweep import Sweep

        return Sweep.resume(files.name, directory, listener)

    run_and_show(continue_sweep, quiet, as_json)


def mirror(
    study: Name,
    to: Annotated[
        str | None,
        typer.Option(metavar="URI", show_default=False, help="MLflow store or server; the study's own if left out."),
    ] = None,
    directory: Directory = DIRECTORY,
) -> None:
    """Send a study to MLflow, whole, from its files; what is there already is not sent again.

    Raises:
        typer.Exit: With code 1 if something did not arrive.
    """
    from search.driver.mirror import mirror_study
    from search.store.studies import StudyFiles

    delivery = mirror_study(StudyFiles.open(directory, study), to)
    if delivery.warning is not None:
        note(f"warning: {delivery.warning}")
        raise typer.Exit(1)
    note(f"MLflow has all of study {study} ({delivery.sent} events sent)")
