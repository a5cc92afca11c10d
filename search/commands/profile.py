"""Knowing where pruning pays before any training: ``profile``."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from search.commands.options import DATA_FOLDER, OUTPUT, RUN, SEARCH, Data, DataFolder, Json, Network
from search.commands.output import note, put_json, put_tables


def profile(
    model: Network,
    data: Data = None,
    data_root: DataFolder = DATA_FOLDER,
    target: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="cpu, cpu-compiled, cuda, cuda-eager, onnxruntime or openvino.",
            rich_help_panel=RUN,
        ),
    ] = "cpu",
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Inputs in one forward pass.", rich_help_panel=RUN)
    ] = 1,
    threads: Annotated[int, typer.Option(min=1, metavar="N", help="Threads on the CPU.", rich_help_panel=RUN)] = 1,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Memory layout with channels last.", rich_help_panel=RUN)
    ] = False,
    round_to: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Widths left by a cut are multiples of this.", rich_help_panel=SEARCH),
    ] = 1,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Draw it as .png, .svg or .pdf.", rich_help_panel=OUTPUT),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show where a network spends FLOPs and time, and what cutting each layer's channels would buy of both."""
    from search.report.plots import check_still, save
    from search.report.profile import profile_figure, profile_table
    from search.speed.conditions import Conditions, check_devices, validate_targets

    if plot is not None:
        check_still(plot)  # before minutes are spent on measuring
    setting = Conditions(validate_targets([target]), batch_size, threads, channels_last)
    with redirect_stdout(sys.stderr):
        check_devices(setting.targets)
        from search.speed import profile as timing
        from search.tasks.layer_groups import network_and_example

        network, example = network_and_example(model, data, data_root)
        found = timing.profile(network, example, setting, round_to)
    if plot is not None:
        save(profile_figure(found, model), plot)
        note(f"plot: {plot}")
    if as_json:
        put_json({"model": model} | found.to_json())
    else:
        put_tables(profile_table(found, model))
