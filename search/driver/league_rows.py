"""One row of a league: a trial of a method, or a smaller network trained from the beginning.

A row is kept at every epoch beside the networks, until it is there: what is interrupted, or paused when the time of the
league is over, goes on from there to the same numbers.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from methods import load_method
from methods.contract.data import Split
from methods.contract.recipe import Recipe, derive_seed
from methods.contract.session import Decision, Paused, Rung, Saved
from methods.network.architecture import describe, rebuild
from methods.network.channels import cut
from methods.network.initial import reinitialise
from methods.training.trainer import Diverged, Trainer
from search.objectives import MeasureContext, load_objectives
from search.objectives.quality import measure_quality
from search.records.league import LeagueRow
from search.records.trial_spec import TrialSpec
from search.store.checkpoints import Checkpoints
from search.store.files import write_json
from search.store.weights import save_weights
from search.trials.checkpoint import open_checkpoints
from search.trials.trial import Setting, measure_metrics, problem_of, run_trial
from spaces import FlopsTarget

Say = Callable[[str], None]

SILENCE = 60.0
"""Seconds after which a row says how far it is."""


def say_nothing(line: str) -> None:
    """Say nothing.

    Args:
        line: A line, ignored.
    """


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
        ends: When the row pauses at its next epoch, in seconds since the epoch of ``time.time()``.
        say: Called with a line of text now and then; a function that other processes can find by its name.
    """

    row: LeagueRow
    spec: TrialSpec | None
    setting: Setting
    test: Split
    dense_recipe: Recipe
    dense_steps: int
    folder: Path
    ends: float = math.inf
    say: Say = say_nothing

    @property
    def steps(self) -> int:
        """Optimiser steps of the row: the smaller network has those of the dense one, too."""
        return self.setting.steps + (self.dense_steps if self.spec is None else 0)

    @property
    def stem(self) -> str:
        """Name of the row's files."""
        arm, share, seed = self.row.key
        return re.sub(r"[^A-Za-z0-9.=_-]+", "_", f"{arm}-{share}-{seed}")


def run_row(job: Job) -> LeagueRow | None:
    """Run one row, or what is missing of it; a failure is a row as well.

    Args:
        job: What it needs.

    Returns:
        The row, its network kept in the folder of the job; ``None`` if its time was over before.
    """
    if job.row.error:
        return replace(job.row, state="failed")
    folder = job.folder / f"{job.stem}.unfinished"
    if job.spec is None:
        states = Checkpoints(folder, _describe_smaller(job))
    else:
        states = open_checkpoints(folder, job.setting, job.spec)
    session = Saved(states, _watch(job))
    try:
        row = _run_smaller(job, session) if job.spec is None else _run_method(job, job.spec, session)
    except Paused:
        return None
    states.clear()
    return row


def _watch(job: Job) -> Callable[[Rung], Decision]:
    """Make what looks at every epoch: it says how far the row is, and when its time is over."""
    said = time.monotonic()

    def decide(rung: Rung) -> Decision:
        nonlocal said
        if time.monotonic() - said > SILENCE:
            said = time.monotonic()
            job.say(f"{_start_line(job.row)}  step {rung.step:,} of {job.steps:,}")
        return "pause" if time.time() >= job.ends and rung.step < job.steps else "continue"

    return decide


def _run_method(job: Job, spec: TrialSpec, session: Saved) -> LeagueRow:
    finished = run_trial(job.setting, spec, session=session)
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
        test=measure_test(job.setting, model, job.test),
        before=outcome.extra.get(f"{quality}_cut", math.nan),
        flops=outcome.metrics["flops"],
        params=outcome.metrics["params"],
        seconds=outcome.seconds,
        steps=outcome.extra["steps"],
        channel_share=outcome.extra.get("channel_share", math.nan),
        point=dict(spec.point),
    )


def _describe_smaller(job: Job) -> dict[str, Any]:
    """Say what decides the training of a smaller network."""
    setting = job.setting
    return {
        "row": [*job.row.key],
        "steps": job.steps,
        "recipe": (job.dense_recipe if job.dense_steps else setting.recipe).model_dump(mode="json"),
        "round_to": setting.round_to,
        "device": setting.device,
        "threads": setting.threads,
    }


def _run_smaller(job: Job, session: Saved) -> LeagueRow:
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
    trainer = Trainer(
        model,
        setting.train,
        job.dense_recipe if job.dense_steps else setting.recipe,
        job.steps,
        derive_seed(seed, 1),
        teacher=setting.model,
        task=setting.task,
        comparable=True,
    )
    try:
        session.train("train", trainer)
    except Diverged as error:
        return replace(
            job.row, state="failed", error=str(error), seconds=session.earlier_seconds + time.perf_counter() - clock
        )
    seconds = session.earlier_seconds + time.perf_counter() - clock
    context = MeasureContext(model, setting.example, setting.validation, setting.task)
    metrics = measure_metrics(
        context, [each for each in load_objectives(setting.objectives, setting.task) if not each.reported_by]
    )
    _keep_network(job, describe(job.setting.model, model.cpu()), model)
    return replace(
        job.row,
        validation=metrics[setting.objectives[0]],
        test=measure_test(setting, model, job.test),
        flops=metrics["flops"],
        params=metrics["params"],
        seconds=seconds,
        steps=float(job.steps),
    )


def measure_test(setting: Setting, model: nn.Module, test: Split) -> float:
    """Measure the quality of a network on the test set, on the device of the rows.

    Args:
        setting: Says where, and what counts.
        model: The network; not changed, and not moved.
        test: The test set.

    Returns:
        The first objective; NaN where it is not one of the task's.
    """
    found = measure_quality(model, test, setting.task, setting.device)
    return found.get(setting.objectives[0], math.nan)


def _keep_network(job: Job, architecture: dict[str, Any], model: nn.Module) -> None:
    """Store a network: its architecture and its weights."""
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(job.folder / f"{job.stem}.json", architecture)
    weights = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    save_weights(weights, job.folder / f"{job.stem}.safetensors")


def row_line(row: LeagueRow) -> str:
    """Say a row in a line.

    Args:
        row: The row.

    Returns:
        Seed, arm and share, and what came of it.
    """
    start = _start_line(row)
    if row.state == "failed":
        return f"{start}  failed: {row.error}"
    return f"{start}  test {row.test:.4f}  validation {row.validation:.4f}  {row.flops:,.0f} FLOPs  {row.seconds:.1f} s"


def _start_line(row: LeagueRow) -> str:
    """Say which row it is."""
    share = "" if math.isnan(row.share) else f" at {row.share:.4g}"
    return f"seed {row.seed}  {row.arm}{share}"
