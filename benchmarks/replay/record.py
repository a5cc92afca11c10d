"""Records real trials of the digits network, all methods, as a table to replay searches on.

    nice -n 19 python -m benchmarks.replay.record --minutes 15 --store /tmp/replay --to benchmarks/replay/digits.jsonl

Points are drawn evenly over methods, and over the FLOPs on a logarithmic scale; half of them keep the authors' values,
the others have some or all parameters drawn. One line of JSON for each trial, written when it is finished; recording
goes on where it stopped, for the point of a number follows from the number. ``--pack`` compresses the table.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks.replay.synthetic import METHODS
from methods import load_method
from search.driver.dense_setting import dense_setting
from search.driver.prepare import plan
from search.records.trial_spec import TrialSpec
from search.study.config_file import load_config
from search.study.samplers.slots import Slots
from search.study.space import select_own_space
from search.study.study import trial_seed
from search.trials.trial import run_trial
from spaces import Categorical, Space, Value

LOW, HIGH = 0.05, 0.9
RUNG = ("epoch", "comparable", "loss", "accuracy", "val_loss")
"""What is kept of every epoch, in this order."""


def round_figures(number: float | None) -> float | None:
    """Six significant figures of a number."""
    return None if number is None else float(f"{number:.6g}")


def draw_point(space: Space, number: int) -> tuple[str, dict[str, Value]]:
    """Draw the point of a number.

    Args:
        space: The whole space.
        number: Number of the trial.

    Returns:
        Method and point.
    """
    rng = np.random.default_rng((7, number))
    method = METHODS[number % len(METHODS)]
    slots = Slots(select_own_space(space, method))
    drawn = rng.random(len(slots))
    start = drawn if slots.default is None else slots.default
    share = rng.choice([0.0, 0.0, 0.3, 1.0])  # of the parameters that are drawn
    unit = np.where(rng.random(len(slots)) < share, drawn, start)
    target = load_method(method).flops_parameter
    for name, place in (("sparsity.tilt", float(np.clip(rng.normal(0.5, 0.2), 0, 1))), (target, None)):
        if name in slots.index:
            parameter = slots.space[name]
            assert not isinstance(parameter, Categorical)
            if place is None:
                flops = float(np.exp(rng.uniform(np.log(LOW), np.log(HIGH))))
                low, high = np.log(parameter.low), np.log(parameter.high)
                place = float(np.clip((np.log(flops) - low) / (high - low), 0, 1))
            unit[slots.index[name]] = place
    return method, slots.decode(unit)


def main() -> None:
    """Record for some minutes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no further trial after so long")
    parser.add_argument("--trials", type=int, default=1600)
    parser.add_argument("--store", type=Path, default=Path("mlruns"), help="the run store, for the dense network")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--pack", action="store_true", help="only compress the table, to NAME.gz")
    given = parser.parse_args()
    if given.pack:
        with gzip.GzipFile(f"{given.to}.gz", "wb", mtime=0) as packed:
            packed.write(given.to.read_bytes())
        return
    stop = time.monotonic() + 60 * given.minutes
    warnings.simplefilter("ignore")
    overrides = ['resources.executor="inline"']
    planned = plan(load_config(None, overrides, methods=METHODS, directory=given.store, trials=given.trials))
    setting, dense = dense_setting(planned, lambda record, total: None)
    done = set()
    if given.to.exists():
        done = {json.loads(line)["number"] for line in given.to.read_text().splitlines()}
    for number in range(given.trials):
        if time.monotonic() > stop:
            break
        if number in done:
            continue
        method, point = draw_point(planned.space, number)
        outcome = run_trial(setting, TrialSpec(number, method, point, trial_seed(7, number))).outcome
        line = {
            "number": number,
            "method": method,
            "point": point,
            "state": outcome.state,
            "metrics": {name: outcome.metrics[name] for name in sorted(outcome.metrics)},
            "share": outcome.metrics.get("flops", 0.0) / dense.flops,
            "seconds": round(outcome.seconds, 2),
            "rungs": [[round_figures(record.get(name)) for name in RUNG] for record in outcome.history],
            "error": None if outcome.error is None else outcome.error.strip().splitlines()[-1][:200],
        }
        with given.to.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
