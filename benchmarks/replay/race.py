"""Races samplers on the synthetic replay, or on the table of recorded trials.

    python -m benchmarks.replay.race --seeds 20 --trials 60 --samplers random,tpe,exact --to race.jsonl
    python -m benchmarks.replay.race --table benchmarks/replay/digits.jsonl.gz --to race.jsonl

One line of JSON for each sampler and seed; seeds that are in the file already are not run again, so a race can be
stopped and gone on with. Trials are asked with the lag of a sweep on up to three workers: what a sampler proposes as
trial ``n`` knows trials ``0 .. n - lag`` and that the others run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler

from benchmarks.replay.synthetic import DROP, METHODS, Truth, space_and_costs, volume
from benchmarks.replay.table import Recorded, read_table
from search.study.points import spread_points
from search.study.samplers.making import sampler_maker
from search.study.schedule import MIN_LAG
from search.study.space import METHOD
from search.study.study import trial_seed
from spaces.dialects import suggest

STOCK: dict[str, Callable[[int, int], BaseSampler]] = {
    "random": lambda seed, trials: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed, trials: optuna.samplers.TPESampler(seed=seed),
    "tpe-multivariate": lambda seed, trials: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True),
    "nsga2": lambda seed, trials: optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, trials // 6)),
    "gp": lambda seed, trials: optuna.samplers.GPSampler(seed=seed),
}
"""Optuna's samplers as anybody would use them on this space, with the study's first points."""


SETTLED = 24
"""Trials after which a sweep has seen enough to be asked for more than a look around."""

CHEAPER = float(np.log2(1 / 0.93))
"""Seven percent of the FLOPs, in octaves."""

NAMED = {"botorch": "benchmarks.replay.botorch_sampler:BoTorchSampler"}
"""Samplers of the port that are here for races alone."""


def run(truth: Truth, name: str, seed: int, trials: int, lag: int = MIN_LAG) -> dict[str, object]:
    """Run one sweep.

    Args:
        truth: What points are worth.
        name: The sampler.
        seed: Seed of the sweep.
        trials: How many trials.
        lag: How many may be asked and not told.

    Returns:
        Savings, true accuracies, and seconds of the processor for each suggestion.
    """
    study = optuna.create_study(directions=["maximize", "minimize"])
    named = NAMED.get(name, name)
    ours = None if name in STOCK else sampler_maker(named, truth.space, truth.make_aim(), truth.costs, seed, trials)
    if name != "random":
        for point in spread_points(truth.space, truth.methods, trials, seed):
            study.enqueue_trial(point)
    noise = np.random.default_rng(seed * 7919 + 13)
    waiting: deque[tuple[int, float, float]] = deque()
    savings, accuracies, seconds, methods = [], [], [], []
    for number in range(trials):
        question = trial_seed(seed, number)
        study.sampler = STOCK[name](question, trials) if ours is None else ours(question)
        began = time.process_time()
        trial = study.ask()
        method, own = truth.space.split(suggest(truth.space, trial), METHOD)
        seconds.append(time.process_time() - began)
        slots = truth.slots[method]
        saving, accuracy = truth.look(method, slots.encode(own)[None])
        savings.append(float(saving[0]))
        accuracies.append(float(accuracy[0]))
        methods.append(method)
        waiting.append((number, truth.add_noise(accuracies[-1], noise), truth.costs.dense.flops * 2.0 ** -savings[-1]))
        if len(waiting) >= lag:
            told, value, flops = waiting.popleft()
            study.tell(told, [value, flops])
    return {"saving": savings, "accuracy": accuracies, "seconds": seconds, "method": methods}


def compute_dominated_share(saving: NDArray[np.float64], accuracy: NDArray[np.float64]) -> float:
    """Say which share of the proposals could not be worth anything when they were asked.

    Args:
        saving: Octaves of FLOPs saved, in order of asking, ``[trials]``.
        accuracy: True accuracies, ``[trials]``.

    Returns:
        The share, among the trials from number :data:`SETTLED` on, of those for which an earlier trial is at least
        :data:`CHEAPER` octaves cheaper and truly no worse.
    """
    later = range(SETTLED, len(saving))
    beaten = [bool(((saving[:n] >= saving[n] + CHEAPER) & (accuracy[:n] >= accuracy[n])).any()) for n in later]
    return float(np.mean(beaten)) if beaten else float("nan")


def main() -> None:
    """Race."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--samplers", default="random,nsga2,tpe,tpe-multivariate,exact")
    parser.add_argument("--allocation", default="flops")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--model", default="digits_resnet")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no further sweep after so long")
    parser.add_argument("--table", type=Path, help="recorded trials to race on, instead of the synthetic truths")
    parser.add_argument("--first", type=int, help="of the table, so many trials")
    parser.add_argument("--to", type=Path, required=True)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    done = set()
    if given.to.exists():
        lines = [json.loads(line) for line in given.to.read_text().splitlines()]
        done = {(line["sampler"], line["seed"], line["allocation"]) for line in lines}
    stop = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as store:
        methods = tuple(given.methods.split(","))
        planned, costs = space_and_costs(methods, given.allocation, given.model, given.data, given.trials, Path(store))
        recorded = None if given.table is None else Recorded(planned, costs, read_table(given.table, given.first))
        best = 0.0 if recorded is None else recorded.estimate_ceiling()
        for seed in range(given.seeds):
            truth = recorded or Truth(planned, costs, seed)
            best = best if recorded is not None else truth.estimate_ceiling()
            for name in given.samplers.split(","):
                if (name, seed, given.allocation) in done or time.monotonic() > stop:
                    continue
                came = run(truth, name, seed, given.trials)
                saving, accuracy = np.array(came["saving"]), np.array(came["accuracy"])
                curve = [volume(saving[:n], accuracy[:n]) / best for n in range(1, given.trials + 1)]
                line = {
                    "sampler": name,
                    "seed": seed,
                    "allocation": given.allocation,
                    "curve": [round(value, 4) for value in curve],
                    "seconds": round(float(np.median(came["seconds"])), 4),
                    "seconds_last": round(float(np.median(came["seconds"][-10:])), 4),  # type: ignore[index]
                    "dominated": round(compute_dominated_share(saving, accuracy), 3),
                    "lost": int((accuracy < truth.make_aim().quality.dense - DROP).sum()),  # type: ignore[operator]
                }
                with given.to.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                shown = {n: f"{curve[n - 1]:.3f}" for n in (10, 20, 40, 60, 120) if n <= given.trials}
                print(name, seed, shown, f"{line['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
