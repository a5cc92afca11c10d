"""What a study needs before its first trial: data, trained dense network, channel groups, space."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from methods import load_method
from methods.contract.loop import LoopTask
from methods.contract.method import Problem
from methods.contract.named import is_reference
from methods.contract.recipe import Recipe
from methods.contract.task import Task
from methods.network.anatomy import Anatomy
from methods.network.channels import ChannelGroup
from methods.network.cost import CostModel
from methods.network.preflight import Findings, examine
from search.driver.feasible import check_methods
from search.driver.reachable import require_reachable
from search.driver.training_step import measure_training
from search.driver.warm import Earlier, read_earlier
from search.objectives import OBJECTIVES, MeasureContext, Objective, load_objectives, require_reports
from search.objectives.limits import parse_latency
from search.records.outcome import DenseRow
from search.report.notebook import plan_html
from search.speed.conditions import Conditions
from search.speed.measure import check_targets, measure_dense
from search.store.analyses import StoredAnalyses, analysis_identity
from search.store.studies import IN_HAND, StudyFiles
from search.study.config import StudyConfig
from search.study.cost import PointCosts
from search.study.latency import channel_step, conditions
from search.study.limits import limit_words, read_limits, within_limits
from search.study.samplers.base import Aim, Axis, Limits, PointCost
from search.study.samplers.choice import resolve_sampler
from search.study.schedulers.making import make_scheduler
from search.study.space import (
    METHOD,
    complete_point,
    count_points,
    first_points,
    fix_known_costs,
    refuse_idle_bounds,
    spread_points,
    study_space,
)
from search.tasks.dense import dense_network
from search.tasks.identity import differences, study_identity
from search.tasks.models.weights import Fit
from search.tasks.named_tasks import load_task
from search.tasks.recipes import resolve_recipe
from search.tasks.workload import Workload, task_identity
from search.trials.trial import Setting, measure_metrics
from search.workers.pool import load_executor
from spaces import InputError, LayerGroup, Space, Uniform, Value
from spaces.sparsity import HIGHEST_RATIO

Record = dict[str, float]

SMALL = 5_000_000
"""FLOPs below which a step is so short that threads wait for each other longer than they compute."""


@dataclass(frozen=True)
class Plan:
    """What a sweep will do, known before anything is trained.

    Attributes:
        config: The resolved configuration.
        workload: Network and data.
        groups: Prunable channel groups.
        cost: Exact FLOPs of any choice of widths.
        params: Parameters of the dense network.
        space: The whole space, method included.
        first: The points that are tried first.
        recipe: How every trial fine-tunes.
        steps: Budget of every trial in optimiser steps.
        device: Where trials compute, ``"cpu"`` or ``"cuda"``.
        gpus_per_trial: GPUs that each trial takes.
        timed: How trials are timed; ``None`` if they are not.
        round_to: Kept widths are multiples of this in every method that is given its sparsity.
        limits: What every network must keep to.
        problem: What methods are given, with a dense network that is not trained.
        warnings: What methods warn of.
        findings: What was proven of the network's channels.
        ignored: Names of modules whose channels all stay: the user's, and those that failed a proof.
    """

    config: StudyConfig
    workload: Workload
    groups: list[ChannelGroup]
    cost: CostModel
    params: int
    space: Space
    first: list[dict[str, Value]]
    earlier: list[dict[str, Any]]
    recipe: Recipe
    steps: int
    device: str
    gpus_per_trial: float
    timed: Conditions | None
    round_to: int
    limits: Limits
    problem: Problem
    warnings: list[str]
    findings: Findings
    ignored: frozenset[str]

    @property
    def smallest(self) -> int:
        """FLOPs with one unit left in every group: less is not reachable by removing channels."""
        return self.cost.flops(dict.fromkeys(self.cost.units, 1))

    def guess(self) -> dict[str, Any]:
        """Time a step of training on this machine's CPU, and guess what a trial takes there.

        Returns:
            What :func:`search.report.diagnosis.training_lines` says.
        """
        training = measure_training(self.problem.model, self.problem.example)
        batch = self.recipe.batch_size
        return {
            "training": None if training is None else training.to_json(),
            "steps_per_trial": self.steps,
            "batch_size": batch,
            "seconds_per_trial": None if training is None else training.seconds * batch * self.steps,
            "megabytes_per_trial": None if training is None else training.megabytes(batch),
        }

    def to_json(self) -> dict[str, Any]:
        """Return the plan in JSON's types.

        Returns:
            Configuration, sizes, reachable shares of FLOPs and parameters, and the space.
        """
        return {
            "config": self.config.model_dump(mode="json"),
            "dense": {"flops": self.cost.dense, "params": self.params},
            "reachable_flops_share": [self.smallest / self.cost.dense, 1.0],
            "reachable_params_share": [self.findings.least.params / self.findings.dense.params, 1.0],
            "groups": [{"name": group.name, "channels": group.channels, "stage": group.stage} for group in self.groups],
            "trials": self.config.trials,
            "steps_per_trial": self.steps,
            "recipe": self.recipe.model_dump(mode="json"),
            "device": self.device,
            "latency": None if self.timed is None else asdict(self.timed),
            "round_to": self.round_to,
            "warnings": self.warnings,
            "least": {"flops": self.findings.least.flops, "params": self.findings.least.params},
            "stays": self.findings.analysis.stays,
            "left_out": self.findings.left_out,
            "couplings": self.findings.analysis.couplings,
            "space": self.space.to_json(),
        }

    def lines(self) -> list[str]:
        """Say the plan in a few lines.

        Returns:
            Lines of text.
        """
        channels = sum(group.channels for group in self.groups)
        share = self.smallest / self.cost.dense
        return [
            f"model     {self.config.model}: {self.cost.dense:,} FLOPs, {self.params:,} parameters, "
            f"{channels} prunable channels in {len(self.groups)} groups",
            f"data      {self._data_line()}",
            f"methods   {', '.join(self.config.methods)}; objectives {', '.join(self.config.objectives)}",
            f"trials    {self.config.trials}, each {self.steps} steps of {self.recipe.batch_size} on {self.device}",
            f"reachable {share:.1%} to 100% of the dense FLOPs",
            *_channel_lines(self.findings),
            f"space     {len(self.space)} parameters",
            *self._limit_lines(),
            *self._timing_lines(),
            *(f"warning   {warning}" for warning in self.warnings),
        ]

    def _data_line(self) -> str:
        """Name the data and count its examples."""
        data, task = self.workload.data, self.workload.task
        if isinstance(task, LoopTask):
            return f"read by the loop of {self.config.task}: {task.steps_per_epoch} steps in an epoch"
        purpose = "" if self.config.task == "classification" else f"for {task.name}, "
        return (
            f"{self.config.data}: {purpose}{data.train.examples} training, {data.validation.examples} validation, "
            f"{data.test.examples} test examples"
        )

    def _repr_html_(self) -> str:
        """Show the plan in a notebook."""
        return plan_html(self.lines())

    def _limit_lines(self) -> list[str]:
        words = limit_words(self.limits, PointCost(self.cost.dense, self.params))
        return [f"limits    {words}"] if words else []

    def _timing_lines(self) -> list[str]:
        """Say how latency is measured and what widths are multiples of, where that is not the usual."""
        lines = []
        if self.timed is not None:
            threads = f"{self.timed.threads} thread{'s' * (self.timed.threads > 1)}"
            lines.append(f"latency   {', '.join(self.timed.targets)}; batch of {self.timed.batch_size}, {threads}")
        if self.round_to > 1:
            free = [name for name in self.config.methods if not load_method(name).rounds_widths]
            but = f" (but {', '.join(free)}, which choose their own)" if free else ""
            lines.append(f"widths    multiples of {self.round_to}{but}")
        return lines


def _channel_lines(findings: Findings) -> list[str]:
    """Say what was proven, and what stays whole for another reason than that it is the network's output."""
    share = findings.least.params / findings.dense.params
    lines = [
        f"proven    groups were cut, compared, counted, rebuilt and trained; down to {share:.1%} of the parameters"
    ]
    reasons: dict[str, list[str]] = {}
    for name, why in findings.analysis.stays.items():
        if "the network's output" not in why:
            reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"whole     {names[0]}{more}: {why}")
    if findings.analysis.couplings:
        first = next(iter(findings.analysis.couplings))
        lines.append(
            f"coupled   {len(findings.analysis.couplings)} groups pass sums over their channels ({first}), "
            "where the units that are left change when one goes"
        )
    return lines


