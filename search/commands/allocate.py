"""The best widths for a budget, before any trial: ``allocate``."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from search.commands import options
from search.commands.options import OUTPUT, RUN, SEARCH
from search.commands.output import note, put_json, put_tables


def allocate(
    file: options.File = None,
    of: Annotated[
        str,
        typer.Option(
            metavar="flops|params|latency",
            help="What the budgets are of.",
            rich_help_panel=SEARCH,
        ),
    ] = "flops",
    budgets: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            show_default=False,
            help="Shares of the dense network, counts or times, such as 50%,20M or 2ms; 90% to 10% if left out.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    blocks: Annotated[
        bool,
        typer.Option("--blocks", help="Let residual blocks go as a whole, too.", rich_help_panel=SEARCH),
    ] = False,
    model: options.Model = None,
    weights: options.Weights = None,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    seed: options.Seed = None,
    overrides: options.Overrides = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="Where times are measured: cpu, cuda, onnxruntime, openvino, ...; cpu if left out.",
            rich_help_panel=RUN,
        ),
    ] = None,
    directory: options.OptionalDirectory = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False, help="Write everything here, as JSON.", rich_help_panel=OUTPUT
        ),
    ] = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Find the widths of least damage for budgets of FLOPs, parameters or time, before any trial."""
    from search.report.listeners import choose_listener
    from search.store.files import write_json
    from search.study.config_file import load_config
    from search.tasks.named_tasks import load_task

    words = [
        *(overrides or ()),
        *(["blocks=true"] if blocks else []),
        *([] if target is None else [f'latency.targets=["{target}"]']),
    ]
    config = load_config(
        file, words, model=model, weights=weights, data=data, data_root=data_root, seed=seed, directory=directory
    )
    listener = choose_listener(quiet, sys.stderr)
    with redirect_stdout(sys.stderr):
        try:
            from search.driver.allocate import allocate as find
            from search.report.allocation import allocation_table

            found = find(config, of, [each.strip() for each in (budgets or "").split(",") if each.strip()], listener)
        finally:
            listener.close()
    if to is not None:
        write_json(to, found.to_json())
        note(f"widths: {to}")
    if as_json:
        put_json(found.to_json())
    else:
        put_tables(allocation_table(found, config.model, load_task(config.task, config.task_options)))
