"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spaces.errors import InputError, unknown_name

DIRECTORY = Path("mlruns")

LIMITS = "Which networks"
SEARCH = "What is searched"
RUN = "Where it runs"
OUTPUT = "Output"

Study = Annotated[
    str | None, typer.Argument(metavar="STUDY", show_default=False, help="Name of the study; the latest if left out.")
]
StudyAndTrial = Annotated[
    list[str],
    typer.Argument(
        metavar="[STUDY] TRIAL",
        show_default=False,
        help="Name of the study (the latest if left out); number of a trial.",
    ),
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
        help="Network: a name of ours, torchvision:NAME, timm:NAME, hf:FOLDER or package.module:function.",
        rich_help_panel=SEARCH,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|NAME",
        show_default=False,
        help="Trained weights: a file, or DEFAULT for torchvision's. With another number of classes the head is new.",
        rich_help_panel=SEARCH,
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
Epochs = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        show_default=False,
        help="Epochs of training: of every trial in a sweep, of the dense network in `train`.",
        rich_help_panel=SEARCH,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        show_default=False,
        help="Examples per step of training, of the dense network and of the trials.",
        rich_help_panel=SEARCH,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="cpu|cuda",
        show_default=False,
        help="Where is trained; a GPU if there is one. Shares of a GPU: --gpus-per-trial.",
        rich_help_panel=RUN,
    ),
]
SearchedFlops = Annotated[
    str | None,
    typer.Option(
        metavar="50%|20M",
        show_default=False,
        help="No network may cost more FLOPs: a share of the dense network, or a count.",
        rich_help_panel=SEARCH,
    ),
]
LeastFlops = Annotated[
    str | None,
    typer.Option(
        metavar="10%|2M",
        show_default=False,
        help="No network may cost fewer FLOPs.",
        rich_help_panel=SEARCH,
    ),
]
SearchedParams = Annotated[
    str | None,
    typer.Option(
        metavar="30%|1M",
        show_default=False,
        help="No network may have more parameters.",
        rich_help_panel=SEARCH,
    ),
]
SearchedLatency = Annotated[
    str | None,
    typer.Option(
        metavar="2ms|50%",
        show_default=False,
        help="No network may be slower on the first target; timed before it is trained.",
        rich_help_panel=SEARCH,
    ),
]
MaxDrop = Annotated[
    str | None,
    typer.Option(
        metavar="POINTS",
        show_default=False,
        help="Percentage points of quality at whose loss a network is worth nothing to the search.",
        rich_help_panel=SEARCH,
    ),
]
SamplerName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default=False,
        help="Who proposes points: exact (the default), tpe, gp, nsga2, random, defaults or package.module:Name.",
        rich_help_panel=SEARCH,
    ),
]
SchedulerName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default=False,
        help="Who decides which trials go on past a rung: none (all do), mo-asha or package.module:Name.",
        rich_help_panel=SEARCH,
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="8h|90min",
        show_default=False,
        help="Time after which no further trial is begun.",
        rich_help_panel=SEARCH,
    ),
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
        help="Earlier studies to learn from: their trials, or, of another network, the points of their front.",
        rich_help_panel=SEARCH,
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", show_default=False, help="How many trials the study has in all.", rich_help_panel=SEARCH
    ),
]
CpusPerTrial = Annotated[
    int | None, typer.Option(min=1, metavar="N", show_default=False, help="Cores of each trial.", rich_help_panel=RUN)
]
GpusPerTrial = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="N",
        show_default=False,
        help="GPUs of each trial; may be a fraction such as 0.25.",
        rich_help_panel=RUN,
    ),
]
MaxConcurrent = Annotated[
    int | None, typer.Option(min=1, metavar="N", show_default=False, help="Trials at a time.", rich_help_panel=RUN)
]
Executor = Annotated[
    str | None,
    typer.Option(
        metavar="ray|inline|NAME",
        show_default=False,
        help="On Ray, or one by one on this machine.",
        rich_help_panel=RUN,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="auto|HOST:PORT|ray://HOST:PORT",
        show_default=False,
        help="A running Ray cluster; else RAY_ADDRESS, else a local one is started.",
        rich_help_panel=RUN,
    ),
]
Retries = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        show_default=False,
        help="How often a trial runs again whose worker was lost; 2 by default.",
        rich_help_panel=RUN,
    ),
]
TrialTimeout = Annotated[
    float | None,
    typer.Option(
        min=0.001, metavar="SECONDS", show_default=False, help="How long a trial may take.", rich_help_panel=RUN
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|URI",
        show_default=False,
        help="Through which nodes without the directory send trials and keep checkpoints; else Ray carries the trials.",
        rich_help_panel=RUN,
    ),
]
WorkingDir = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        show_default=False,
        help="A folder of your modules that is sent to the nodes of a cluster, and this package with it.",
        rich_help_panel=RUN,
    ),
]
MovedWeights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        show_default=False,
        help="Where the weights of the dense network lie now.",
        rich_help_panel=RUN,
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
            raise InputError(unknown_name("device", device, devices))
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