def prove_channels(model: torch.nn.Module, example: Any, ignored: Sequence[str]) -> tuple[Findings, frozenset[str]]:
    """Prove what can be removed, so that no trial fails for the network's structure.

    Args:
        model: The network.
        example: One input.
        ignored: Names of modules whose channels are to stay.

    Returns:
        What holds, and the names of all modules whose channels stay for the user's sake or for want of a proof.
    """
    findings, every = examine(model, example, ignored), frozenset(ignored)
    known = set(dict(model.named_modules()))
    left_out = dict(findings.left_out)
    while failed := ({name.partition("#")[0] for name in findings.left_out} & known) - every:
        every |= failed  # what failed is pinned, and the rest is proven anew
        findings = examine(model, example, sorted(every))
        left_out |= findings.left_out
    return replace(findings, left_out=left_out), every


def plan(config: StudyConfig, workload: Workload | None = None) -> Plan:
    """Load the data, build the network and the space; train nothing.

    Args:
        config: The configuration.
        workload: Network and data that are in hand; loaded by their names if ``None``.

    Returns:
        The plan.
    """
    task = load_task(config.task, config.task_options)
    objectives = load_objectives(config.objectives, task)
    require_reports(objectives, {name: load_method(name) for name in config.methods})
    make_scheduler(config.scheduler, config.scheduler_options, sketch_aim(objectives), config.seed)
    if is_reference(config.resources.executor):  # ours are imported when they are needed: Ray takes a second
        load_executor(config.resources.executor)
    device, gpus = _choose_device(config)
    timed = conditions(config, device)  # a device that is not there is told before data are loaded
    workload = workload or _load_workload(config, task)
    (model, fit), example = workload.fitted(), workload.data.example
    findings, ignored = prove_channels(model, example, config.ignored)
    groups = findings.groups
    recipe, epochs = resolve_recipe(config.finetune, "finetune", config.data)
    cost, round_to = findings.cost, channel_step(config, timed)
    layers = [group.layer for group in groups]
    floor = _floor(cost, layers, round_to)
    space = study_space(config.methods, layers, config.allocation, config.space, floor, config.preset, recipe)
    workload.check(model)
    untrained = _needs_no_training(config, objectives)
    steps = 0 if untrained else max(1, math.ceil(epochs * workload.data.train.steps(recipe.batch_size)))
    problem = Problem(
        model=model,
        example=example,
        train=workload.data.train,
        validation=workload.data.validation,
        recipe=recipe,
        steps=steps,
        generator=torch.Generator().manual_seed(config.seed),
        ignored=ignored,
        task=task,
        known=Anatomy.of(model, example, ignored, groups, cost),
    )
    costs = PointCosts(problem, round_to)
    limits = read_limits(config, costs.dense, costs.least)
    beyond: list[str] = []
    if limits.hard:
        space, free = fix_known_costs(space, config.methods)
        beyond = [f"{name} decides by itself what it leaves: its trials may lie outside the limits" for name in free]
    _refuse_repeats(config, space)
    names = [objective.name for objective in objectives]
    earlier = read_earlier(config, workload, space, steps, recipe.model_dump(mode="json"), names)
    first = within_limits(_first(config, space, limits, costs, earlier), space, limits, costs, costs.dense)
    warnings = [
        *_weight_notes(config, fit),
        *beyond,
        *earlier.notes,
        *check_methods(space, config.methods, config.shares, problem, round_to),
    ]
    return Plan(
        config=config,
        workload=workload,
        groups=groups,
        cost=cost,
        params=findings.dense.params,
        space=space,
        first=first,
        earlier=earlier.tried,
        recipe=recipe,
        steps=steps,
        device=device,
        gpus_per_trial=gpus,
        timed=timed,
        round_to=round_to,
        limits=limits,
        problem=problem,
        warnings=warnings,
        findings=findings,
        ignored=ignored,
    )


