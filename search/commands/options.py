"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from search.commands.completion import (
    complete_data,
    complete_method_lists,
    complete_models,
    complete_settings,
    complete_studies,
    complete_study_lists,
)
from spaces.errors import InputError, explain_unknown_name

DIRECTORY = Path("mlruns")

LIMITS = "Which networks"
SEARCH = "What is searched"
RUN = "Where it runs"
OUTPUT = "Output"


def _option(*names: str, metavar: str, panel: str, text: str, **others: Any) -> Any:
    """Describe an option whose default is the configuration's, so that none is shown."""
    return typer.Option(*names, metavar=metavar, show_default=False, help=text, rich_help_panel=panel, **others)


Study = Annotated[
    str | None,
    typer.Argument(
        metavar="STUDY",
        show_default=False,
        autocompletion=complete_studies,
        help="Name of the study; the latest if left out.",
    ),
]
StudyAndTrial = Annotated[
    list[str],
    typer.Argument(
        metavar="[STUDY] TRIAL",
        show_default=False,
        autocompletion=complete_studies,
        help="Name of the study (the latest if left out); number of a trial.",
    ),
]
Directory = Annotated[
    Path, typer.Option("--directory", metavar="DIR", rich_help_panel=OUTPUT, help="Where studies and runs are stored.")
]
OptionalDirectory = Annotated[
    Path | None,
    _option(
        "--directory",
        metavar="DIR",
        panel=OUTPUT,
        text="Where studies and runs are stored; the configuration's, mlruns by default.",
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
    _option(
        "--set",
        metavar="KEY=VALUE",
        panel=SEARCH,
        autocompletion=complete_settings,
        text="Set any key of the configuration, such as finetune.epochs=5; may be repeated.",
    ),
]
Model = Annotated[
    str | None,
    _option(
        metavar="NAME",
        panel=SEARCH,
        autocompletion=complete_models,
        text="Network: a name of ours, torchvision:NAME, timm:NAME, hf:FOLDER or package.module:function.",
    ),
]
Weights = Annotated[
    str | None,
    _option(
        metavar="FILE|NAME",
        panel=SEARCH,
        text="Trained weights: a file, or DEFAULT for torchvision's. With another number of classes the head is new.",
    ),
]
FreezeBackbone = Annotated[
    bool | None,
    typer.Option(
        "--freeze-backbone",
        show_default=False,
        help="Train a new head alone, where the weights are for other classes.",
        rich_help_panel=SEARCH,
    ),
]
Data = Annotated[
    str | None,
    _option(
        metavar="NAME",
        panel=SEARCH,
        autocompletion=complete_data,
        text="Data: digits, mnist, cifar10, cifar100, imagefolder, hf:FOLDER or package.module:function.",
    ),
]
DataRoot = Annotated[
    Path | None,
    _option(metavar="DIR", panel=SEARCH, text="Where data sets lie or are downloaded to."),
]
Network = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        autocompletion=complete_models,
        help="Network: a name of ours, torchvision:NAME, timm:NAME, hf:FOLDER or package.module:function.",
    ),
]
DataFolder = Annotated[
    Path, typer.Option(metavar="DIR", help="Where data sets lie or are downloaded to.", rich_help_panel=SEARCH)
]
DATA_FOLDER = Path("data")
Seed = Annotated[
    int | None,
    _option(metavar="N", panel=SEARCH, text="Decides everything random.", min=0),
]
Epochs = Annotated[
    float | None,
    _option(
        metavar="N",
        panel=SEARCH,
        text="Epochs of training: of every trial in a sweep, of the dense network in `train`.",
    ),
]
BatchSize = Annotated[
    int | None,
    _option(
        metavar="N", panel=SEARCH, text="Examples per step of training, of the dense network and of the trials.", min=1
    ),
]
Device = Annotated[
    str | None,
    _option(
        metavar="cpu|cuda",
        panel=RUN,
        text="Where is trained; a GPU if there is one. Shares of a GPU: --gpus-per-trial.",
    ),
]
SearchedFlops = Annotated[
    str | None,
    _option(
        metavar="50%|20M",
        panel=SEARCH,
        text="No network may cost more FLOPs: a share of the dense network, or a count.",
    ),
]
LeastFlops = Annotated[
    str | None,
    _option(metavar="10%|2M", panel=SEARCH, text="No network may cost fewer FLOPs."),
]
SearchedParams = Annotated[
    str | None,
    _option(metavar="30%|1M", panel=SEARCH, text="No network may have more parameters."),
]
SearchedLatency = Annotated[
    str | None,
    _option(
        metavar="2ms|50%",
        panel=SEARCH,
        text="No network may be slower on the first target; timed before it is trained.",
    ),
]
MaxDrop = Annotated[
    str | None,
    _option(
        metavar="POINTS",
        panel=SEARCH,
        text="Percentage points of quality at whose loss a network is worth nothing to the search.",
    ),
]
SamplerName = Annotated[
    str | None,
    _option(
        metavar="NAME",
        panel=SEARCH,
        text="Who proposes points: exact (the default), tpe, gp, nsga2, random, defaults or package.module:Name.",
    ),
]
SchedulerName = Annotated[
    str | None,
    _option(
        metavar="NAME",
        panel=SEARCH,
        text="Who decides which trials go on past a rung: none (all do), mo-asha or package.module:Name.",
    ),
]
Budget = Annotated[
    str | None,
    _option(metavar="8h|90min", panel=SEARCH, text="Time after which no further trial is begun."),
]
DeviceBudget = Annotated[
    str | None,
    typer.Option(
        metavar="20h",
        show_default=False,
        help="Time of devices (GPUs, or cores), added up over trials, after which no further trial is begun.",
        rich_help_panel=SEARCH,
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        show_default=False,
        help="Begin no further trial after so many without growth of the front.",
        rich_help_panel=SEARCH,
    ),
]
WarmStart = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        show_default=False,
        autocompletion=complete_study_lists,
        help="Earlier studies to learn from: their trials, or, of another network, the points of their front.",
        rich_help_panel=SEARCH,
    ),
]
Methods = Annotated[
    str | None,
    _option(
        metavar="A,B",
        panel=SEARCH,
        autocompletion=complete_method_lists,
        text="Pruning methods that compete, with commas.",
    ),
]
Trials = Annotated[
    int | None,
    _option(metavar="N", panel=SEARCH, text="How many trials the study has in all.", min=1),
]
CpusPerTrial = Annotated[int | None, _option(metavar="N", panel=RUN, text="Cores of each trial.", min=1)]
GpusPerTrial = Annotated[
    float | None,
    _option(metavar="N", panel=RUN, text="GPUs of each trial; may be a fraction such as 0.25.", min=0),
]
MaxConcurrent = Annotated[int | None, _option(metavar="N", panel=RUN, text="Trials at a time.", min=1)]
Executor = Annotated[
    str | None,
    _option(metavar="ray|inline|NAME", panel=RUN, text="On Ray, or one by one on this machine."),
]
Address = Annotated[
    str | None,
    _option(
        metavar="auto|HOST:PORT",
        panel=RUN,
        text="A running Ray cluster; else RAY_ADDRESS, else a local one is started.",
    ),
]
Retries = Annotated[
    int | None,
    _option(metavar="N", panel=RUN, text="How often a trial runs again whose worker was lost; 2 by default.", min=0),
]
TrialTimeout = Annotated[
    float | None,
    _option(metavar="SECONDS", panel=RUN, text="How long a trial may take.", min=0.001),
]
Storage = Annotated[
    str | None,
    _option(
        metavar="DIR|URI",
        panel=RUN,
        text="Through which nodes without the directory send trials and keep checkpoints; else Ray carries the trials.",
    ),
]
WorkingDir = Annotated[
    str | None,
    _option(
        metavar="DIR",
        panel=RUN,
        text="A folder of your modules that is sent to the nodes of a cluster, and this package with it.",
    ),
]
MovedWeights = Annotated[
    str | None,
    _option(metavar="FILE", panel=RUN, text="Where the weights of the dense network lie now."),
]
StudyStorage = Annotated[
    str | None,
    _option(
        "--study-storage",
        metavar="URL",
        panel=OUTPUT,
        text="Optuna's storage, such as postgresql+psycopg://USER@HOST/DATABASE, which several drivers may share.",
    ),
]
TrackingUri = Annotated[
    str | None,
    _option(
        metavar="URI",
        panel=OUTPUT,
        text="MLflow store or server; else MLFLOW_TRACKING_URI, else a database in the directory.",
    ),
]
Pick = Annotated[
    str | None,
    _option(
        metavar="knee|best|cheapest",
        panel=LIMITS,
        text="One network: where the front bends, the most accurate, or the cheapest that is accurate enough.",
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


def natural(phase: str, epochs: float | None, batch_size: int | None, device: str | None) -> tuple[str, ...]:
    """Translate options that everybody expects into keys of the configuration.

    Args:
        phase: ``"finetune"`` or ``"dense"``: what the epochs are of.
        epochs: Epochs of that phase.
        batch_size: Examples per step in both phases.
        device: ``"cpu"`` or ``"cuda"``.

    Returns:
        Settings as ``--set`` takes them.

    Raises:
        InputError: If the device is neither.

    Example:
        >>> natural("finetune", 3, None, "cpu")
        ('finetune.epochs=3', 'resources.gpus_per_trial=0')
    """
    settings = [f"{phase}.epochs={epochs:g}"] if epochs is not None else []
    if batch_size is not None:
        settings += [f"{each}.recipe.batch_size={batch_size}" for each in ("dense", "finetune")]
    if device is not None:
        devices = {"cpu": 0, "cuda": 1, "gpu": 1}
        if device not in devices:
            raise InputError(explain_unknown_name("device", device, devices))
        settings.append(f"resources.gpus_per_trial={devices[device]}")
    return tuple(settings)


def study_and_trial(words: list[str]) -> tuple[str | None, int]:
    """Read the arguments ``[STUDY] TRIAL``.

    Args:
        words: One or two words.

    Returns:
        Name of the study, ``None`` for the latest, and the number of the trial.

    Raises:
        typer.BadParameter: If there is no number, or too much.
    """
    *studies, trial = words
    if len(studies) > 1 or not trial.isdecimal():
        raise typer.BadParameter(
            f"{' '.join(words)!r} is not a study and the number of a trial, such as `my-study 7`, or `7` of the latest",
            param_hint="'[STUDY] TRIAL'",
        )
    return (studies[0] if studies else None), int(trial)


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
