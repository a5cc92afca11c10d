"""A synthetic truth over the real search space: exact FLOPs, invented accuracies, known noise.

The space, the methods' parameters and the FLOPs of every point are those of a real network. What is invented is how
much accuracy a point loses: each group of each method has a sensitivity, each numeric parameter a best value near the
authors' default and a width, each choice a penalty. The levels are set so that the authors' values lose about as
much as on digits. Differences between samplers are indicative, not results on networks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.driver.prepare import plan
from search.study.config_file import load_config
from search.study.cost import PointCosts
from search.study.samplers.base import Aim, Axis, Limits
from search.study.samplers.slots import Floats, Slots
from search.study.space import select_own_space
from spaces import Categorical

METHODS = ("magnitude", "increg", "greedy", "eigendamage", "spp", "pivoting", "sdprun", "random")
EXAMPLES = 359
"""Validation examples of digits, which decide the noise of an accuracy."""

TOP = 0.99
DROP = 0.05
LEAST = 0.05
OCTAVES = -np.log2(LEAST)


def space_and_costs(
    methods: tuple[str, ...],
    allocation: str,
    model: str,
    data: str,
    trials: int,
    store: Path,
    limits: tuple[str, ...] = (),
) -> tuple[object, PointCosts]:
    """Build the space of a study and the costs of its points, as a sweep does.

    Args:
        methods: The methods that compete.
        allocation: How sparsity is given out.
        model: The network.
        data: The data set.
        trials: Length of the sweep.
        store: Where a sweep would be stored.
        limits: Limits of the sweep, as assignments of its configuration.

    Returns:
        The plan of the sweep, and the costs.
    """
    overrides = [f'allocation="{allocation}"', 'resources.executor="inline"', *limits]
    planned = plan(
        load_config(None, overrides, methods=methods, model=model, data=data, trials=trials, directory=store)
    )
    return planned, PointCosts(planned.problem, planned.round_to)


class Truth:
    """What every point is worth.

    Args:
        planned: The plan of a sweep.
        costs: Costs of its points.
        seed: Draws the truth.
    """

    def __init__(self, planned: object, costs: PointCosts, seed: int) -> None:
        self.space, self.costs = planned.space, costs  # type: ignore[attr-defined]
        self.methods = list(planned.config.methods)  # type: ignore[attr-defined]
        self.slots = {method: Slots(select_own_space(self.space, method)) for method in self.methods}
        self.targets = {"sdprun": "target_flops"}
        rng = np.random.default_rng(1000 + seed)
        halved = np.full((len(costs.groups), len(costs.groups)), 0.0)
        np.fill_diagonal(halved, 0.5)
        weight = 1 - costs.shares(halved)[:, 0]  # what halving a group saves
        common = np.sqrt(weight) * np.exp(rng.normal(0, 0.8, len(weight)))
        self.sensitivity, self.level, self.width, self.best, self.penalty = {}, {}, {}, {}, {}
        for method in self.methods:
            slots = self.slots[method]
            own = common * np.exp(rng.normal(0, 0.3, len(common)))
            self.sensitivity[method] = own / own.sum()
            self.level[method] = 0.0007 * np.exp(rng.normal(0, 0.35)) * (1.5 if method == "random" else 1.0)
            start = np.full(len(slots), 0.5) if slots.default is None else slots.default
            width, best, penalty = np.zeros(len(slots)), start.copy(), {}
            for slot, parameter in enumerate(slots.parameters):
                if self._is_sparsity(method, slots.names[slot]):
                    continue
                if isinstance(parameter, Categorical):
                    lost = np.abs(rng.normal(0, 0.35, len(parameter.choices)))
                    if parameter.default is not None and rng.random() < 0.5:
                        lost[parameter.choices.index(parameter.default)] = 0
                    penalty[slot] = lost - lost.min()
                else:
                    width[slot] = rng.exponential(1.5) * (rng.random() < 0.5)  # half of the numbers matter
                    best[slot] = np.clip(start[slot] + rng.normal(0, 0.25), 0, 1)
            self.width[method], self.best[method], self.penalty[method] = width, best, penalty

    def make_aim(self, limits: Limits | None = None) -> Aim:
        """Say what is searched for.

        Args:
            limits: Limits of the study.

        Returns:
            Accuracy against FLOPs.
        """
        accuracy = Axis("accuracy", True, True, 1.0, 0.0, TOP, EXAMPLES)
        flops = Axis("flops", False, False, 0.0, self.costs.dense.flops, self.costs.dense.flops)
        return Aim((accuracy, flops), limits or Limits(), DROP, LEAST)

    def _is_sparsity(self, method: str, name: str) -> bool:
        return name.startswith("sparsity.") or name == self.targets.get(method)

    def look(self, method: str, units: Floats) -> tuple[Floats, Floats]:
        """Evaluate points without noise.

        Args:
            method: Their method.
            units: Their slots, ``[points, slots]``.

        Returns:
            Octaves of FLOPs saved and accuracy, ``[points]`` each.
        """
        slots = self.slots[method]
        units = slots.canonicalise(units)
        saving, removed = self._compute_removed(method, units)
        depth = 2 * ((removed + 0.12 * removed**2) @ self.sensitivity[method]) / 1.12
        active = slots.active(units)
        trouble = ((units - self.best[method]) ** 2 * self.width[method] * active).sum(1)
        for slot, lost in self.penalty[method].items():
            choice = np.minimum((units[:, slot] * len(lost)).astype(int), len(lost) - 1)
            trouble += lost[choice] * active[:, slot]
        accuracy = TOP - self.level[method] * np.exp(np.minimum(trouble, 2.5)) * (np.exp(0.8 * depth) - 1)
        collapsed = 0.1 + 0.8 * np.exp(np.minimum(accuracy - 0.9, 0) / 0.8)
        return saving, np.where(accuracy < 0.9, collapsed, accuracy)

    def _compute_removed(self, method: str, units: Floats) -> tuple[Floats, Floats]:
        """Return octaves saved, and octaves of width removed per group."""
        slots, groups = self.slots[method], len(self.costs.groups)
        names = [n for n in slots.space if self._is_sparsity(method, n) and not isinstance(slots.space[n], Categorical)]
        columns = {name: slots.values(name, units) for name in names}
        target = self.targets.get(method, "sparsity.flops")
        mode = str(slots.choices("sparsity.mode", units)[0]) if "sparsity.mode" in slots.space else "target"
        ratios = self.costs.ratios(mode, columns, target)
        assert ratios is not None
        removed = -np.log2(np.maximum(1 - ratios, 1e-3))
        saving = -np.log2(self.costs.shares(ratios)[:, 0])
        if mode in ("flops", "target"):
            saving = -np.log2(columns[target])
        free = self._sample_unlimited(method, units)  # methods that stop by themselves: where is an invented function
        if free is not None:
            rows, reached = free
            saving = np.where(rows, reached, saving)
            removed = np.where(rows[:, None], np.repeat(reached[:, None] / 2, groups, axis=1), removed)
        return saving, removed

    def _sample_unlimited(self, method: str, units: Floats) -> tuple[NDArray[np.bool_], Floats] | None:
        slots = self.slots[method]
        if method == "sdprun" and "steer" in slots.index:
            rows = slots.choices("steer", units) == "off"
            return rows, 0.5 + 3.5 * units[:, slots.index["g_end"]] * (0.7 + 0.6 * units[:, slots.index["mu"]])
        if method == "greedy" and "stop_rule" in slots.index:
            rows = slots.choices("stop_rule", units) != "count"
            tolerance = units[:, slots.index["top1_tol"]] if "top1_tol" in slots.index else np.full(len(units), 0.5)
            return rows, 0.3 + 2.5 * tolerance
        return None

    def estimate_ceiling(self, count: int = 60_000) -> float:
        """Estimate the best hypervolume: many points with all parameters at their best.

        Args:
            count: How many points.

        Returns:
            Their hypervolume.
        """
        rng = np.random.default_rng(5)
        found: list[tuple[Floats, Floats]] = []
        for method in self.methods:
            slots = self.slots[method]
            units = np.tile(self.best[method], (count // len(self.methods), 1))
            for slot, lost in self.penalty[method].items():
                units[:, slot] = (np.argmin(lost) + 0.5) / len(lost)
            for slot, name in enumerate(slots.names):
                if "_offsets[" in name:
                    units[:, slot] = (0.5 + rng.normal(0, 0.15, len(units))).clip(0, 1)
                elif self._is_sparsity(method, name) or name in ("g_end", "mu"):
                    units[:, slot] = rng.random(len(units))
                elif name in ("steer", "stop_rule"):
                    units[:, slot] = 0.01
            found.append(self.look(method, units))
        return volume(np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found]))

    def add_noise(self, accuracy: float, rng: np.random.Generator) -> float:
        """Add the noise of a validation set, and round to whole examples.

        Args:
            accuracy: The true accuracy.
            rng: Source of randomness.

        Returns:
            What would be measured. The standard deviation is three quarters of a binomial one, for networks that are
            measured on the same examples err on the same ones.
        """
        sd = 0.75 * np.sqrt(accuracy * (1 - accuracy) / EXAMPLES)
        return float(np.clip(round((accuracy + rng.normal(0, sd)) * EXAMPLES) / EXAMPLES, 0, 1))


def volume(saving: Floats, accuracy: Floats) -> float:
    """Measure the share of drop 0..5 points times saving 1..1/20 that is dominated.

    Args:
        saving: Octaves of FLOPs saved, ``[points]``.
        accuracy: Accuracies, ``[points]``.

    Returns:
        The share.
    """
    order = np.argsort(-saving)
    steps = np.append(saving[order].clip(0, OCTAVES), 0.0)
    best = np.maximum.accumulate(((accuracy[order] - (TOP - DROP)) / DROP).clip(0, 1))
    return float((best * (steps[:-1] - steps[1:])).sum() / OCTAVES)