def _without_method(point: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in point.items() if name != METHOD}


def sketch_aim(objectives: Sequence[Objective]) -> Aim:
    """Say what a sweep searches for before its dense network is there.

    Args:
        objectives: The objectives.

    Returns:
        The aim without references, limits and the dense network's values.
    """
    return Aim(tuple(Axis(each.name, each.maximise, each.quality, each.ideal, worst=each.ideal) for each in objectives))


def require_same(files: StudyFiles, workload: Workload) -> None:
    """Refuse to go on with a study over another network or other data than it was begun with.

    Args:
        files: The study.
        workload: Network and data as they are now.

    Raises:
        InputError: If they differ, by what.
    """
    found = differences(files.record().get("identity", {}), study_identity(workload))
    if found:
        raise InputError(
            f"study {files.name!r} was begun with something else: {'; '.join(found)}. Its trials could not "
            "be compared; bring that back, or begin a new study with --name"
        )


def _load_workload(config: StudyConfig, task: Task) -> Workload:
    """Load network and data by their names."""
    if config.model.startswith(IN_HAND):
        raise InputError(
            f"study {config.name!r} was made from a network and data in hand, which no file holds; search anew in "
            "Python: paretoprune.search(model, train, name=...)"
        )
    return Workload.load(
        config.model,
        config.data,
        config.data_root,
        config.split,
        config.seed,
        config.weights,
        task,
        config.augment,
        config.freeze_backbone,
    )


