"""Allocation by damage beside equal shares, a tilt, and a search over every layer, before and after fine-tuning.

    python -m benchmarks.allocation --data-root data --bf16 --store STORE --to allocation.jsonl
    python -m benchmarks.allocation --to docs/results/allocation.jsonl --table

All arms cut the same dense network by L1 norms, estimate batch norm again, and fine-tune with the same recipe, budget
and seeds; they differ in the widths alone:

- ``uniform``: every group loses the same share of its units;
- ``tilt``: shares fall or rise along the depth; of seven tilts the most accurate one after the cut;
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.allocation.arms import NEAR, choose_trial, find_tilt, make_setting, raise_level
from benchmarks.allocation.table import make_table, read_rows
from methods.network.architecture import rebuild
from paretoprune import NullListener, StudyConfig, StudyFiles, Sweep, load_config
from search.driver.dense_setting import dense_setting
from search.driver.plan import Plan
from search.driver.prepare import plan
from search.objectives.quality import measure_quality
from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.store.studies import study_names
from search.study.study import trial_seed
from search.trials.trial import problem_of, run_trial
from spaces import InputError, Value

STUDY = "allocation_search"
"""Name of the sweep."""


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
