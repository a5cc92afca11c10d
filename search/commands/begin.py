"""Beginning a study: ``init`` writes a configuration to edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.commands.options import RUN, Data, DataRoot, Methods, Model, names
from search.commands.output import note, put
from spaces.errors import InputError


def init(
    file: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The file to write.")] = Path("study.toml"),
    model: Model = None,
    data: Data = None,
    data_root: DataRoot = None,
    methods: Methods = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.", rich_help_panel=RUN)
    ] = False,
) -> None:
    """Write a commented configuration for a network and data, to edit and to sweep."""
    from search.study.template import write_template

    text = write_template(model=model, data=data, data_root=data_root, methods=names(methods), folder=file.parent)
    _save(file, text, overwrite)
    put(str(file))
    note(f"look at what it would do: paretoprune sweep {file} --dry-run")


def _save(file: Path, text: str, overwrite: bool) -> None:
    """Write the file, unless one is there."""
    try:
        with file.open("w" if overwrite else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise InputError(f"{file} exists; choose another name, or replace it with --overwrite") from error
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from error
