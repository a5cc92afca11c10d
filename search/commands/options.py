"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DIRECTORY = Path("mlruns")

LIMITS = "Which networks"
SEARCH = "What is searched"
RUN = "Where it runs"
OUTPUT = "Output"

Study = Annotated[
    str | None, typer.Argument(metavar="STUDY", show_default=False, help="Name of the study; the latest if left out.")
]
Directory = Annotated[
    Path, typer.Option("--directory", metavar="DIR", rich_help_panel=OUTPUT, help="Where studies and runs are stored.")
]
OptionalDirectory = Annotated[
    Path | None,
    typer.Option(
        "--directory",
        metavar="DIR",
        show_default=False,
        rich_help_panel=OUTPUT,
        help="Where studies and runs are stored; the configuration's, mlruns by default.",
    ),
]
Json = Annotated[bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print JSON, and nothing else, on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=OUTPUT, help="Show no progress, only warnings.")]

File = Annotated[
    Path | None,
    typer.Argument(metavar="STUDY.toml", show_default=False, help="Configuration; built-in defaults if left out."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        show_default=False,
        help="Set any key of the configuration, such as finetune.epochs=5; may be repeated.",
        rich_help_panel=SEARCH,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default=False,
        help="Network: a name of ours, torchvision:NAME or package.module:function.",
        rich_help_panel=SEARCH,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default=False,
        help="Data: digits, mnist, cifar10, cifar100, imagefolder or package.module:function.",
        rich_help_panel=SEARCH,
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", show_default=False, help="Where data sets lie or are downloaded to.", rich_help_panel=SEARCH
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", show_default=False, help="Decides everything random.", rich_help_panel=SEARCH),
]
Trials = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", show_default=False, help="How many trials the study has in all.", rich_help_panel=SEARCH
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        show_default=False,
        help="MLflow store or server; else MLFLOW_TRACKING_URI, else a database in the directory.",
        rich_help_panel=OUTPUT,
    ),
]
Pick = Annotated[
    str | None,
    typer.Option(
        metavar="knee|best|cheapest",
        show_default=False,
        help="One network: where the front bends, the most accurate, or the cheapest that is accurate enough.",
        rich_help_panel=LIMITS,
    ),
]
Drop = Annotated[
    float,
    typer.Option(
        metavar="POINTS",
        help="For --pick cheapest: accuracy that may be lost against the dense network, in percentage points.",
        rich_help_panel=LIMITS,
    ),
]


def names(text: str | None) -> tuple[str, ...] | None:
    """Split a list with commas.

    Args:
        text: What the user wrote, or ``None``.

    Returns:
        The names without blanks around them, or ``None`` if nothing was given.

    Example:
        >>> names("magnitude, increg")
        ('magnitude', 'increg')
    """
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())
