"""One trial as a pure function: a setting and a point go in, an outcome and a network come out.

Nothing here knows of Ray, Optuna or MLflow, and nothing is written (but for a lock while latency is measured): a
trial runs wherever torch runs.
"""

from __future__ import annotations

import copy
import math
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from methods.contract.analyses import Analyses, Fresh, Progress, ignore_progress
from methods.contract.classification import Classification
from methods.contract.data import Split
from methods.contract.inputs import Inputs, move
from methods.contract.method import Problem, Pruned, Report, ignore_record
from methods.contract.recipe import Recipe
from methods.contract.session import Paused, Session, Uninterrupted
from methods.contract.task import Task
from methods.network.anatomy import Anatomy
from methods.network.architecture import describe
from methods.network.blocks import list_groups_without, remove_blocks
from methods.network.channels import cut
from search.objectives import OBJECTIVES, Measure, MeasureContext, Objective, load_objectives
from search.records.outcome import Outcome, State
from search.records.text import strip_control_characters
from search.records.timing import Timing
from search.records.trial_spec import TrialSpec
from search.speed.conditions import Conditions
from search.speed.measure import measure_pair
from search.study.build import build_method
from search.study.recipe_space import trial_recipe
from search.trials.kinds import failure_kind, require_finite
from spaces import InputError
from spaces.errors import kind_and_line


@dataclass(frozen=True)
class Setting:
    """What all trials of a sweep share; made once by the driver.

    Attributes:
        model: The trained dense network, on the CPU.
        example: One input, ``[1, ...]``, or a tuple or dict of such tensors, on the CPU.
        train: Training data, on the CPU.
        validation: Validation data, on the CPU. There is no test data here: no trial may see it.
        recipe: How every method fine-tunes.
        steps: Budget of every trial in optimiser steps.
        objectives: What is measured, by name.
        ignored: Modules whose output channels must all stay.
        threads: Torch threads per trial; results depend on it in the last digits.
        device: ``"cpu"`` or ``"cuda"``.
        analyses: Where costly analyses of the dense network are shared.
        round_to: Kept widths are multiples of this in every method that has such a field.
        timed: How the pruned network is timed; ``None`` if it is not.
        dense_latency: Seconds of the dense network on the first target; needed where there is ``timed``.
        task: What the network is for: loss and metrics.
        max_latency: Most seconds of one pass on the first target; a slower network is refused before it is trained.
        anatomy: Channel groups and costs of the dense network, found once for all trials; ``None`` if every trial
            finds them itself.
    """

    model: nn.Module
    example: Inputs
    train: Split
    validation: Split
    recipe: Recipe
    steps: int
    objectives: tuple[str, ...]
    ignored: frozenset[str] = frozenset()
    threads: int = 1
    device: str = "cpu"
    analyses: Analyses = Fresh()
    round_to: int = 1
    timed: Conditions | None = None
    dense_latency: float | None = None
    task: Task = field(default_factory=Classification)
    max_latency: float | None = None
    anatomy: Anatomy | None = field(default=None, repr=False)

    def move_to_device(self) -> Setting:
        """Return the setting with everything on its device; this one stays where it is.

        Returns:
            Itself on the CPU, else a copy.
        """
        if self.device == "cpu":
            return self
        return replace(
            self,
            model=copy.deepcopy(self.model).to(self.device),  # which moves a network itself
            example=move(self.example, self.device),
            train=self.train.to(self.device),
            validation=self.validation.to(self.device),
        )


@dataclass(frozen=True)
class Finished:
    """What a trial leaves behind.

    Attributes:
        outcome: The record.
        architecture: Description of the cut network for ``methods.network.architecture.rebuild``; ``None`` if the
            trial failed.
        weights: State dictionary of the cut network on the CPU; empty if the trial failed.
        kept: Indices of the kept units of each group, ascending; empty if the trial failed.
    """

    outcome: Outcome
    architecture: dict[str, Any] | None
    weights: Mapping[str, Tensor]
    kept: Mapping[str, Sequence[int]] = field(default_factory=dict)


