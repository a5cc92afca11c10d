"""What there is: ``methods`` and ``space``."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from search.commands.options import SEARCH, Data, Json, Model
from search.commands.output import put_json, put_tables


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
    method: Annotated[str, typer.Argument(metavar="METHOD", show_default=False, help="Name of the method.")],
    model: Model = None,
    data: Data = None,
    data_root: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Where data sets lie or are downloaded to.", rich_help_panel=SEARCH),
    ] = Path("data"),
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
        put_json([_with_range(entry) for entry in found.to_json()])
    else:
        put_tables(space_table(found, f"Search space of {method}"))


def _with_range(entry: dict[str, Any]) -> dict[str, Any]:
    """A parameter with its bounds as one ``range``, ``null`` where it has none."""
    low, high = entry["low"], entry["high"]
    return entry | {"range": None if low is None else [low, high]}
