"""Comparing methods: ``league``."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from search.commands import options
from search.commands.options import OUTPUT, RUN, SEARCH
from search.commands.output import note, put, put_json
from spaces.errors import InputError


def league(
    file: options.File = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default=False, help="Name of the league.", rich_help_panel=SEARCH),
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(
            metavar="A,B[X=1]",
            show_default=False,
            help="Methods that compete beside the controls, with commas; settings in brackets, such as "
            "'increg[preset=paper]'. The configuration's methods if left out.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="How many seeds.", rich_help_panel=SEARCH)] = 3,
    own_dense: Annotated[
        bool,
        typer.Option(
            "--own-dense", help="Train a dense network for every seed, so that intervals know of its chance as well."
        ),
    ] = False,
    model: options.Model = None,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    overrides: options.Overrides = None,
    directory: options.OptionalDirectory = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="N",
            show_default=False,
            help="Begin no row after so many minutes, and pause at the next epoch; the same command goes on with the "
            "rest.",
            rich_help_panel=RUN,
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Rows at a time.", rich_help_panel=RUN)] = 1,
    check: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Run so many kept rows again and compare them.", rich_help_panel=RUN),
    ] = 0,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False, help="Only make the table of this CSV.", rich_help_panel=OUTPUT
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Write the table here, and its CSV beside it.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Compare methods over seeds at the same shares of the FLOPs, budget and recipe, with controls."""
    from search.records.league import read_csv, write_csv
    from search.report.league import league_table
    from search.store.files import write_atomically

    failed_checks = 0
    if csv is not None:
        if not csv.is_file():
            raise InputError(f"{csv} is no file")
        rows, about = read_csv(csv.read_text(encoding="utf-8"), str(csv))
    else:
        from search.study.config_file import load_config

        config = load_config(
            file, overrides or (), name=name, model=model, data=data, data_root=data_root, directory=directory
        )
        if config.name is None:
            raise InputError("a league needs a name, by which it is gone on with: --name NAME")
        with redirect_stdout(sys.stderr):
            from search.driver.arms import split_outside
            from search.driver.league import League

            wanted = list(config.methods) if arms is None else split_outside(arms)
            job = League(config, wanted, config.name, seeds, own_dense, say=note)
            if check:
                failed_checks = len(job.check(check))
                rows = job.rows()
            else:
                rows = job.run(float("inf") if minutes is None else minutes, workers)
                if not job.complete:
                    note(f"{len(rows)} rows are there; the same command goes on with those that are missing")
            about = job.describe()
    table = league_table(rows, about)
    if to is not None:
        write_atomically(to, table)
        if csv is None:
            write_atomically(to.with_suffix(".csv"), write_csv(rows, about))
        note(f"table: {to}")
    if as_json:
        from search.records.league import COLUMNS

        put_json({
            "about": about,
            "rows": [{column: _convert_nan(getattr(row, column)) for column in COLUMNS} for row in rows],
        })
    elif to is None:
        put(table)
    if failed_checks:
        raise typer.Exit(1)


def _convert_nan(value: object) -> object:
    """Return a value of JSON: NaN is nothing."""
    return None if isinstance(value, float) and value != value else value
