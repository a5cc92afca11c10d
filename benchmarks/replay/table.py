"""A truth made of real trials: the recorded table of the digits network, interpolated.

    python -m benchmarks.replay.table benchmarks/replay/digits.jsonl.gz

prints how well the recorded trials are told by the others of their method. Two things are interpolated: the octaves of
FLOPs that a method saves beyond what it was asked for, and the logarithm of its error. Of each, a quadratic in the
octaves asked for is taken first, and a forest of random trees of the method's parameters for the rest; the errors are
those of trees that did not see the trial (out of bag), which is leave-one-out for a forest.
"""

from __future__ import annotations

import argparse
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

from benchmarks.replay.synthetic import METHODS, Truth
from methods import load_method
from search.study.cost import PointCosts
from search.study.samplers.slots import UNUSED, Floats, Slots
from search.study.samplers.surrogate import FLOOR
from search.study.space import select_own_space

TREES = 120


def read_table(path: Path, first: int | None = None) -> list[dict[str, Any]]:
    """Read the recorded trials that have a network.

    Args:
        path: The table, compressed or not.
        first: How many trials are read, from the first; ``None`` for all.

    Returns:
        One mapping per trial.
    """
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = [json.loads(line) for line in text.splitlines()[:first]]
    return [row for row in rows if row["state"] == "complete"]


@dataclass
class Interpolation:
    """One quantity of one method.

    Attributes:
        trend: Coefficients of 1, x and x^2, x the octaves asked for.
        forest: Tells the rest by slots and octaves.
        seen: What was recorded, ``[trials]``.
        blind: What is told of each trial by trees that did not see it, ``[trials]``.
    """

    trend: Floats
    forest: ExtraTreesRegressor
    seen: Floats
    blind: Floats

    @classmethod
    def fit(cls, octaves: Floats, units: Floats, values: Floats) -> Interpolation:
        """Interpolate.

        Args:
            octaves: Octaves asked for, ``[trials]``.
            units: Slots, ``[trials, slots]``.
            values: What is interpolated, ``[trials]``.

        Returns:
            The interpolation.
        """
        basis = _quadratic(octaves)
        trend = np.linalg.solve(basis.T @ basis + 1e-3 * np.eye(3), basis.T @ values)
        forest = ExtraTreesRegressor(
            TREES, min_samples_leaf=3, bootstrap=True, oob_score=True, random_state=0, max_features=0.6
        )
        forest.fit(np.column_stack([octaves, units]), values - basis @ trend)
        return cls(trend, forest, values, basis @ trend + forest.oob_prediction_)

    def interpolate(self, octaves: Floats, units: Floats) -> Floats:
        """Tell the quantity of other points.

        Args:
            octaves: Octaves asked for, ``[points]``.
            units: Slots, ``[points, slots]``.

        Returns:
            ``[points]``.
        """
        told: Floats = _quadratic(octaves) @ self.trend + self.forest.predict(np.column_stack([octaves, units]))
        return told


class Recorded(Truth):
    """What every point is worth, by the recorded trials.

    Args:
        planned: The plan of a sweep.
        costs: Costs of its points.
        rows: Recorded trials.
    """

    def __init__(self, planned: object, costs: PointCosts, rows: list[dict[str, Any]]) -> None:
        self.space, self.costs = planned.space, costs  # type: ignore[attr-defined]
        self.methods = list(planned.config.methods)  # type: ignore[attr-defined]
        self.slots = {method: Slots(select_own_space(self.space, method)) for method in self.methods}
        self.targets = {method: load_method(method).flops_parameter or "" for method in self.methods}
        self.error: dict[str, Interpolation] = {}
        self.beyond: dict[str, Interpolation] = {}
        for method in self.methods:
            own = [row for row in rows if row["method"] == method]
            slots = self.slots[method]
            units = slots.canonicalise(np.array([slots.encode(row["point"]) for row in own]))
            asked = self._octaves(method, units)
            reached = -np.log2([row["share"] for row in own])
            error = np.log(1 - np.array([row["metrics"]["accuracy"] for row in own]) + FLOOR)
            self.beyond[method] = Interpolation.fit(asked, units, reached - asked)
            self.error[method] = Interpolation.fit(reached, units, error)

    def _octaves(self, method: str, units: Floats) -> Floats:
        """Octaves of FLOPs that points ask for; the middle where they do not say."""
        slots, target = self.slots[method], self.targets[method]
        if target not in slots.index:
            return np.full(len(units), 1.5)
        asked = -np.log2(slots.values(target, units))
        return np.where(slots.active(units)[:, slots.index[target]], asked, 1.5)

    def look(self, method: str, units: Floats) -> tuple[Floats, Floats]:
        """Evaluate points without noise.

        Args:
            method: Their method.
            units: Their slots, ``[points, slots]``.

        Returns:
            Octaves of FLOPs saved and accuracy, ``[points]`` each.
        """
        units = self.slots[method].canonicalise(units)
        asked = self._octaves(method, units)
        beyond = self.beyond[method]
        saving = asked if np.abs(beyond.seen).max() < 0.05 else asked + beyond.interpolate(asked, units)
        saving = saving.clip(0.0)
        return saving, 1 - (np.exp(self.error[method].interpolate(saving, units)) - FLOOR).clip(0.0)

    def estimate_ceiling(self, count: int = 60_000) -> float:
        """Estimate the best hypervolume by many points: a half drawn anywhere, the others around the authors' values.

        Args:
            count: How many points.

        Returns:
            Their hypervolume.
        """
        from benchmarks.replay.synthetic import volume

        rng, found = np.random.default_rng(5), []
        for method in self.methods:
            slots = self.slots[method]
            drawn = rng.random((count // len(self.methods), len(slots)))
            start = np.full(len(slots), UNUSED) if slots.default is None else slots.default
            near = np.where(rng.random(drawn.shape) < rng.choice([0.2, 1.0], (len(drawn), 1)), drawn, start)
            for slot, name in enumerate(slots.names):
                if name == self.targets[method]:
                    near[:, slot] = drawn[:, slot]
            found.append(self.look(method, near))
        return volume(np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found]))


def _quadratic(octaves: Floats) -> Floats:
    return np.column_stack([np.ones_like(octaves), octaves, octaves**2])


def main() -> None:
    """Print the errors of the interpolation."""
    import tempfile

    from benchmarks.replay.synthetic import EXAMPLES, space_and_costs

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--first", type=int, help="look at so many trials")
    given = parser.parse_args()
    rows = read_table(given.table, given.first)
    with tempfile.TemporaryDirectory() as store:
        planned, costs = space_and_costs(METHODS, "flops", "digits_resnet", "digits", 60, Path(store))
    truth = Recorded(planned, costs, rows)
    print("| method | trials | accuracy, median error | of it noise | spread explained | octaves beyond asked, error |")
    print("|---|---|---|---|---|---|")
    for method in truth.methods:
        error, beyond = truth.error[method], truth.beyond[method]
        seen, blind = np.exp(error.seen) - FLOOR, np.exp(error.blind) - FLOOR
        noise = 0.6745 * np.sqrt(seen.clip(1 / EXAMPLES) * (1 - seen) / EXAMPLES).mean()
        explained = 1 - np.var(error.seen - error.blind) / np.var(error.seen)
        off = np.median(np.abs(beyond.seen - beyond.blind))
        print(
            f"| {method} | {len(seen)} | {100 * np.median(np.abs(seen - blind)):.2f} points | {100 * noise:.2f} | "
            f"{explained:.2f} | {off:.2f} |"
        )


if __name__ == "__main__":
    main()