def run_trial(
    setting: Setting,
    spec: TrialSpec,
    report: Report = ignore_record,
    progress: Progress = ignore_progress,
    session: Session | None = None,
) -> Finished:
    """Prune, fine-tune and measure.

    Args:
        setting: What all trials share; not changed.
        spec: Which trial.
        report: Called with one record per epoch.
        progress: Is called with how far an analysis is.
        session: Where the costly parts of the trial run; one that keeps nothing, if there is none.

    Returns:
        What came out. An exception inside the trial is part of the result, with its kind as the state and the
        traceback, for a sweep must survive it; so is the end of a trial that the session stopped at a rung. A network
        whose weights are not all numbers is no result: the trial has diverged.

    Raises:
        Paused: If the session paused the trial, which is to be gone on with.
    """
    session = Uninterrupted() if session is None else session
    torch.set_num_threads(setting.threads)
    setting = setting.move_to_device()
    started = time.time()
    clock = time.perf_counter()
    records: list[dict[str, float]] = []

    def keep(record: dict[str, float]) -> None:
        records.append(record)
        report(record)

    try:
        problem = _problem(setting, spec, keep, progress, session)
        early = _time_widths(setting, spec, problem)
        pruned = _prune(setting, spec, problem)
        require_finite(pruned.model)
        seconds = session.earlier_seconds + time.perf_counter() - clock
        timings, untimed = early.find_timings(problem, pruned) or _timings(setting, pruned.model)
        outcome = Outcome(
            number=spec.number,
            method=spec.method,
            point=spec.point,
            state="complete",
            metrics=_measure(setting, pruned, seconds) | _latency(setting, timings),
            history=[dict(record) for record in pruned.history],
            widths=_widths(problem, pruned),
            extra=dict(pruned.extra) | {"steps": float(pruned.steps)},
            seed=spec.seed,
            error=None,
            started=started,
            seconds=seconds,
            profiles={name: list(pairs) for name, pairs in pruned.profiles.items()},
            timings=timings,
            untimed=untimed,
        )
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in pruned.model.state_dict().items()}
        return Finished(outcome, describe(setting.model, pruned.model), weights, pruned.kept)
    except Paused as paused:
        if paused.decision == "pause":
            raise
        spent = session.earlier_seconds + time.perf_counter() - clock
        return Finished(make_failed_outcome(spec, str(paused), started, spent, records, "stopped"), None, {})
    except (Exception, SystemExit) as error:  # a method that ends the program ends its trial
        spent = session.earlier_seconds + time.perf_counter() - clock
        text, kind = traceback.format_exc(), failure_kind(error)
        return Finished(make_failed_outcome(spec, text, started, spent, records, kind), None, {})


def make_failed_outcome(
    spec: TrialSpec,
    error: str,
    started: float,
    seconds: float,
    history: list[dict[str, float]],
    state: State = "failed",
) -> Outcome:
    """Record a trial that ended without a network.

    Args:
        spec: Which trial.
        error: The traceback, or what is known of the end.
        started: When it began, seconds since the epoch.
        seconds: How long it ran.
        history: What it reported before.
        state: How it ended; not ``"complete"``.

    Returns:
        The outcome.
    """
    return Outcome(
        number=spec.number,
        method=spec.method,
        point=spec.point,
        state=state,
        metrics={},
        history=history,
        widths={},
        extra={},
        seed=spec.seed,
        error=strip_control_characters(error),
        started=started,
        seconds=seconds,
    )


def problem_of(setting: Setting, seed: int) -> Problem:
    """State what methods are given, without reports.

    Args:
        setting: What all trials share.
        seed: Decides everything random.

    Returns:
        The problem.
    """
    spec = TrialSpec(0, "", {}, seed)
    return _problem(setting, spec, ignore_record, ignore_progress, Uninterrupted())


def _problem(setting: Setting, spec: TrialSpec, report: Report, progress: Progress, session: Session) -> Problem:
    """Make what the method is given; groups and costs that are not known are found once, when they are first needed."""
    return Problem(
        model=setting.model,
        example=setting.example,
        train=setting.train,
        validation=setting.validation,
        recipe=trial_recipe(setting.recipe, spec.point),
        steps=setting.steps,
        generator=torch.Generator().manual_seed(spec.seed),
        report=report,
        ignored=setting.ignored,
        analyses=setting.analyses,
        progress=progress,
        task=setting.task,
        session=session,
        known=setting.anatomy,
    )


def _prune(setting: Setting, spec: TrialSpec, problem: Problem) -> Pruned:
    """Build the method from the point and let it work."""
    pruned = build_method(spec.method, spec.point, setting.round_to).prune(problem)
    if pruned.steps > setting.steps:
        raise RuntimeError(f"{spec.method} used {pruned.steps} of {setting.steps} steps: the comparison is not fair")
    pruned.model.eval()
    return pruned


