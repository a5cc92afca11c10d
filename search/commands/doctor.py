"""Knowing whether a network can be pruned, before any training: ``doctor``."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from search.commands.completion import complete_method_lists
from search.commands.options import DATA_FOLDER, SEARCH, Data, DataFolder, Json, Network, Quiet, names
from search.commands.output import note, put_json, put_tables
from spaces import InputError


def doctor(
    model: Network,
    data: Data = None,
    data_root: DataFolder = DATA_FOLDER,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            show_default=False,
            autocompletion=complete_method_lists,
            help="Methods that are asked whether they apply.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Prove what can be pruned in a network, by cutting it, and say what stays whole and why."""
    with redirect_stdout(sys.stderr):
        from methods import load_method
        from search.driver.doctor import doctor as diagnose
        from search.records.errors import RunError
        from search.report.diagnosis import diagnosis_tables
        from search.tasks.layer_groups import network_and_steps

        asked = None if methods is None else names(methods)
        for name in asked or ():
            load_method(name)  # a wrong name is the user's mistake, not the network's
        network, example, steps = network_and_steps(model, data, data_root)
        try:
            progress = (lambda said: None) if quiet else note
            found = diagnose(network, example, asked, name=model, progress=progress, steps=steps)
        except InputError as error:
            raise RunError(f"{model} cannot be pruned: {error}") from error
    if as_json:
        put_json(found.to_json())
    else:
        put_tables(*diagnosis_tables(found.to_json()))
