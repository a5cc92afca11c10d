"""What there is: ``methods``, ``space``, ``models``, ``data`` and ``config``."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from difflib import get_close_matches
from typing import Annotated, Any

import typer

from search.commands.completion import complete_methods
from search.commands.options import DATA_FOLDER, Data, DataFolder, Json, Model
from search.commands.output import note, put_json, put_tables
from spaces.errors import InputError


def methods(as_json: Json = False) -> None:
    """List the pruning methods."""
    from methods import load_method, method_names
    from search.report.tables import methods_table

    kinds = {name: load_method(name) for name in method_names()}
    rows = [{"name": name, "title": kind.title, "source": kind.source} for name, kind in kinds.items()]
    if as_json:
        put_json(rows)
    else:
        put_tables(methods_table(rows))


def space(
    method: Annotated[
        str,
        typer.Argument(
            metavar="METHOD", show_default=False, autocompletion=complete_methods, help="Name of the method."
        ),
    ],
    model: Model = None,
    data: Data = None,
    data_root: DataFolder = DATA_FOLDER,
    as_json: Json = False,
) -> None:
    """Show the parameters of a method for a network: kind, range, choices, and when each applies."""
    from methods import load_method
    from search.report.tables import space_table

    kind = load_method(method)
    with redirect_stdout(sys.stderr):
        from search.tasks.layer_groups import layer_groups

        found = kind.space(layer_groups(model, data, data_root))
    if as_json:
        put_json([_join_range(entry) for entry in found.to_json()])
    else:
        put_tables(space_table(found, f"Search space of {method}"))


def models(
    part: Annotated[
        str | None,
        typer.Argument(
            metavar="PART", show_default=False, help="List torchvision's networks with this in the name, too."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the networks that can be named as MODEL, and the forms of other names."""
    from search.tasks.models.listing import list_models

    _put_list(list_models(part), "model", as_json)


def data(
    data_root: DataFolder = DATA_FOLDER,
    as_json: Json = False,
) -> None:
    """List the data sets that can be named as DATA, and the forms of other names."""
    from search.tasks.data.listing import list_data

    _put_list(list_data(data_root), "data", as_json)


def config(
    part: Annotated[
        str | None,
        typer.Argument(metavar="PART", show_default=False, help="Only keys with this in their name, such as finetune."),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """List every key of a configuration with its default and its meaning; --set and study.toml take them all."""
    from search.study.config import StudyConfig
    from search.study.keys import list_keys

    trained_on = data or StudyConfig().data
    keys = list_keys(StudyConfig, trained_on)
    found = [asdict(key) for key in keys if part is None or part in key.name]
    if not found:
        names = [name for key in keys for name in (key.name, key.name.rpartition(".")[2])]
        near = get_close_matches(part or "", names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"no key has {part!r} in its name; {hint}`paretoprune config` lists all")
    _put_list(found, "key", as_json)
    if not as_json and any(key["name"].startswith(("dense.", "finetune.")) for key in found):
        note(f"epochs and recipes are those for data {trained_on!r}; --data NAME shows those for other data")


def _put_list(rows: list[dict[str, str]], what: str, as_json: bool) -> None:
    """Rows as JSON or as a table; the first column is never cut."""
    from search.report.listed import ListedTable

    if as_json:
        put_json(rows)
        return
    put_tables(ListedTable("", [what, *list(rows[0])[1:]], [list(row.values()) for row in rows]))


def _join_range(entry: dict[str, Any]) -> dict[str, Any]:
    """A parameter with its bounds as one ``range``, ``null`` where it has none."""
    low, high = entry["low"], entry["high"]
    return entry | {"range": None if low is None else [low, high]}
