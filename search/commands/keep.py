"""Taking networks out of a study: ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.commands.failures import FAILED
from search.commands.options import DIRECTORY, LIMITS, OUTPUT, Directory, Drop, Json, Pick, Study, names
from search.commands.output import note, put, put_json, put_tables
from spaces.errors import InputError

if TYPE_CHECKING:
    from search.report.fitted import FittedTable
    from search.store.studies import StudyFiles


def export(
    study: Study = None,
    trial: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", show_default=False, help="The network of this trial.", rich_help_panel=LIMITS),
    ] = None,
    pick: Pick = None,
    drop: Drop = 0.5,
    every: Annotated[
        bool,
        typer.Option("--all", help="Every network on the front, each in a folder of its own.", rich_help_panel=LIMITS),
    ] = False,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="A,B",
            help="pt2 (torch.export), onnx, safetensors (weights and widths), with commas.",
            rich_help_panel=OUTPUT,
        ),
    ] = "pt2,onnx,safetensors",
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Add the ONNX graph in 8 bits, calibrated and measured.", rich_help_panel=OUTPUT),
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", show_default=False, help="Folder to write to.", rich_help_panel=OUTPUT),
    ] = None,
    register: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="Register the network in MLflow under this name; --to may be left out then.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    alias: Annotated[
        str | None,
        typer.Option(
            metavar="ALIAS",
            show_default=False,
            help="With --register: what the version is called from now on, such as champion.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    hub: Annotated[
        str | None,
        typer.Option(
            metavar="USER/NAME",
            show_default=False,
            help="Write a folder for this repository of the Hugging Face Hub; into NAME without --to.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    push: Annotated[
        bool,
        typer.Option("--push", help="With --hub: send it there; nothing is sent otherwise.", rich_help_panel=OUTPUT),
    ] = False,
    directory: Directory = DIRECTORY,
    as_json: Json = False,
) -> None:
    """Write pruned networks to folders: programs that run anywhere, weights, and a card with the numbers.

    Every program is run in a clean process, without this package and without your code, and compared with the network.
    """
    from search.artefacts.export import export_members
    from search.store.studies import StudyFiles

    wanted = _formats(formats)
    files = StudyFiles.open(directory, study)
    repository = _repository(hub, push, every)
    if repository is not None and to is None:
        to = Path(repository.partition("/")[2])
    numbers = _numbers(files, trial, pick, drop, every)
    if register is not None or alias is not None:
        _register(files, numbers, register, alias, every)
        if to is None:
            return
    folders = _folders(numbers, to, every)
    _check_int8(int8, wanted)
    cards = export_members(files, folders, wanted)
    if int8:
        from search.driver.networks import add_quantised

        cards = add_quantised(files, list(folders.values()))
    if repository is not None:
        from search.artefacts.hub import write_hub_files

        write_hub_files(folders[numbers[0]], cards[0], repository)
    if as_json:
        put_json(cards if every else cards[0])
    else:
        put_tables(_table(cards))
        page = "card.md" if repository is None else "README.md"
        note(f"written to {to}{'/NNNN' if every else ''}; {page} says how to load each format")
    if push and repository is not None:
        from search.artefacts.hub import push as send

        put(send(folders[numbers[0]], repository))
    _fail_if_lost(cards)


def _formats(text: str) -> tuple[str, ...]:
    """The formats that were asked for."""
    from search.records.formats import FORMATS, check_formats

    wanted = check_formats(names(text) or ())
    if not wanted:
        raise InputError(f"--format names no format; choose from {', '.join(FORMATS)}")
    return wanted


def _repository(hub: str | None, push: bool, every: bool) -> str | None:
    """The repository of the Hub that is meant, if one is."""
    if hub is None:
        if push:
            raise InputError("--push sends a folder to the Hugging Face Hub: say where to with --hub USER/NAME")
        return None
    if every:
        raise InputError("--hub takes one network, chosen by --trial N or --pick, not --all")
    from search.artefacts.hub import validate_repository

    return validate_repository(hub)


def _check_int8(wanted: bool, formats: tuple[str, ...]) -> None:
    if wanted and "onnx" not in formats:
        raise InputError("--int8 is made from the ONNX graph; add onnx to --format")


def _folders(numbers: list[int], to: Path | None, every: bool) -> dict[int, Path]:
    """Where each network goes."""
    if to is None:
        raise InputError("say where to with --to DIR, a folder that does not exist yet (example: --to small)")
    return {number: to / f"{number:04d}" if every else to for number in numbers}


def _register(files: StudyFiles, numbers: list[int], name: str | None, alias: str | None, every: bool) -> None:
    """Make one network a version of a registered model."""
    if name is None:
        raise InputError(f"--alias {alias} needs the name of a registered model: --register NAME --alias {alias}")
    if every:
        raise InputError("--register takes one network, chosen by --trial N or --pick, not --all")
    from search.driver.networks import register_network

    version = register_network(files, numbers[0], name, alias)
    put(f"models:/{name}/{version}" if alias is None else f"models:/{name}@{alias}")
    note(f"trial {numbers[0]} is version {version} of {name}; load it with mlflow.pyfunc.load_model")


def _numbers(files: StudyFiles, trial: int | None, pick: str | None, drop: float, every: bool) -> list[int]:
    """The trials that are meant: by number, by rule, or all on the front."""
    if sum((trial is not None, pick is not None, every)) != 1:
        raise InputError("say which network with --trial N, with --pick knee|best|cheapest, or with --all, one of them")
    if trial is not None:
        return [trial]
    front = files.front()
    if pick is not None:
        return [front.pick(pick, drop).trial]
    if not front.members:
        raise InputError(f"study {files.name!r} has no complete trial to export")
    return [member.trial for member in front.members]


def _fail_if_lost(cards: list[dict[str, Any]]) -> None:
    """Say which formats do not count, and why; the others are written."""
    lost = [
        f"error: trial {card['trial']} has no {name} that counts: {answer['reason']}"
        for card in cards
        for name, answer in card["formats"].items()
        if not answer["verified"]
    ]
    if lost:
        note("\n".join(lost))
        raise typer.Exit(FAILED)


def _table(cards: list[dict[str, Any]]) -> FittedTable:
    """One row per network and format."""
    from search.report.fitted import Column, FittedTable

    rows = []
    for card in cards:
        head = [str(card["trial"]), card["method"], f"{card['flops_share']:.1%}"]
        for name, answer in card["formats"].items():
            file = answer.get("file")
            size = f"{card['files'][file]['bytes'] / 1e3:,.0f} kB" if file else "–"
            differs = f"{answer['largest_difference']:.1e}" if answer["verified"] else "does not count"
            rows.append([*head, name, size, differs])
            head = ["", "", ""]
    trials, methods, shares, formats, sizes, differ = zip(*rows, strict=True)
    return FittedTable(
        "",
        [
            Column("trial", trials),
            Column("method", methods, 3, words=True),
            Column("FLOPs", shares, 2),
            Column("format", formats, words=True),
            Column("size", sizes, 1),
            Column("differs by", differ),
        ],
    )
