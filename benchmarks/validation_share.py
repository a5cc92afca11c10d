"""How well so many validation images rank pruned networks, and what it costs to take more of them.

    python -m benchmarks.validation_share --validation 0.2,0.4 --configurations 30 --splits 4 --to split.jsonl
    python -m benchmarks.validation_share --to split.jsonl --table

The same configurations, drawn as the recorded trials are, are trained on several splits of the digits, with a fifth for
the test in all of them. What one is worth is its mean accuracy on the test images of all other splits: other networks,
other images. Against that stand the accuracy on the validation images of one network, on as many again (its test
images, which cost no training data), and the mean over the validation images of two splits (cross-validation, at twice
the time). One line of JSON for each network; lines that are in the file already are not made again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from itertools import pairwise
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
    """Print how each measurement ranks the configurations."""
    print("| validation images | networks | measured on | rank correlation | given the FLOPs | mean test accuracy |")
    print("|---|---|---|---|---|---|")
    for validation in sorted({row["validation"] for row in rows}):
        own = [row for row in rows if row["validation"] == validation]
        splits = sorted({row["split"] for row in own})
        common = set.intersection(*({row["number"] for row in own if row["split"] == split} for split in splits))
        numbers = sorted(common)
        at = {(row["split"], row["number"]): row for row in own}
        accuracy, test, share = (
            np.array([[at[split, number][name] for number in numbers] for split in splits])
            for name in ("accuracy", "test", "share")
        )
        images, tested = own[0]["examples"], own[0]["tested"]
        both = (images * accuracy + tested * test) / (images + tested)
        ways = {
            f"its {images} validation images": [(accuracy[k], [k]) for k in range(len(splits))],
            f"{images + tested} images of one network": [(both[k], [k]) for k in range(len(splits))],
            f"{images} validation images of each of two": [
                ((accuracy[j] + accuracy[k]) / 2, [j, k]) for j, k in pairwise(range(len(splits)))
            ],
        }
        for name, measured in ways.items():
            plain, given_flops = [], []
            for values, used in measured:
                others = [k for k in range(len(splits)) if k not in used]
                worth = test[others].mean(axis=0)
                plain.append(float(spearmanr(values, worth).statistic))
                given_flops.append(correlate_partially(values, worth, share.mean(axis=0)))
            print(
                f"| {images} | {len(numbers)} x {len(splits)} | {name} | {np.mean(plain):.2f} | "
                f"{np.mean(given_flops):.2f} | {test.mean():.2%} |"
            )


if __name__ == "__main__":
    main()
