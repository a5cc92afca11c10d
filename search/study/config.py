"""What a study is made of: TOML file and command-line options become one frozen, validated object.

Precedence, from weakest to strongest: defaults, the file, options, ``--set``. Unknown keys are errors. The
resolved configuration is stored with the study, so that a sweep can be continued or repeated from it alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from methods.contract.recipe import LARGEST_SEED
from search.records.formats import FORMATS, check_formats
from search.records.paths import expand_home, resolve_file
from search.records.text import remove_credentials
from search.speed.conditions import validate_targets
from search.tasks.data.sizes import SplitSizes
from search.tasks.named_tasks import METRICS, metric_names
from search.tasks.recipes import Training
from spaces import InputError

Allocation = Literal["auto", "flops", "uniform", "stage", "layer", "energy", "damage", "any"]
Sampler = str
"""Name of a sampler, or ``package.module:Name``."""
EXECUTORS: Mapping[str, str] = MappingProxyType({"ray": "ray_workers:ray_pool", "inline": "inline:inline_pool"})
"""Our own executors by name: file and function in ``search/workers``, which is where they are looked up."""

EXECUTOR_GROUP = "paretoprune.executors"
"""The entry-point group in which other packages list theirs."""

BOUNDS = frozenset({"low", "high", "value", "choices"})
"""Keys that narrow a parameter; a table with only such keys is a parameter's bounds."""

