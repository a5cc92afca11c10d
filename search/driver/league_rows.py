"""One row of a league: a trial of a method, or a smaller network trained from the beginning."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from methods import load_method
from methods.contract.data import Split
from methods.contract.recipe import Recipe, derive_seed
from methods.network.architecture import describe, rebuild
from methods.network.channels import cut
from methods.network.initial import reinitialise
from methods.training.trainer import Diverged, Trainer
from search.objectives import MeasureContext, load_objectives
from search.objectives.quality import measure_quality
from search.records.league import LeagueRow
from search.records.trial_spec import TrialSpec
from search.store.files import write_json
from search.store.weights import save_weights
from search.trials.trial import Setting, measure_metrics, problem_of, run_trial
from spaces import FlopsTarget


@dataclass(frozen=True)
class Job:
    """All that one row needs, fit to be sent to another process.

    Attributes:
        row: The row as far as it is known: arm, share and seed, or why it cannot be run.
        spec: The trial to run; ``None`` for the smaller network.
        setting: What all rows of a seed share.
        test: The test set.
        dense_recipe: How the dense network was trained.
        dense_steps: Steps of that training; 0 where its weights were given.
        folder: Where the networks of rows are kept.
    """

    row: LeagueRow
    spec: TrialSpec | None
    setting: Setting
    test: Split
    dense_recipe: Recipe
    dense_steps: int
    folder: Path


def run_row(job: Job) -> LeagueRow:
    """Run one row; a failure is a row as well.

    Args:
        job: What it needs.

    Returns:
        The row, its network kept in the folder of the job.
    """
    if job.row.error:
        return replace(job.row, state="failed")
    return _run_smaller(job) if job.spec is None else _run_method(job, job.spec)


def _run_method(job: Job, spec: TrialSpec) -> LeagueRow:
    finished = run_trial(job.setting, spec)
    outcome = finished.outcome
    if outcome.state == "failed" or finished.architecture is None:
        last = (outcome.error or "").strip().splitlines()[-1:]
        return replace(job.row, state="failed", error="".join(last), point=dict(spec.point), seconds=outcome.seconds)
    layers = load_method(spec.method).layers
    model = rebuild(job.setting.model, finished.architecture, finished.weights, layers)
    quality = job.setting.objectives[0]
    _keep_network(job, finished.architecture, model)
    return replace(
        job.row,
        validation=outcome.metrics[quality],
        test=measure_quality(model.eval(), job.test, job.setting.task).get(quality, math.nan),
        before=outcome.extra.get(f"{quality}_cut", math.nan),
        flops=outcome.metrics["flops"],
        params=outcome.metrics["params"],
        seconds=outcome.seconds,
        steps=outcome.extra["steps"],
        channel_share=outcome.extra.get("channel_share", math.nan),
        point=dict(spec.point),
    )


def _run_smaller(job: Job) -> LeagueRow:
    """Train a narrower network from the beginning, for the steps of the dense network and of fine-tuning together."""
    clock = time.perf_counter()
    torch.set_num_threads(job.setting.threads)
    setting = job.setting.move_to_device()
    seed = derive_seed(job.row.seed, 1)
    problem = problem_of(setting, seed)
    groups, cost = problem.groups, problem.cost
    keep = FlopsTarget(flops=job.row.share).keep([group.layer for group in groups], cost.flops, setting.round_to)
    narrow = cut(setting.model, groups, {name: list(range(width)) for name, width in keep.items()})
    model: nn.Module = reinitialise(narrow, derive_seed(seed, 0))
    steps = job.dense_steps + setting.steps
    trainer = Trainer(
        model,
        setting.train,
        job.dense_recipe if job.dense_steps else setting.recipe,
        steps,
        derive_seed(seed, 1),
        teacher=setting.model,
        task=setting.task,
    )
    try:
        trainer.run()
    except Diverged as error:
        return replace(job.row, state="failed", error=str(error), seconds=time.perf_counter() - clock)
    seconds = time.perf_counter() - clock
    context = MeasureContext(model, setting.example, setting.validation, setting.task)
    metrics = measure_metrics(
        context, [each for each in load_objectives(setting.objectives, setting.task) if not each.reported_by]
    )
    model.cpu()
    quality = setting.objectives[0]
    _keep_network(job, describe(job.setting.model.cpu(), model), model)
    return replace(
        job.row,
        validation=metrics[quality],
        test=measure_quality(model, job.test, setting.task).get(quality, math.nan),
        flops=metrics["flops"],
        params=metrics["params"],
        seconds=seconds,
        steps=float(steps),
    )


def _keep_network(job: Job, architecture: dict[str, Any], model: nn.Module) -> None:
    """Store a network: its architecture and its weights."""
    arm, share, seed = job.row.key
    name = re.sub(r"[^A-Za-z0-9.=_-]+", "_", f"{arm}-{share}-{seed}")
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(job.folder / f"{name}.json", architecture)
    weights = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    save_weights(weights, job.folder / f"{name}.safetensors")


def row_line(row: LeagueRow) -> str:
    """Say a row in a line.

    Args:
        row: The row.

    Returns:
        Seed, arm and share, and what came of it.
    """
    share = "" if math.isnan(row.share) else f" at {row.share:.4g}"
    start = f"seed {row.seed}  {row.arm}{share}"
    if row.state == "failed":
        return f"{start}  failed: {row.error}"
    return f"{start}  test {row.test:.4f}  validation {row.validation:.4f}  {row.flops:,.0f} FLOPs  {row.seconds:.1f} s"
