"""From the plan of a sweep to what all its trials share: the trained dense network, measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch

from search.driver.plan import Plan
from search.driver.reachable import require_reachable
from search.objectives import OBJECTIVES, MeasureContext, load_objectives
from search.objectives.limits import parse_latency
from search.records.outcome import DenseRow
from search.speed.measure import check_targets, measure_dense
from search.store.analyses import StoredAnalyses, analysis_identity
from search.study.build import build_method
from search.study.points import complete_point
from search.study.space import METHOD
from search.tasks.dense import dense_network
from search.tasks.recipes import resolve_recipe
from search.tasks.workload import task_identity
from search.trials.trial import Setting, measure_metrics, problem_of
from spaces import InputError

Record = dict[str, float]

SMALL = 5_000_000
"""FLOPs below which a step is so short that threads wait for each other longer than they compute."""


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
    transferred = config.weights is not None and bool(plan.workload.build_with_fit()[1].head)
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


def measure_damages(planned: Plan, setting: Setting, methods: Sequence[str]) -> None:
    """Let methods measure the damages that their sparsity follows from: each is asked what one point comes to.

    Args:
        planned: The plan.
        setting: What trials share.
        methods: Names of methods that go by damage.
    """
    problem = problem_of(setting.move_to_device(), planned.config.seed)
    for method in methods:
        point = planned.space.split(complete_point(planned.space, method, {}), METHOD)[1]
        with suppress(InputError):  # of a target that is out of reach, which is known when all is measured
            build_method(method, point, planned.round_to).preview(problem)