def _measure(setting: Setting, pruned: Pruned, seconds: float) -> dict[str, float]:
    """Measure the metrics of the task, every objective, and what every outcome has, on the cut network."""
    objectives = load_objectives(setting.objectives, setting.task)
    metrics = measure_metrics(
        MeasureContext(pruned.model, setting.example, setting.validation, setting.task), objectives
    )
    for objective in objectives:
        if objective.reported_by is not None:
            if objective.name not in pruned.extra:
                raise RuntimeError(f"the method did not report {objective.name}, which it is known to report")
            metrics[objective.name] = pruned.extra[objective.name]
    return metrics | {"seconds": seconds}


def measure_metrics(context: MeasureContext, objectives: Sequence[Objective]) -> dict[str, float]:
    """Measure all that can be measured on a network by itself.

    Args:
        context: The network.
        objectives: What is searched for.

    Returns:
        By name: the metrics of the task, ``flops``, ``params``, and the objectives that are measured on a network. An
        ``InputError`` names an objective that fails or gives something that is not a finite number.
    """
    metrics = dict(context.metrics)
    for objective in dict.fromkeys((OBJECTIVES["flops"], OBJECTIVES["params"], *objectives)):
        if objective.measure is not None:
            metrics[objective.name] = _number(objective, objective.measure, context)
    return metrics


def _number(objective: Objective, measure: Measure, context: MeasureContext) -> float:
    """Measure an objective, which may be of somebody else's making."""
    try:
        value = measure(context)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"objective {objective.name!r} failed: {kind_and_line(error)}") from error
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"objective {objective.name!r} gave {value!r}, which is not a finite number")
    return float(value)


Timings = tuple[dict[str, Timing], dict[str, str]]
"""Comparison by target, and the reason for targets on which it failed."""


@dataclass(frozen=True)
class _Early:
    """What was measured before training: time depends on widths, not on what weights hold.

    Attributes:
        kept: Kept units by name of group; ``None`` if nothing was measured.
        timings: What was measured.
    """

    kept: Mapping[str, int] | None = None
    timings: Timings = field(default_factory=lambda: ({}, {}))

    def find_timings(self, problem: Problem, pruned: Pruned) -> Timings | None:
        """Return what was measured, if the method has made the network that was timed."""
        if self.kept is None or any(
            kept != self.kept.get(name, of) for name, (kept, of) in _widths(problem, pruned).items()
        ):
            return None
        return self.timings


def _time_widths(setting: Setting, spec: TrialSpec, problem: Problem) -> _Early:
    """Time the network that the point will come to, where a limit says that it may be too slow; refuse it if it is."""
    if setting.max_latency is None or setting.timed is None:
        return _Early()
    preview = build_method(spec.method, spec.point, setting.round_to).preview(problem)
    if preview is None or preview.kept is None:
        return _Early()
    kept = {group.name: preview.kept.get(group.name, group.channels) for group in problem.groups}
    left = list_groups_without(problem.groups, preview.removed)
    shallower = remove_blocks(problem.model, preview.removed)
    smaller = cut(shallower, left, {group.name: range(kept[group.name]) for group in left})
    timings = _timings(setting, smaller)
    seconds = _latency(setting, timings[0]).get("latency")
    if seconds is not None and seconds > setting.max_latency:
        raise InputError(
            f"too slow: {1000 * seconds:.3g} ms a pass on {setting.timed.targets[0]}, and max-latency allows "
            f"{1000 * setting.max_latency:.3g} ms; nothing was trained"
        )
    return _Early(kept, timings)


def _timings(setting: Setting, smaller: nn.Module) -> Timings:
    """Time a cut network beside the dense one, where that was asked for."""
    if setting.timed is None:
        return {}, {}
    return measure_pair(setting.timed, setting.model, smaller, setting.example)


def _latency(setting: Setting, timings: Mapping[str, Timing]) -> dict[str, float]:
    """The objective: the dense network's latency times the measured quotient on the first target."""
    if setting.timed is None or setting.dense_latency is None or setting.timed.targets[0] not in timings:
        return {}
    return {"latency": setting.dense_latency * timings[setting.timed.targets[0]].share}


def _widths(problem: Problem, pruned: Pruned) -> dict[str, tuple[int, int]]:
    """Kept and dense units by group."""
    groups = problem.groups
    return {group.name: (len(pruned.kept.get(group.name, range(group.channels))), group.channels) for group in groups}
