"""Looking at studies: ``status``, ``front``, ``show``, ``compare``. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.commands.completion import complete_methods, complete_studies
from search.commands.options import (
    DIRECTORY,
    LIMITS,
    OUTPUT,
    Directory,
    Drop,
    Json,
    Pick,
    Study,
    StudyAndTrial,
    study_and_trial,
)
from search.commands.output import note, put, put_json, put_tables
from spaces.errors import InputError

if TYPE_CHECKING:
    from search.fronts.front import Front


def status(
    study: Study = None,
    every: Annotated[bool, typer.Option("--all", help="All studies, oldest first.", rich_help_panel=LIMITS)] = False,
    directory: Directory = DIRECTORY,
    as_json: Json = False,
) -> None:
    """Show how many trials are complete, failed, running and waiting."""
    from search.report.tables import status_table
    from search.store.studies import StudyFiles, study_names

    _refuse_both("STUDY", study is not None, "--all", every)
    rows = (
        list(_yield_readable(directory, study_names(directory)))
        if every
        else [StudyFiles.open(directory, study).status()]
    )
    if as_json:
        put_json(rows if every else rows[0])
    else:
        put_tables(status_table(rows))


def front(
    study: Study = None,
    max_flops: Annotated[
        str | None,
        typer.Option(
            metavar="LIMIT",
            show_default=False,
            help="At most these FLOPs: 50% of the dense network's, or a count such as 20M.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    min_accuracy: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            show_default=False,
            help="At least this validation accuracy: 0.95 or 95%.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    max_params: Annotated[
        str | None,
        typer.Option(
            metavar="LIMIT", show_default=False, help="At most these parameters: 30% or 20k.", rich_help_panel=LIMITS
        ),
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            show_default=False,
            help="At most this measured latency: 2ms, 350us or 50% of the dense network's.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="NAME<=VALUE",
            show_default=False,
            help="A limit on anything measured, such as 'predicted_damage<=0.1' or 'mean_iou>=60%'; may be repeated.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            autocompletion=complete_methods,
            help="Networks of this method alone.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    denoised: Annotated[
        bool,
        typer.Option(
            "--denoised",
            help="By what the search's model expects of each network, not by what was measured once.",
            rich_help_panel=LIMITS,
        ),
    ] = False,
    pick: Pick = None,
    drop: Drop = 0.5,
    sort: Annotated[
        str,
        typer.Option(
            metavar="KEY",
            help="Order of the rows: flops, accuracy, any other measurement, efficiency, method or trial.",
            rich_help_panel=OUTPUT,
        ),
    ] = "flops",
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False, help="Draw it as .png, .svg, .pdf or .html.", rich_help_panel=OUTPUT
        ),
    ] = None,
    directory: Directory = DIRECTORY,
    as_json: Json = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, the dense network first.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Show the Pareto front: the networks that no other one beats in all objectives."""
    from search.fronts.quantised import precisions
    from search.report.quantised import precision_table
    from search.report.tables import front_table
    from search.store.quantised import read_quantised
    from search.store.studies import StudyFiles, load_front

    _refuse_both("--json", as_json, "--csv", as_csv)
    whole, by_model = load_front(study, directory), None
    if denoised:
        from search.fronts.denoised import denoise
        from spaces import Space

        record = StudyFiles.open(directory, study).record()
        if "space" not in record:
            raise InputError(f"study {whole.study!r} was begun by an earlier version, which did not keep its space")
        by_model = denoise(whole, Space.from_json(record["space"]), record["task"].get("validation_examples"))
        whole = by_model.front
    shown = whole.filter(max_flops, min_accuracy, max_params, method, max_latency, limit or ())
    members = shown.sort(sort) if pick is None else (shown.pick(pick, drop),)
    if plot is not None:
        _draw(shown, plot)
    in_bits = precisions(shown, read_quantised(StudyFiles.open(directory, study)))
    if as_json:
        told: dict[str, Any] = {"precisions": [each.to_json() for each in in_bits]} if in_bits else {}
        if by_model is not None:
            told["denoised"] = by_model.to_json()
        put_json(shown.to_json(members) | told)
    elif as_csv:
        put(shown.to_csv(members).rstrip("\n"))
    else:
        put_tables(front_table(shown, members), *([precision_table(shown, in_bits)] if in_bits else []))
        if by_model is not None:
            note(by_model.describe())


def show(
    words: StudyAndTrial,
    directory: Directory = DIRECTORY,
    as_json: Json = False,
) -> None:
    """Show everything about one trial: parameters, measurements, channels kept, or why it failed."""
    from search.report.tables import trial_panel
    from search.store.studies import StudyFiles

    study, trial = study_and_trial(words)
    files = StudyFiles.open(directory, study)
    outcome = files.outcome(trial)
    if as_json:
        put_json({"study": files.name} | outcome.to_json())
    else:
        put_tables(trial_panel(outcome, files.dense(), files.objectives(), files.metrics()))


def compare(
    studies: Annotated[
        list[str],
        typer.Argument(metavar="STUDY STUDY…", autocompletion=complete_studies, help="Names of two or more studies."),
    ],
    directory: Directory = DIRECTORY,
    as_json: Json = False,
) -> None:
    """Set studies beside each other: hypervolume, and best accuracy at shares of the dense FLOPs."""
    from search.report.tables import compare_rows, compare_table
    from search.store.studies import load_front

    fronts = [load_front(name, directory) for name in _require_several(studies)]
    _warn_of_differences(directory, studies)
    if as_json:
        put_json(compare_rows(fronts))
    else:
        put_tables(compare_table(fronts))


def _warn_of_differences(directory: Path, studies: Sequence[str]) -> None:
    """Say where studies are not about the same network and data as the first one."""
    from search.store.studies import StudyFiles

    first, *others = (StudyFiles(directory, name).record().get("identity", {}) for name in studies)
    for name, other in zip(studies[1:], others, strict=True):
        known = first.keys() & other.keys() - {"answers"}
        found = [part for part in ("network", "training data", "validation data") if part in known]
        found = [part for part in found if first[part] != other[part]]
        if found:
            note(f"warning: studies {studies[0]} and {name} differ in {', '.join(found)}; their numbers do not compare")


def _yield_readable(directory: Path, names: Sequence[str]) -> Generator[dict[str, Any]]:
    """Sum up each study; one whose record is damaged is passed over with a warning."""
    from search.store.studies import StudyFiles

    for name in names:
        try:
            yield StudyFiles(directory, name).status()
        except InputError as error:
            note(f"warning: {error}")


def _draw(front: Front, path: Path) -> None:
    from search.report.plots import save_front

    save_front(front, path)
    note(f"plot: {path}")


def _require_several(studies: list[str]) -> list[str]:
    if len(studies) < 2:
        raise InputError(f"compare needs at least two studies, given: {studies[0]}")
    return studies


def _refuse_both(first: str, first_given: bool, second: str, second_given: bool) -> None:
    if first_given and second_given:
        raise InputError(f"give {first} or {second}, not both")
