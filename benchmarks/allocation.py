"""Allocation by damage beside equal shares, a tilt, and a search over every layer, before and after fine-tuning.

    python -m benchmarks.allocation --data-root data --bf16 --store STORE --to allocation.jsonl
    python -m benchmarks.allocation --to docs/results/allocation.jsonl --table

All arms cut the same dense network by L1 norms, estimate batch norm again, and fine-tune with the same recipe, budget
and seeds; they differ in the widths alone:

- ``uniform``: every group loses the same share of its units;
- ``tilt``: shares fall or rise along the depth; of :data:`TILTS` the most accurate one after the cut;
- ``damage``: widths of least measured damage (``sparsity.mode = "damage"``), and with whole residual blocks ``blocks``;
- ``search``: one sweep of level and offsets of every group over all shares, by the sampler of the product; of each
  share the most accurate trial's offsets, its level raised until the share is spent.

A seed decides the order of fine-tuning, and the training images that damages and tilts are measured on.
One line of JSON for each network; lines that are in the file already are not made again, and a search that was
stopped is gone on with.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from methods.contract.data import Batch, Split
from methods.contract.inputs import call
from methods.contract.method import Problem
from methods.contract.recipe import derive_seed
from methods.network.architecture import rebuild
from methods.network.channels import cut
from methods.network.cost import CostModel
from methods.network.importance import l1_importance
from methods.training.damage import BATCH, BATCHES
from methods.training.evaluation import evaluation_mode, recalibrate
from methods.training.one_shot import keep_top
from paretoprune import NullListener, StudyConfig, StudyFiles, Sweep, load_config
from search.driver.dense_setting import dense_setting
from search.driver.plan import Plan
from search.driver.prepare import plan
from search.objectives.quality import measure_quality
from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.store.analyses import StoredAnalyses, analysis_identity
from search.store.studies import study_names
from search.study.study import trial_seed
from search.trials.trial import Setting, problem_of, run_trial
from spaces import InputError, LayerGroup, Value
from spaces.sparsity import FlopsTarget, PerLayer

ARMS = ("uniform", "tilt", "damage", "blocks", "search")
"""In the order of the table."""

TILTS = (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6)
"""Tilts that are tried, at equal FLOPs."""

STUDY = "allocation_search"
"""Name of the sweep."""

NEAR = 0.75
"""A trial of the sweep speaks for a share if it spends at least so much of it."""


@dataclass(frozen=True)
class Shuffled:
    """A training split whose epochs have another order and other augmentations.

    Attributes:
        split: The split.
        seed: Which others.
    """

    split: Split
    seed: int

    @property
    def examples(self) -> int:
        """How many examples the split holds."""
        return self.split.examples

    def to(self, device: str) -> Split:
        """Move the split to a device.

        Args:
            device: ``"cpu"`` or ``"cuda"``.

        Returns:
            The same order, there.
        """
        return Shuffled(self.split.to(device), self.seed)

    def steps(self, batch_size: int) -> int:
        """Count the batches of an epoch.

        Args:
            batch_size: Examples per batch.

        Returns:
            The split's own count.
        """
        return self.split.steps(batch_size)

    def epoch(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Return an epoch of the split.

        Args:
            batch_size: Examples per batch.
            seed: Seed of the epoch.
            start: First batch.

        Returns:
            The batches of another seed.
        """
        return self.split.epoch(batch_size, derive_seed(seed, self.seed), start)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Return every example once, in stored order.

        Args:
            batch_size: Examples per batch.

        Returns:
            The split's own batches.
        """
        return self.split.batches(batch_size)


def make_setting(setting: Setting, store: Path, seed: int) -> Setting:
    """Give a setting the training images of a seed, with analyses of their own.

    Args:
        setting: What all networks share.
        store: The run store.
        seed: The seed.

    Returns:
        The setting.
    """
    identity = analysis_identity(setting.model, {"allocation": f"{setting.analyses} {seed}"})
    analyses = StoredAnalyses(store / "analyses", identity)
    return replace(setting, train=Shuffled(setting.train, seed), analyses=analyses)


def measure_after_cut(problem: Problem, kept: Mapping[str, int]) -> float:
    """Measure the quality that a choice of widths leaves, on the images that damages are measured on.

    Args:
        problem: The network and the data.
        kept: Kept units by name of group.

    Returns:
        The task's quality after the cut, batch norm estimated again.
    """
    units = {group.name: keep_top(l1_importance(problem.model, group), kept[group.name]) for group in problem.groups}
    smaller = cut(problem.model, problem.groups, units)
    recalibrate(smaller, problem.train, BATCHES, BATCH, seed=1)
    sums: dict[str, Tensor] = {}
    with evaluation_mode(smaller), torch.no_grad():
        for inputs, target in islice(problem.train.epoch(BATCH, 0), BATCHES):
            found = problem.task.sums(problem.task.output(call(smaller, inputs)), target)
            sums = {name: sums.get(name, 0.0) + each for name, each in found.items()}
    return problem.task.metrics_from(sums)[problem.task.quality.name]


def find_tilt(problem: Problem, share: float) -> float:
    """Find the tilt whose network is the best after the cut.

    Args:
        problem: The network and the data.
        share: Share of the FLOPs.

    Returns:
        One of :data:`TILTS`; those with which the share cannot be reached are passed over.
    """
    layers = [group.layer for group in problem.groups]
    found: tuple[float, float] | None = None
    for tilt in sorted(TILTS, key=abs):  # of equal ones the smallest
        try:
            kept = FlopsTarget(flops=share, tilt=tilt).keep(layers, problem.cost.flops)
        except InputError:
            continue
        quality = measure_after_cut(problem, kept)
        if found is None or problem.task.quality.is_better(quality, found[1]):
            found = tilt, quality
    if found is None:
        raise InputError(f"no tilt reaches {share:.1%} of the FLOPs")
    return found[0]


def raise_level(point: Mapping[str, Value], layers: Sequence[LayerGroup], cost: CostModel, share: float) -> float:
    """Find the largest level whose network keeps to a share of the FLOPs.

    Args:
        point: A trial of the sweep, with level and offsets.
        layers: The groups.
        cost: What widths cost.
        share: The share.

    Returns:
        The level, to within 1e-6.
    """
    offsets = {
        name.partition("[")[2].rstrip("]"): float(value)
        for name, value in point.items()
        if name.startswith("sparsity.layer_offsets[")
    }
    low, high = 0.01, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        kept = PerLayer(level=middle, layer_offsets=offsets).keep(layers, cost.flops)
        low, high = (middle, high) if cost.flops(kept) <= share * cost.dense else (low, middle)
    return low


def choose_trial(outcomes: Sequence[Outcome], dense: int, share: float) -> Outcome:
    """Choose the trial of a sweep that speaks for a share of the FLOPs.

    Args:
        outcomes: Complete trials.
        dense: FLOPs of the dense network.
        share: The share.

    Returns:
        The most accurate one of those that spend between :data:`NEAR` of it and all of it; of all that keep to it,
        where there is none.

    Raises:
        InputError: If every trial costs more.
    """
    within = [each for each in outcomes if each.metrics["flops"] <= share * dense]
    if not within:
        raise InputError(f"no trial of the search has at most {share:.1%} of the FLOPs")
    near = [each for each in within if each.metrics["flops"] >= NEAR * share * dense]
    return max(near or within, key=lambda each: each.metrics["accuracy"])


class Comparison:
    """All networks of one comparison.

    Args:
        given: The command line.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.stop: float = time.monotonic() + 60 * given.minutes
        self.shares = [float(share) for share in given.shares.split(",")]
        self.rows = read_rows(given.to)
        self.planned = plan(self._configure(given.epochs))
        self.setting, self.dense = dense_setting(self.planned, lambda record, total: print(record, flush=True))

    def _configure(self, epochs: float, **more: Any) -> StudyConfig:
        """Make the configuration of so many epochs of fine-tuning."""
        given = self.given
        recipe = "{ bf16 = true, channels_last = true }" if given.bf16 else "{}"
        overrides = [
            f"dense.epochs={given.dense_epochs}",
            f"dense.recipe={recipe}",
            f"finetune.epochs={epochs}",
            f"finetune.recipe={recipe}",
            'resources.executor="inline"',
            f'data_root="{given.data_root}"',
            "exports=[]",
        ]
        named = {"model": given.model, "data": given.data, "methods": ("magnitude",), "directory": given.store}
        return load_config(None, overrides, **{**named, **more})

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.stop

    def run(self) -> None:
        """Make the networks that are missing, as far as the time goes."""
        if not self.rows:
            self._write(describe_run(self.given, self.planned, self.dense.metrics))
        seeds = range(self.given.seeds)
        self._make_all(("uniform", "damage", "tilt"), seeds[:1])
        outcomes = [] if self.over else self._search()
        if len(outcomes) >= self.given.search_trials:
            self._make_all(("search", "uniform", "tilt", "damage"), seeds, outcomes)
        self._make_all(("uniform", "tilt", "damage", "blocks"), seeds)

    def _make_all(self, arms: Sequence[str], seeds: Sequence[int], outcomes: Sequence[Outcome] = ()) -> None:
        """Make the networks of some arms at all shares, seed after seed."""
        for seed in seeds:
            for share in self.shares:
                for arm in arms:
                    self._make(arm, share, seed, outcomes)

    def _make(self, arm: str, share: float, seed: int, outcomes: Sequence[Outcome] = ()) -> None:
        """Cut, measure and fine-tune one network, unless it is there."""
        if self.over or any((r["arm"], r["share"], r["seed"]) == (arm, share, seed) for r in self.rows if "arm" in r):
            return
        setting = make_setting(self.setting, self.given.store, seed)
        problem = problem_of(setting, seed)
        began = time.process_time()
        point: dict[str, Value] = {"sparsity.mode": "flops", "sparsity.flops": share, "sparsity.tilt": 0.0}
        origin = None
        if arm == "tilt":
            point["sparsity.tilt"] = find_tilt(problem, share)
        elif arm in {"damage", "blocks"}:
            point = {"sparsity.mode": "damage", "sparsity.flops": share, "sparsity.blocks": arm == "blocks"}
        elif arm == "search":
            try:
                best = choose_trial(outcomes, self.planned.cost.dense, share)
            except InputError as error:
                print(error, flush=True)
                return
            origin, layers = best.number, [group.layer for group in problem.groups]
            point = {**best.point, "sparsity.level": raise_level(best.point, layers, problem.cost, share)}
        finished = run_trial(setting, TrialSpec(0, "magnitude", point, trial_seed(seed, 0)))
        outcome = finished.outcome
        if finished.architecture is None:
            raise InputError(f"{arm} at {share:.1%} of the FLOPs failed: {outcome.error}")
        model = rebuild(setting.model, finished.architecture, finished.weights)
        test = measure_quality(model, self.planned.workload.data.test, self.planned.workload.task)
        self._write({
            "arm": arm,
            "share": share,
            "seed": seed,
            "flops": outcome.metrics["flops"] / self.dense.flops,
            "params": outcome.metrics["params"] / self.dense.params,
            "cut": outcome.extra["accuracy_cut"],
            "accuracy": outcome.metrics["accuracy"],
            "test": test["accuracy"],
            "widths": [kept for kept, _ in outcome.widths.values()],
            "point": point,
            "trial": origin,
            "seconds": round(time.process_time() - began, 1),
        })

    def _search(self) -> list[Outcome]:
        """Run the sweep, or go on with it; the complete trials that there are."""
        left = (self.stop - time.monotonic()) / 60
        if STUDY in study_names(self.given.store):
            sweep = Sweep.resume(STUDY, self.given.store, NullListener())
        else:
            limits = {"min_flops": f"{min(self.shares) * NEAR}", "max_flops": f"{max(self.shares)}"}
            more = {"name": STUDY, "trials": self.given.search_trials, "allocation": "layer", **limits}
            more["max_drop"] = self.given.max_drop  # the cheapest networks must be worth something to it
            if left < 1e6:
                more["budget"] = f"{max(1, round(left))}min"
            sweep = Sweep(self._configure(self.given.search_epochs, **more), NullListener())
        sweep.run()
        return [each for each in StudyFiles.open(self.given.store, STUDY).outcomes() if each.complete]

    def _write(self, row: dict[str, Any]) -> None:
        """Keep a row, here and in the file."""
        self.rows.append(row)
        with self.given.to.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print({name: value for name, value in row.items() if name not in {"point", "widths"}}, flush=True)