def _weight_notes(config: StudyConfig, fit: Fit) -> list[str]:
    """Say what of the user's weights did not fit, and what follows."""
    if not config.freeze_backbone:
        return [fit.sentence()] if fit.head else []
    if config.weights is None:
        raise InputError("freeze_backbone = true needs weights for the backbone; set weights, or leave it out")
    if not fit.head:
        return ["freeze_backbone changes nothing: the weights fit as they are, and nothing is trained"]
    return [f"{fit.sentence()}, its backbone being frozen"]


def _needs_no_training(config: StudyConfig, objectives: Sequence[Objective]) -> bool:
    """Whether trials need not be fine-tuned, because no objective would change."""
    return config.finetune.epochs is None and not any(each.trained for each in objectives)


def _refuse_repeats(config: StudyConfig, space: Space) -> None:
    """Refuse more trials than there are points: repeats would only let the luckiest seed become the front.

    Args:
        config: The configuration.
        space: The space of the study.

    Raises:
        InputError: If there are fewer points than trials.
    """
    if config.sampler == "defaults":
        return  # its points are counted where they are listed
    points = count_points(space, config.trials)
    if points is not None and points < config.trials:
        raise InputError(
            f"trials = {config.trials}, but the space has only {points} point{'s' * (points != 1)}; set trials = "
            f"{points} or leave more of it open (the same point again would differ by its seed alone)"
        )


def _first(
    config: StudyConfig, space: Space, limits: Limits, costs: PointCosts, earlier: Earlier
) -> list[dict[str, Value]]:
    """Return the points that are tried first: with sampler ``"defaults"`` all there are."""
    own = [complete_point(space, str(point["method"]), _without_method(point)) for point in config.points]
    if len(own) > config.trials:
        raise InputError(f"points: {len(own)} are given, for {config.trials} trials; set trials = {len(own)} or more")
    if resolve_sampler(config.sampler, space) != "defaults":
        known = {each["method"] for each in earlier.tried}
        new = [method for method in config.methods if method not in known]  # the others were tried already
        spread = spread_points(space, new, config.trials, config.seed, costs.band(limits)) if new else []
        tried = [*own, *earlier.points]
        named = {point[METHOD] for point in earlier.points}
        more = [point for point in spread if point not in tried and point[METHOD] not in named]
        return [*tried, *more][: config.trials]
    if own:
        raise InputError("points are not tried with sampler = 'defaults', whose points are all given; leave one out")
    points = first_points(space, config.methods, config.shares)
    if not points:
        why = "shares is empty" if not config.shares else "no method has values for all its parameters within [space]"
        raise InputError(f"sampler = 'defaults' has nothing to try: {why}; set shares, such as shares = [0.5, 0.25]")
    if config.trials > len(points):
        raise InputError(
            f"sampler = 'defaults' gives {len(points)} points ({len(config.methods)} methods at "
            f"{len(config.shares)} shares of the FLOPs), trials = {config.trials} are too many; set trials = "
            f"{len(points)}"
        )
    refuse_idle_bounds(space, points, config.space)
    return points


