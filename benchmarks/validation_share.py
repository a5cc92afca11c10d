"""How well so many validation images rank pruned networks, and what it costs to take more of them.

    python -m benchmarks.validation_share --validation 0.2,0.4 --configurations 30 --splits 4 --to split.jsonl
    python -m benchmarks.validation_share --to split.jsonl --table

The same configurations, drawn as the recorded trials are, are trained on several splits of the digits, with a fifth for
the test in all of them. The validation and the test images of one network are two independent measurements of the same
thing; how they correlate over networks says how each of them does with what the network is worth, and how twice as many
images would (Spearman and Brown). One line of JSON for each network; lines that are in the file already are not made
again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.replay.record import draw_point
from benchmarks.replay.rungs import correlate_partially
from benchmarks.replay.synthetic import METHODS
from methods import load_method
from methods.network.architecture import rebuild
from search.driver.dense_setting import dense_setting
from search.driver.prepare import plan
from search.objectives.quality import measure_quality
from search.records.trial_spec import TrialSpec
from search.study.config_file import load_config
from search.study.study import trial_seed
from search.trials.trial import run_trial

FEWEST = 12
"""Networks of a split below which nothing is said."""

FIRST = 5000
"""Number of the first configuration: none of the recorded trials."""


def main() -> None:
    """Train, or print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--validation", default="0.2,0.4")
    parser.add_argument("--configurations", type=int, default=30)
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no further network after so long")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="print what is there, train nothing")
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.to.read_text().splitlines()] if given.to.exists() else []
    if given.table:
        _print(rows)
        return
    warnings.simplefilter("ignore")
    done = {(row["validation"], row["split"], row["number"]) for row in rows}
    stop = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as store:
        for split in range(given.splits):
            for validation in map(float, given.validation.split(",")):
                _train(given, validation, split, done, stop, Path(store))


def _train(
    given: argparse.Namespace,
    validation: float,
    split: int,
    done: set[tuple[float, int, int]],
    stop: float,
    store: Path,
) -> None:
    """Train all configurations on one split."""
    numbers = [FIRST + k for k in range(given.configurations) if (validation, split, FIRST + k) not in done]
    if not numbers or time.monotonic() > stop:
        return
    overrides = ['resources.executor="inline"', f"split.validation={validation}", "split.test=0.2"]
    overrides.append(f"split.seed={split}")
    planned = plan(load_config(None, overrides, methods=METHODS, directory=store, trials=100))
    setting, dense = dense_setting(planned, lambda record, total: None)
    for number in numbers:
        if time.monotonic() > stop:
            return
        method, point = draw_point(planned.space, number)
        finished = run_trial(setting, TrialSpec(number, method, point, trial_seed(split, number)))
        if finished.architecture is None:
            continue
        layers = load_method(method).layers
        model = rebuild(setting.model, finished.architecture, finished.weights, layers)
        test = measure_quality(model, planned.workload.data.test, planned.workload.task)
        line = {
            "validation": validation,
            "split": split,
            "number": number,
            "method": method,
            "share": finished.outcome.metrics["flops"] / dense.flops,
            "examples": planned.workload.data.validation.examples,
            "tested": planned.workload.data.test.examples,
            "accuracy": finished.outcome.metrics["accuracy"],
            "test": test["accuracy"],
            "seconds": round(finished.outcome.seconds, 2),
        }
        with given.to.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _print(rows: list[dict[str, Any]]) -> None:
    """Print how well validation images rank networks of a split, and what they cost."""
    print("| validation images | networks | with the test | given the FLOPs | with the truth | with twice as many |")
    print("|---|---|---|---|---|---|")
    for validation in sorted({row["validation"] for row in rows}):
        own = [row for row in rows if row["validation"] == validation]
        plain, given_flops = [], []
        for split in sorted({row["split"] for row in own}):
            here = [row for row in own if row["split"] == split]
            if len(here) < FEWEST:
                continue
            accuracy, test, share = (np.array([row[name] for row in here]) for name in ("accuracy", "test", "share"))
            plain.append(float(spearmanr(accuracy, test).statistic))
            given_flops.append(correlate_partially(accuracy, test, share))
        alike = float(np.mean(given_flops))
        # two measurements of a thing correlate r: each does sqrt(r) with the thing, a double one sqrt(2 r / (1 + r))
        truth, twice = (max(each, 0.0) ** 0.5 for each in (alike, 2 * alike / (1 + alike)))
        print(f"| {own[0]['examples']} | {len(own)} | {np.mean(plain):.2f} | {alike:.2f} | {truth:.2f} | {twice:.2f} |")
    shares = sorted({row["validation"] for row in rows})
    at = {(row["validation"], row["split"], row["number"]): row["test"] for row in rows}
    for more in shares[1:]:
        pairs = [
            (test, at[shares[0], *key[1:]])
            for key, test in at.items()
            if key[0] == more and (shares[0], *key[1:]) in at
        ]
        lost = 100 * np.array([few - many for many, few in pairs])
        error = lost.std(ddof=1) / len(lost) ** 0.5
        print(
            f"\n{more:.0%} instead of {shares[0]:.0%} for validation costs {lost.mean():.2f} points on the test "
            f"({len(lost)} pairs, standard error {error:.2f})."
        )


if __name__ == "__main__":
    main()
