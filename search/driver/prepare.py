"""What a study needs before its first trial is planned: data, network, channel groups, space; nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from methods import load_method, method_names
from methods.contract.analyses import Later
from methods.contract.method import Problem
from methods.contract.named import is_reference
from methods.contract.task import Task
from methods.network.anatomy import Anatomy
from methods.network.blocks import Block, find_blocks
from methods.network.cost import CostModel
from methods.network.preflight import Findings, examine
from methods.training.damage import is_worth_measuring
from search.driver.feasible import check_methods
from search.driver.plan import Plan
from search.driver.precision import precision_warnings
from search.driver.training_step import measure_training
from search.driver.warm import Earlier, read_earlier
from search.objectives import Objective, load_objectives, require_reports
from search.objectives.limits import parse_budget
from search.store.studies import IN_HAND, StudyFiles
from search.study.config import Allocation, StudyConfig
from search.study.cost import PointCosts
from search.study.latency import channel_step, conditions
from search.study.limits import move_within_limits, read_limits
from search.study.points import complete_point, count_points, make_first_points, refuse_idle_bounds, spread_points
from search.study.samplers.base import Aim, Axis, Limits
from search.study.samplers.choice import resolve_sampler
from search.study.schedulers.making import make_scheduler
from search.study.space import METHOD, MODE, fix_known_costs, study_space
from search.tasks.identity import differences, study_identity
from search.tasks.models.weights import Fit
from search.tasks.named_tasks import load_task
from search.tasks.recipes import resolve_recipe
from search.tasks.workload import Workload
from search.workers.pool import load_executor
from spaces import InputError, LayerGroup, Space, Uniform, Value
from spaces.layers import HIGHEST_RATIO


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
        every |= failed  # what failed is pinned, and the rest is proven again
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
    # Somebody else's parts are loaded and made now: what is wrong with them is said before anything is trained.
    if is_reference(config.sampler):
        from search.study.samplers.making import make_sampler  # brings optuna, which a look at a network does without

        make_sampler(config.sampler, sketch_aim(objectives), config.seed)
    make_scheduler(config.scheduler, config.scheduler_options, sketch_aim(objectives), config.seed)
    if is_reference(config.resources.executor):  # ours are imported when they are needed: Ray takes a second
        load_executor(config.resources.executor)
    device, gpus = _choose_device(config)
    timed = conditions(config, device)  # a device that is not there is told before data are loaded
    workload = workload or _load_workload(config, task)
    (model, fit), example = workload.build_with_fit(), workload.data.example
    findings, ignored = prove_channels(model, example, config.ignored)
    groups = findings.groups
    recipe, epochs = resolve_recipe(config.finetune, "finetune", config.data)
    cost, round_to = findings.cost, channel_step(config, timed)
    layers = [group.layer for group in groups]
    floor = _floor(cost, layers, round_to)
    blocks = find_blocks(model, example, ignored) if config.blocks else None
    untrained = _needs_no_training(config, objectives)
    steps = 0 if untrained else max(1, math.ceil(epochs * workload.data.train.steps(recipe.batch_size)))
    allocation: Allocation = config.allocation
    if allocation == "auto" and not is_worth_measuring(groups, task, steps * recipe.batch_size):
        allocation = "flops"
    if config.blocks:
        _require_blocks(config, allocation, blocks or [])
    space = study_space(config.methods, layers, allocation, config.space, floor, config.preset, recipe, config.blocks)
    workload.check(model)
    problem = Problem(
        model=model,
        example=example,
        train=workload.data.train,
        validation=workload.data.validation,
        recipe=recipe,
        steps=steps,
        generator=torch.Generator().manual_seed(config.seed),
        ignored=ignored,
        analyses=Later(),
        task=task,
        known=Anatomy.from_groups(model, example, ignored, groups, cost, blocks),
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
    first = move_within_limits(
        _make_first_points(config, space, limits, costs, earlier), space, limits, costs, costs.dense
    )
    warnings = [
        *_weight_notes(config, fit),
        *beyond,
        *_warn_of_short_budgets(config, problem, device),
        *precision_warnings(config, device),
        *earlier.notes,
        *check_methods(space, config.methods, config.shares, problem, round_to),
    ]
    return Plan(
        config=config,
        workload=workload,
        groups=groups,
        cost=cost,
        params=findings.dense.params,
        allocation=allocation,
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


def _require_blocks(config: StudyConfig, allocation: Allocation, blocks: Sequence[Block]) -> None:
    """Refuse to let blocks go where that would change nothing."""
    if not blocks:
        raise InputError(
            f"blocks = true: {config.model} has no residual block that could go as a whole (its output must be its "
            "input plus what its layers add, of the same shape); leave blocks out"
        )
    if not any(load_method(name).removes_blocks for name in config.methods):
        able = [name for name in method_names() if load_method(name).removes_blocks]
        raise InputError(f"blocks = true: none of {', '.join(config.methods)} removes blocks; {', '.join(able)} do")
    damage = [
        name for name in config.methods if config.space.get(name, {}).get(MODE, allocation) in ("damage", "auto", "any")
    ]
    if not damage:
        raise InputError(
            f"blocks = true changes nothing with allocation = {allocation!r}: blocks go by the damage that they "
            "do; set allocation = 'damage'"
        )


def _warn_of_short_budgets(config: StudyConfig, problem: Problem, device: str) -> list[str]:
    """Say that a budget is less than one trial takes, as far as a step that is timed on this CPU can tell."""
    named = {"budget": config.budget, "device-budget": config.device_budget}
    budgets = {name: (text, parse_budget(text, name)) for name, text in named.items() if text is not None}
    if not budgets or device != "cpu" or (training := measure_training(problem.model, problem.example)) is None:
        return []
    expected = training.step_seconds(problem.recipe.batch_size) * problem.steps
    return [
        f"the {name} of {text} is less than one trial takes here: about {expected:.2g} s for its {problem.steps} steps"
        for name, (text, seconds) in budgets.items()
        if seconds < expected * (config.resources.cpus_per_trial if name == "device-budget" else 1)
    ]


def _drop_method(point: Mapping[str, Any]) -> dict[str, Any]:
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


def _make_first_points(
    config: StudyConfig, space: Space, limits: Limits, costs: PointCosts, earlier: Earlier
) -> list[dict[str, Value]]:
    """Return the points that are tried first: with sampler ``"defaults"`` all there are."""
    own = [complete_point(space, str(point["method"]), _drop_method(point)) for point in config.points]
    if len(own) > config.trials:
        raise InputError(f"points: {len(own)} are given, for {config.trials} trials; set trials = {len(own)} or more")
    if resolve_sampler(config.sampler, space) != "defaults":
        known = {each["method"] for each in earlier.tried}
        new = [method for method in config.methods if method not in known]  # the others were tried already
        spread = spread_points(space, new, config.trials, config.seed, costs.find_band(limits)) if new else []
        tried = [*own, *earlier.points]
        named = {point[METHOD] for point in earlier.points}
        more = [point for point in spread if point not in tried and point[METHOD] not in named]
        return [*tried, *more][: config.trials]
    if own:
        raise InputError("points are not tried with sampler = 'defaults', whose points are all given; leave one out")
    points = make_first_points(space, config.methods, config.shares)
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