def _floor(cost: CostModel, layers: Sequence[LayerGroup], round_to: int) -> float:
    """Share of the dense FLOPs that rounded widths can always reach; 0 where nothing is rounded."""
    if round_to == 1:
        return 0.0
    return cost.flops(Uniform(ratio=HIGHEST_RATIO).keep(layers, cost.flops, round_to)) / cost.dense


def dense_setting(
    plan: Plan, report: Callable[[Record, int], None], latency: float | None = None
) -> tuple[Setting, DenseRow]:
    """Get the trained dense network: the user's, or trained once and cached.

    Args:
        plan: The plan.
        report: Called with each epoch's record and the number of epochs, if there is training.
        latency: Latency of the dense network, where the study has measured it before: the latencies of all its
            trials are relative to it.

    Returns:
        What all trials share, and the front's first row.
    """
    config, data = plan.config, plan.workload.data
    transferred = config.weights is not None and bool(plan.workload.fitted()[1].head)
    recipe, epochs = resolve_recipe(config.dense, "transfer" if transferred else "dense", config.data)
    if plan.timed is not None:
        check_targets(plan.timed, plan.workload.build(), data.example)  # before hours are spent on training
    objectives = load_objectives(config.objectives, plan.workload.task)
    if any(objective not in OBJECTIVES.values() for objective in objectives):
        # Somebody else's measurement is tried on the untrained network, for the same reason.
        untrained = MeasureContext(plan.workload.build().eval(), data.example, data.validation, plan.workload.task)
        measure_metrics(untrained, objectives)
    torch.set_num_threads(_dense_threads(plan.cost.dense))
    trained = dense_network(
        plan.workload,
        recipe,
        epochs,
        config.seed,
        config.directory,
        report=lambda record: report(record, math.ceil(epochs)),
        device=plan.device,
    )
    if plan.timed is not None and latency is None:
        latency = measure_dense(plan.timed, trained.model, data.example).median
    limit = None
    if latency is not None and config.max_latency is not None:
        limit = parse_latency(config.max_latency, latency, "max-latency")
    task = plan.workload.task
    parts = {"train": data.train.fingerprint(), "validation": data.validation.fingerprint()} | task_identity(task)
    setting = Setting(
        model=trained.model,
        example=data.example,
        train=data.train,
        validation=data.validation,
        recipe=plan.recipe,
        steps=plan.steps,
        objectives=config.objectives,
        ignored=plan.ignored,
        threads=config.resources.cpus_per_trial,
        device=plan.device,
        analyses=StoredAnalyses(config.directory / "analyses", analysis_identity(trained.model, parts)),
        round_to=plan.round_to,
        timed=plan.timed,
        dense_latency=latency,
        task=task,
        max_latency=limit,
        anatomy=plan.problem.known,
    )
    require_reachable(setting)
    # One thread, as in the trials: a validation example on the edge must not fall to the other side here.
    torch.set_num_threads(setting.threads)
    context = MeasureContext(trained.model, data.example, data.validation, setting.task)
    metrics = measure_metrics(context, load_objectives(config.objectives, task)) | {"seconds": trained.seconds}
    return setting, DenseRow(metrics if latency is None else metrics | {"latency": latency})


def _dense_threads(flops: int) -> int:
    """Choose threads for training the dense network, which has the machine to itself."""
    return 1 if flops < SMALL else torch.get_num_threads()


def _choose_device(config: StudyConfig) -> tuple[str, float]:
    """Decide where trials compute; a GPU is used where there is one.

    Args:
        config: The configuration.

    Returns:
        ``"cpu"`` or ``"cuda"``, and how many GPUs each trial takes.

    Raises:
        InputError: If trials ask for a GPU that is not there.
    """
    wanted, present = config.resources.gpus_per_trial, torch.cuda.is_available()
    if wanted is None:
        wanted = 1.0 if present else 0.0
    if wanted > 0 and not present:
        raise InputError(
            f"gpus_per_trial = {wanted:g} needs a CUDA device, and torch finds none on this machine; leave it out, or "
            "give 0 for the CPU"
        )
    return ("cuda" if wanted > 0 else "cpu"), wanted