def describe_run(given: argparse.Namespace, planned: Plan, dense: Mapping[str, float]) -> dict[str, Any]:
    """Say what all networks of a comparison have in common.

    Args:
        given: The command line.
        planned: The plan.
        dense: Measurements of the dense network.

    Returns:
        The first row of the file.
    """
    return {
        "model": given.model,
        "data": given.data,
        "dense_epochs": given.dense_epochs,
        "epochs": given.epochs,
        "search_epochs": given.search_epochs,
        "search_trials": given.search_trials,
        "bf16": given.bf16,
        "dense": dict(dense),
        "groups": len(planned.problem.groups),
        "validated": planned.workload.data.validation.examples,
        "tested": planned.workload.data.test.examples,
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a comparison.

    Args:
        path: The file, which need not be there.

    Returns:
        The rows.
    """
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def make_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write a comparison as Markdown.

    Args:
        rows: The rows of its file.

    Returns:
        A table, and what follows from it.
    """
    common, made = rows[0], [row for row in rows if "arm" in row]
    lines = [
        f"The dense network has {common['dense']['accuracy']:.2%} on validation ({common['validated']} images).",
        "",
        "| FLOPs | allocation | seeds | before fine-tuning | validation | test | parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    for share in sorted({row["share"] for row in made}, reverse=True):
        for arm in ARMS:
            own = [row for row in made if (row["arm"], row["share"]) == (arm, share)]
            if not own:
                continue
            cells = [_show([row[name] for row in own]) for name in ("cut", "accuracy", "test")]
            tilts = {row["point"]["sparsity.tilt"] for row in own} if arm == "tilt" else set()
            name = f"{arm} ({', '.join(f'{tilt:+g}' for tilt in sorted(tilts))})" if tilts else arm
            params = np.mean([row["params"] for row in own])
            lines.append(f"| {share:.1%} | {name} | {len(own)} | {' | '.join(cells)} | {params:.1%} |")
    return "\n".join([*lines, "", *_compare(made)])


def _show(values: Sequence[float]) -> str:
    """Write the mean of some seeds, and their range."""
    if len(values) == 1:
        return f"{values[0]:.2%}"
    return f"{np.mean(values):.2%} ({100 * min(values):.2f} to {100 * max(values):.2f})"


def _compare(made: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where damage is ahead before fine-tuning, and how it stands to each other arm after it, seed by seed."""
    lines = []
    for share in sorted({row["share"] for row in made}, reverse=True):
        at = {(row["arm"], row["seed"]): row for row in made if row["share"] == share}
        for arm in (each for each in ARMS if each != "damage"):
            seeds = [seed for name, seed in at if name == arm and ("damage", seed) in at]
            if not seeds:
                continue
            parts = []
            for name, said in (("cut", "before"), ("accuracy", "validation"), ("test", "test")):
                gaps = 100 * np.array([at["damage", seed][name] - at[arm, seed][name] for seed in seeds])
                error = f" ± {gaps.std(ddof=1) / len(gaps) ** 0.5:.2f}" if len(gaps) > 1 else ""
                parts.append(f"{said} {gaps.mean():+.2f}{error}")
            lines.append(f"- {share:.1%}, `damage` less `{arm}`, in points: {', '.join(parts)}.")
    return lines


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        arguments: Its words; ``None`` for those of this process.

    Returns:
        The options.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="resnet20", help="network")
    parser.add_argument("--data", default="cifar10", help="data set")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="where data sets lie")
    parser.add_argument("--dense-epochs", type=float, default=30, help="training of the dense network")
    parser.add_argument("--epochs", type=float, default=1.0, help="fine-tuning of every network")
    parser.add_argument("--search-epochs", type=float, default=1.0, help="fine-tuning of a trial of the search")
    parser.add_argument("--search-trials", type=int, default=60)
    parser.add_argument("--max-drop", type=float, default=30.0, help="points of accuracy that the search looks at")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", default="0.5,0.25,0.125", help="shares of the FLOPs")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 and channels last")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no further network after so long")
    parser.add_argument("--store", type=Path, default=Path("mlruns"), help="the run store")
    parser.add_argument("--to", type=Path, required=True, help="the rows")
    parser.add_argument("--table", action="store_true", help="print what is there, make nothing")
    return parser.parse_args(arguments)


def main() -> None:
    """Compare, or print what came out."""
    given = parse()
    if given.table:
        print(make_table(read_rows(given.to)))
    else:
        Comparison(given).run()


if __name__ == "__main__":
    main()