Limit = str | int | float | None
"""A share of the dense network or a count, as people write them."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Resources(_Part):
    """Where trials run.

    Attributes:
        executor: ``"ray"`` distributes trials with Ray; ``"inline"`` runs them in this process, one by
            one, where a debugger can follow; ``package.module:Name`` is one of somebody else's.
        cpus_per_trial: Cores per trial; also the number of torch threads.
        gpus_per_trial: GPUs per trial, may be a fraction; ``None`` takes one where there is one.
        max_concurrent: Trials at a time; ``None`` for as many as the resources allow.
        address: Address of a running Ray cluster; ``None`` starts a local one (or follows ``RAY_ADDRESS``).
        retries: How often a trial is run again whose worker was lost.
        trial_timeout: Seconds that a trial may take; ``None`` for as long as it wants.
        storage: A directory, or an address of fsspec (``s3://bucket/runs``), through which nodes that do not see
            ``directory`` send their trials, and where those keep checkpoints; ``None`` sends trials through Ray.
        working_dir: A folder whose modules are sent to all nodes of a cluster, and this package with them; ``None``
            where both are installed there.
    """

    executor: str = "ray"
    cpus_per_trial: int = Field(1, ge=1)
    gpus_per_trial: float | None = Field(None, ge=0)
    max_concurrent: int | None = Field(None, ge=1)
    address: str | None = None
    retries: int = Field(2, ge=0)
    trial_timeout: float | None = Field(None, gt=0)
    storage: str | None = None
    working_dir: str | None = None

    @field_validator("executor")
    @classmethod
    def _check_executor(cls, name: str) -> str:
        from methods.contract.named import is_reference, list_known_names
        from spaces import explain_unknown_name

        known = list_known_names(EXECUTORS, EXECUTOR_GROUP)
        if not is_reference(name) and name not in known:  # a reference is followed when trials are to run
            raise InputError(explain_unknown_name("executor", name, [*known, "package.module:Name"]))
        return name


class Latency(_Part):
    """How the latency of networks is measured, if it is: as an objective, or because targets are named.

    Attributes:
        targets: Where networks are timed: ``cpu``, ``cpu-compiled``, ``cuda``, ``cuda-eager``, ``onnxruntime``,
            ``openvino``, ``tensorrt``, ``executorch``, a name of an installed package or ``package.module:NAME``; the
            first one gives the objective ``latency``. ``None`` for a GPU where trials have one, else for the CPU.
        batch_size: Inputs in one forward pass; latency is the time of that pass.
        threads: Threads on the CPU; ``None`` for the cores of a trial.
        channels_last: Whether images and weights lie in memory with channels last.
        seconds: About how long one attempt at a measurement takes.
    """

    targets: tuple[str, ...] | None = None
    batch_size: int = Field(1, ge=1)
    threads: int | None = Field(None, ge=1)
    channels_last: bool = False
    seconds: float = Field(2.0, gt=0)

    @field_validator("targets")
    @classmethod
    def _check_targets(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return names if names is None else validate_targets(names)


class StudyConfig(_Part):
    """Everything that decides a study.

    Attributes:
        name: Name of the study; ``None`` numbers it after model and data.
        model: A name of ours, ``torchvision:NAME``, ``timm:NAME``, ``hf:FOLDER`` (or ``hf:FILE``, a configuration of
            Hugging Face) or ``package.module:function``.
        weights: Trained weights of the dense network: a file, a torchvision enum, or ``"pretrained"`` for timm and
            Hugging Face; ``None`` trains it. If they are for
            another number of outputs the head is new, and the network is trained like a trial.
        freeze_backbone: Whether only a new head is trained then.
        data: A name of ours, ``hf:FOLDER`` (of Hugging Face's datasets) or ``package.module:function``.
        data_root: Where data sets lie or are downloaded to; a relative path starts at the file it is written in.
        split: Sizes and seed of train, validation and test.
        task: What the network is for: ``"classification"``, ``"segmentation"``, ``"regression"`` or
            ``package.module:Class``; a loop of the user's own brings its data, and ``data`` is not looked at.
        task_options: Arguments of the task by name, such as ``ignore_index`` of segmentation.
        augment: What happens to training images: ``"cifar"``, ``"imagenet"``, ``"none"`` or
            ``package.module:function``; ``None`` for the data set's own.
        methods: Pruning methods that compete: names of ours or of installed packages, or ``package.module:Class``.
        allocation: How sparsity is given out over layers; ``"any"`` lets the search choose. ``"auto"`` is ``"damage"``,
            in methods that can be told so, where to measure it takes less than to train one trial; else ``"flops"``.
        blocks: Whether residual blocks may go as a whole where widths follow from damage: they go where that does
            less damage than narrower layers that save as much.
        ignored: Modules whose output channels must all stay.
        objectives: What is searched for.
        latency: How latency is measured.
        round_to: Kept widths are multiples of this in every method that is given its sparsity. ``"auto"`` is 1,
            unless latency is an objective: then what its first target rewards.
        trials: How many trials the sweep has.
        seed: Decides everything random.
        preset: Settings that methods start from: ``"default"``, what works best at a user's budget; ``"paper"``, the
            authors' procedure; or what a method has besides. ``[space.METHOD] preset`` is that of one method.
        max_flops: No network may cost more: a share of the dense network (``"50%"``, ``0.5``) or a count (``"20M"``).
        min_flops: No network may cost less, written alike.
        max_params: No network may have more parameters, written alike.
        max_latency: Most time of one pass on the first target, a time (``"2ms"``) or a share (``"50%"``). A network is
            timed before it is trained, and refused if it is slower; no slower one has a place on the front.
        max_drop: Percentage points of quality at whose loss a network is worth nothing to the search.
        points: Points of your own to try first, such as ``{ method = "magnitude", "sparsity.flops" = 0.3 }``; what a
            point does not say has the authors' value.
        warm_start: Earlier studies, by name or folder. The sampler knows trials of the same network, data and budget
            from the start; of other studies the points of the front are tried first.
        budget: Time after which no further trial is begun (``"8h"``, ``"90min"``), counted from the start of each run.
        device_budget: Time of devices after which no further trial is begun: of GPUs where trials have them, else of
            cores, added up over all trials of the study.
        patience: Trials without growth of the front after which no further one is begun; ``None`` goes on.
        sampler: Who proposes points: ``"exact"`` (which ``"auto"`` is), one of Optuna's (``"tpe"``, ``"gp"``,
            ``"nsga2"``, ``"random"``), or ``package.module:Name``. ``"defaults"`` searches nothing:
            every method is tried with its authors' values at each of ``shares``, to compare methods.
        scheduler: Who decides at rungs which trials go on: ``"none"`` (all do), ``"mo-asha"``, or
            ``package.module:Name``.
        scheduler_options: The scheduler's own settings by name, such as ``rungs = [0.1, 0.3]``.
        shares: With ``sampler = "defaults"``: shares of the dense FLOPs at which every method is tried.
        dense: How the dense network is trained if there are no weights.
        finetune: Budget and recipe of every trial, the same for every method.
        space: Narrowed parameters by method and parameter name: ``{"increg": {"penalty_max": {"high": 2}}}``.
        resources: Where trials run.
        exports: Formats in which the networks of the front are kept when a sweep ends, out of ``pt2``, ``onnx`` and
            ``safetensors``; an empty list keeps none.
        directory: Where studies and runs are stored; a relative path starts at the file it is written in.
        tracking_uri: Where MLflow runs are logged; ``None`` for the environment's or the store in
            ``directory``.
        study_storage: Optuna's storage: ``postgresql+psycopg://USER:PASSWORD@HOST/DATABASE``, which several drivers of
            one study may share, or ``sqlite:////PATH``; ``None`` for ``optuna.db`` in ``directory``.
    """

    name: str | None = None
    model: str = "digits_resnet"
    weights: str | None = None
    freeze_backbone: bool = False
    data: str = "digits"
    data_root: Path = Path("data")
    split: SplitSizes = SplitSizes()
    task: str = "classification"
    task_options: Mapping[str, Any] = Field(default_factory=dict)
    augment: str | None = None
    methods: tuple[str, ...] = Field(("magnitude", "increg", "random"), min_length=1)
    allocation: Allocation = "auto"
    blocks: bool = False
    ignored: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ("accuracy", "flops")
    latency: Latency = Latency()
    round_to: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    trials: int = Field(24, ge=1)
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    preset: str = "default"
    max_flops: Limit = None
    min_flops: Limit = None
    max_params: Limit = None
    max_latency: str | None = None
    max_drop: str | float = 5.0
    points: tuple[Mapping[str, Any], ...] = ()
    warm_start: tuple[str, ...] = ()
    budget: str | None = None
    device_budget: str | None = None
    patience: int | None = Field(None, ge=1)
    sampler: Sampler = "auto"
    scheduler: str = "none"
    scheduler_options: Mapping[str, Any] = Field(default_factory=dict)
    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5, 0.25, 0.125)
    dense: Training = Training()
    finetune: Training = Training()
    space: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    resources: Resources = Resources()
    exports: tuple[str, ...] = tuple(FORMATS)
    directory: Path = Path("mlruns")
    tracking_uri: str | None = None
    study_storage: str | None = None

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        return name if name is None else check_name(name)

    @field_validator("data_root", "directory")
    @classmethod
    def _expand_tilde(cls, path: Path) -> Path:
        return expand_home(path)

    @field_validator("study_storage")
    @classmethod
    def _check_storage(cls, url: str | None) -> str | None:
        return url if url is None else validate_storage(url)

    @field_validator("methods", "objectives", "ignored", "exports", "warm_start", mode="before")
    @classmethod
    def _split_names(cls, given: Any) -> Any:
        """Read names with commas between them as a list, as options do."""
        return [name.strip() for name in given.split(",") if name.strip()] if isinstance(given, str) else given

    @field_validator("methods")
    @classmethod
    def _check_methods(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        from methods import method_names
        from methods.contract.named import is_reference
        from spaces import explain_unknown_name

        for name in names:  # a reference is followed when the study is planned: an older study opens without its module
            if not is_reference(name) and name not in method_names():
                raise InputError(explain_unknown_name("method", name, [*method_names(), "package.module:Class"]))
        if len(set(names)) != len(names):
            raise InputError(f"methods are named twice: {', '.join(names)}")
        return names

    @field_validator("exports")
    @classmethod
    def _check_formats(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return check_formats(names)

    @field_validator("sampler")
    @classmethod
    def _check_sampler(cls, name: str) -> str:
        from methods.contract.named import is_reference, list_known_names
        from search.study.samplers.choice import NAMES
        from spaces import explain_unknown_name

        known = [*NAMES, *list_known_names({}, "paretoprune.samplers")]
        if not is_reference(name) and name not in known:  # a reference is followed when the study is planned
            raise InputError(explain_unknown_name("sampler", name, [*known, "package.module:Name"]))
        return name

    @field_validator("scheduler")
    @classmethod
    def _check_scheduler(cls, name: str) -> str:
        from search.study.schedulers.making import validate_scheduler

        return validate_scheduler(name)

    @field_validator("budget", "device_budget")
    @classmethod
    def _check_budget(cls, given: str | None, info: ValidationInfo) -> str | None:
        from search.objectives.limits import parse_budget

        if given is not None:
            parse_budget(given, str(info.field_name).replace("_", "-"))
        return given

    @field_validator("points")
    @classmethod
    def _flatten_points(cls, points: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
        flat = tuple(_flatten_bounds(point) for point in points)
        for number, point in enumerate(flat):
            if "method" not in point:
                raise InputError(f'points: number {number + 1} names no method, such as method = "magnitude"')
        return flat

    @field_validator("max_drop")
    @classmethod
    def _check_drop(cls, given: str | float) -> str | float:
        from search.objectives.limits import parse_drop

        parse_drop(given)
        return given

    @model_validator(mode="before")
    @classmethod
    def _fill_in_objectives(cls, given: Any) -> Any:
        """Search for the quality of the task and FLOPs, unless objectives are named."""
        task = given.get("task") if isinstance(given, Mapping) else None
        if not isinstance(task, str) or "objectives" in given or task == "classification":
            return given
        return {**given, "objectives": (metric_names(task)[0], "flops")}

    @model_validator(mode="after")
    def _check_objectives(self) -> Self:
        """Check objectives as far as that needs no code of the user's: a stored study opens without it."""
        from search.objectives import check_objectives

        check_objectives(self.objectives, METRICS.get(self.task))
        return self

    @field_validator("space")
    @classmethod
    def _flatten_space(cls, space: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        return {method: _flatten_bounds(bounds) for method, bounds in space.items()}


def check_name(name: str) -> str:
    """Check a study's name: it becomes a folder and a title.

    Args:
        name: The name.

    Returns:
        The same name.

    Raises:
        InputError: If it is anything but 1 to 80 letters, digits, ``.``, ``_`` and ``-``, beginning with a
            letter or digit.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
        shown = name if len(name) <= 80 else name[:77] + "..."
        raise InputError(
            f"study name {shown!r} is not allowed: use 1 to 80 letters, digits, '.', '_' and '-', beginning with "
            "a letter or digit"
        )
    return name


def validate_storage(url: str) -> str:
    """Check the address of a storage for Optuna.

    Args:
        url: What was given.

    Returns:
        The address as Optuna takes it.

    Raises:
        InputError: If it is of no kind that a study can be kept in.

    Example:
        >>> validate_storage("postgresql://anna@db/runs")
        'postgresql+psycopg://anna@db/runs'
    """
    kind, separator, rest = url.partition("://")
    if separator and kind in ("postgres", "postgresql", "postgresql+psycopg") and rest:
        return f"postgresql+psycopg://{_quote_secrets(rest)}"
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        path = url.removeprefix("sqlite:///")
        return url if path.startswith(("/", "file:")) else f"sqlite:///{resolve_file(path)}"
    raise InputError(
        f"study storage {remove_credentials(url)!r} is not allowed: give postgresql+psycopg://USER:PASSWORD@HOST/"
        "DATABASE, which several drivers may share, or sqlite:////PATH on a local disk"
    )


def _quote_secrets(address: str) -> str:
    """Write user and password of an address with percents where they hold a character that would end them.

    Args:
        address: ``USER:PASSWORD@HOST:PORT/DATABASE?QUERY``, of which the host alone need be there.

    Returns:
        The same, as SQLAlchemy reads it.

    Example:
        >>> _quote_secrets("anna:p@ss/w?rd@db:5432/runs"), _quote_secrets("anna:p%40ss@db/runs?a=b@c")
        ('anna:p%40ss%2Fw%3Frd@db:5432/runs', 'anna:p%40ss@db/runs?a=b@c')
    """
    query = re.search(r"\?[A-Za-z_]+=", address)
    end = len(address) if query is None else query.start()
    secrets, at, host = address[:end].rpartition("@")
    user, colon, password = secrets.partition(":")
    return f"{quote(user, safe='%')}{colon}{quote(password, safe='%')}{at}{host}{address[end:]}"


PLACES = ("data_root", "weights", "tracking_uri", "study_storage")
"""Keys of the configuration, beside those of ``resources``, that say where a study runs and not what it is."""


def places(config: StudyConfig) -> dict[str, Any]:
    """Say where a study runs, as it may be stored: without the user names and passwords of addresses.

    Args:
        config: The configuration.

    Returns:
        The values of :data:`PLACES` and of ``resources``, in JSON's types.
    """
    stored = config.model_dump(mode="json", include={*PLACES, "resources"})
    for table, key in ((stored, "tracking_uri"), (stored, "study_storage"), (stored["resources"], "storage")):
        if table[key] is not None:
            table[key] = remove_credentials(table[key])
    return stored


def _flatten_bounds(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join nested tables into dotted parameter names, down to the tables of bounds."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and not (value and BOUNDS >= value.keys()):
            flat |= _flatten_bounds(value, f"{name}.")
        else:
            flat[name] = value
    return flat
