"""The exact-cost sampler: learns what pruning does to quality, and takes what it costs from counting.

Of the two questions of a pruning search, one needs no trial: the FLOPs and parameters of a candidate are counted before
anything is trained. The sampler models the quality alone (:mod:`search.study.samplers.surrogate`), and proposes the
candidate with the largest expected gain in hypervolume at its exact cost
(:mod:`search.study.samplers.improvement`). Costs that are not known before (a latency, or the FLOPs of a method that
stops by itself) are predicted from the trials. What runs is believed to come out as predicted; nothing is proposed
twice; candidates are moved into the limits of the study.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from search.study.samplers.base import Aim, Axis, CostOf, ManyCosts, Tried
from search.study.samplers.improvement import expected_improvement
from search.study.samplers.repair import repair_point
from search.study.samplers.slots import UNUSED, Floats, Slots
from search.study.samplers.surrogate import FLOOR, Features, Surrogate
from search.study.space import LEVEL, METHOD, MODE, select_own_space
from spaces import Categorical, Space, Value

FRESH = 160
"""New candidates per method."""

MUTANTS = 25
"""Candidates near each of the best trials of a method."""

PARENTS = 10
"""How many of a method's trials are varied."""

REPEAT = 0.02
"""Two points of one method are the same if no slot differs by more."""

SHORTLIST = 200
"""How many of the best candidates are costed exactly, one after the other, until one is within the limits."""

FIT_EVERY = 8
"""With more than twice as many trials, the scales of the kernel are fitted again after so many."""

UNKNOWN_SAVING = 1.5
"""Octaves that a method is thought to save before it was tried, where its point does not say."""


@dataclass
class _Pool:
    """Candidates of one method.

    Attributes:
        method: Number of the method.
        units: ``[candidates, slots]``.
        features: What the surrogate looks at.
        savings: Octaves saved in each cost of the aim, ``[candidates, costs]``.
    """

    method: int
    units: Floats
    features: Features
    savings: Floats


class ExactCostSampler:
    """Proposes points by expected hypervolume improvement at known cost.

    Args:
        aim: What is searched for.
        seed: Decides the candidates.
        costs: Costs of points, for many candidates at once.
    """

    def __init__(self, aim: Aim, seed: int, costs: ManyCosts) -> None:
        self._aim = aim
        self._seed = seed
        self._costs = costs
        self._told: list[Tried] = []
        self._axes = [axis for axis in aim.axes if axis is not aim.quality]
        self._most = np.full(len(self._axes), -np.log2(aim.least))
        self._slots: dict[str, Slots] = {}
        self._methods: list[str] = []
        self._targets: dict[str, str | None] = {}
        self._knobs = 0
        self._scales: dict[int, Floats] = {}
        self._described_trials: dict[int, Features] = {}

    def observe(self, trial: Tried) -> None:
        """Hear of a trial that was told.

        Args:
            trial: The trial.
        """
        self._told.append(trial)

    def propose(self, history: Sequence[Tried], space: Space, cost: CostOf, n: int) -> list[dict[str, Value]]:
        """Propose points.

        Args:
            history: All trials so far.
            space: The whole space.
            cost: The exact cost of any point.
            n: How many points.

        Returns:
            Points of the space; fewer than ``n`` if there are no more that were not asked before.
        """
        self._look(space)
        asked = list(history)
        points: list[dict[str, Value]] = []
        for number in range(n):
            rng = np.random.default_rng((self._seed, len(history), number))
            found = self._propose_one(asked, cost, rng)
            if found is None:
                break
            method, own = found
            asked.append(Tried(len(history) + number, method, own, "running"))
            points.append({METHOD: method, **{f"{method}.{name}": value for name, value in own.items()}})
        return points

    def _look(self, space: Space) -> None:
        if self._slots:
            return
        for method in map(str, _choices(space)):
            self._slots[method] = Slots(select_own_space(space, method))
        self._methods = list(self._slots)
        self._targets = {method: self._costs.target(method) for method in self._methods}
        self._knobs = max(len(slots) for slots in self._slots.values())

    def _propose_one(
        self, history: Sequence[Tried], cost: CostOf, rng: np.random.Generator
    ) -> tuple[str, dict[str, Value]] | None:
        """Propose one point."""
        complete = [trial for trial in history if trial.state == "complete" and self._is_measured(trial)]
        pools = [self._pool(number, complete, rng) for number in range(len(self._methods))]
        pools = [pool for pool in (self._drop_asked(pool, history) for pool in pools) if len(pool.units)]
        if not pools:
            return None
        if complete:
            gains = self._gains(pools, history, complete)
        else:  # nothing is known: the candidates come in random order
            gains = [rng.random(len(pool.units)) for pool in pools]
        best = [(float(gain), number, row) for number, each in enumerate(gains) for row, gain in enumerate(each)]
        best.sort(key=lambda entry: -entry[0])
        for _, number, row in best[: SHORTLIST if self._aim.limits.hard else 1]:
            method = self._methods[pools[number].method]
            point = self._move_within_limits(method, self._slots[method].decode(pools[number].units[row]), cost)
            if point is not None and not self._repeats(method, point, history):
                return method, point
        return None

    def _move_within_limits(self, method: str, point: dict[str, Value], cost: CostOf) -> dict[str, Value] | None:
        """Move a point into the limits."""
        if not self._aim.limits.hard:
            return point
        return repair_point(method, self._slots[method].space, point, cost, self._aim.limits, self._costs.dense)

    def _is_measured(self, trial: Tried) -> bool:
        return all(axis.name in trial.metrics for axis in self._aim.axes)

    # --- what is known --------------------------------------------------------------------------------------------

    def _gains(self, pools: list[_Pool], history: Sequence[Tried], complete: Sequence[Tried]) -> list[Floats]:
        """Compute the expected improvement of every candidate."""
        aim, quality = self._aim, self._aim.quality
        at = self._features(complete)
        error = np.array([_error(quality, trial.metrics[quality.name]) for trial in complete])
        model = self._fit(at, error)
        mean, _ = model.predict(at)
        savings = np.array([
            [_measure_saving(axis, trial.metrics[axis.name]) for axis in self._axes] for trial in complete
        ])
        # What came out beyond a limit teaches the model, and has no place on the front.
        within = np.array([not aim.limits.list_broken(trial.metrics) for trial in complete])
        mean, front_savings = mean[within], savings[within]
        running = [trial for trial in history if trial.state == "running"]
        if running:
            pending = self._features(running, complete)
            believed, _ = model.predict(pending)
            expected = self._predict_savings(pending, at, savings)
            mean, front_savings = np.concatenate([mean, believed]), np.vstack([front_savings, expected])
            model = model.assume_predicted(pending)
        # The front is denoised: a member counts with what the model thinks of it, not with its luck.
        front = np.exp(mean) - FLOOR
        dense = _error(quality, quality.dense) if quality.dense is not None else float(error.min(initial=1.0))
        worst = dense + aim.drop * abs(quality.ideal - quality.worst)
        if error.min() >= worst:  # nothing is within the drop: the best so far gives the scale
            worst = 1.5 * float(error.min())
        gains = []
        for pool in pools:
            pool.savings = self._predict_savings(pool.features, at, savings)
            pool_mean, pool_sd = model.predict(pool.features)
            gain = expected_improvement(pool_mean, pool_sd, pool.savings, front_savings, front, worst, self._most)
            gains.append(np.where(self._find_allowed(pool), gain, -1.0))
        return gains

    def _fit(self, at: Features, error: Floats) -> Surrogate:
        """Fit the surrogate; its scales are those of the first so many trials, whichever question it is."""
        known = len(error)
        until = known if known < 2 * FIT_EVERY else known - known % FIT_EVERY
        if until not in self._scales:
            first = np.arange(until)
            self._scales[until] = Surrogate.fit(at[first], error[first], self._aim.quality.examples).scales
        return Surrogate.fit(at, error, self._aim.quality.examples, self._scales[until])

    def _find_allowed(self, pool: _Pool) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Tell which candidates are not expected to break a limit that is learned."""
        allowed = np.ones(len(pool.units), dtype=np.bool_)
        for number, axis in enumerate(self._axes):
            if axis.name == "latency" and self._aim.limits.max_latency is not None:
                allowed &= pool.savings[:, number] >= _measure_saving(axis, self._aim.limits.max_latency)
        return allowed

    def _predict_savings(self, wanted: Features, at: Features, savings: Floats) -> Floats:
        """Predict what is saved in every cost: FLOPs are in the features, other costs follow them by regression."""
        columns = []
        for number, axis in enumerate(self._axes):
            if axis.name == "flops":
                columns.append(wanted.saving)
                continue
            # saving = a L, and what deviates from it by method
            slope = float(at.saving @ savings[:, number]) / max(float(at.saving @ at.saving), 1e-9)
            rest = savings[:, number] - slope * at.saving
            own = np.zeros(len(self._methods))
            for method in range(len(self._methods)):
                here = at.method == method
                own[method] = rest[here].sum() / (here.sum() + 2.0)
            columns.append(slope * wanted.saving + own[wanted.method])
        return np.column_stack(columns)

    # --- what points look like ------------------------------------------------------------------------------------

    def _features(self, trials: Sequence[Tried], complete: Sequence[Tried] | None = None) -> Features:
        """Describe trials; a complete one by the FLOPs that it reached, one that runs by those it is expected to."""
        parts = []
        for trial in trials:
            part = self._describe_trial(trial)
            if complete is None and "flops" in trial.metrics:
                reached = -np.log2(max(trial.metrics["flops"], 1.0) / self._costs.dense.flops)
                part = Features(part.method, np.array([reached]), part.deviation, part.knobs)
            else:
                part = self._calibrate(part, trials if complete is None else complete)
            parts.append(part)
        return Features.join(parts)

    def _describe_trial(self, trial: Tried) -> Features:
        """Describe a trial by what was asked."""
        if trial.number not in self._described_trials:
            slots = self._slots[trial.method]
            unit = slots.canonicalise(slots.encode(trial.point)[None])
            self._described_trials[trial.number] = self._describe_points(self._methods.index(trial.method), unit)
        return self._described_trials[trial.number]

    def _describe_points(self, method: int, units: Floats) -> Features:
        """Describe points of a method by what is removed, where, and how the method is set."""
        slots = self._slots[self._methods[method]]
        groups = len(self._costs.names)
        saving, deviation = np.full(len(units), np.nan), np.zeros((len(units), groups))
        target = self._targets[self._methods[method]]
        sparse = _find_sparsity_parameters(slots, target)
        for mode, rows in self._modes(slots, units, target).items():
            names = [name for name in slots.space if name in sparse and not isinstance(slots.space[name], Categorical)]
            columns = {name: slots.values(name, units[rows]) for name in names}
            ratios = self._costs.ratios(mode, columns, target)
            if ratios is not None:
                shrunk = -np.log2(np.maximum(1 - ratios, 1e-3))
                deviation[rows] = shrunk - shrunk.mean(axis=1, keepdims=True)
                saving[rows] = -np.log2(self._costs.shares(ratios)[:, 0])
            if target in columns and mode in ASKED:
                saving[rows] = -np.log2(columns[target])
        unknown = np.flatnonzero(np.isnan(saving))
        if len(unknown):
            shares = self._costs.cost_each(self._methods[method], [slots.decode(units[row]) for row in unknown])
            saving[unknown] = -np.log2(shares)
        knobs = np.zeros((len(units), self._knobs))
        own = [slot for slot, name in enumerate(slots.names) if name not in sparse]
        knobs[:, : len(own)] = units[:, own] - (UNUSED if slots.default is None else slots.default[own])
        return Features(np.full(len(units), method), saving, deviation, knobs)

    def _modes(
        self, slots: Slots, units: Floats, target: str | None
    ) -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        """Sort points by how their sparsity is given; those of which it is an outcome are left out."""
        active = slots.active(units)
        if MODE in slots.space:
            chosen = slots.choices(MODE, units)
            if MODE in slots.index:
                chosen = np.where(active[:, slots.index[MODE]], chosen, "")
            elif not self._find_active(slots, MODE, units).all():
                chosen = np.where(self._find_active(slots, MODE, units), chosen, "")
            return {str(mode): np.flatnonzero(chosen == mode) for mode in np.unique(chosen.astype(str)) if mode}
        if target not in slots.index:
            return {}
        rows = np.flatnonzero(active[:, slots.index[target]])
        return {"target": rows} if len(rows) else {}

    def _find_active(self, slots: Slots, name: str, units: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Tell for which points a parameter without a slot applies: as one that hangs on it does."""
        condition = slots.space.condition(name)
        applies = np.ones(len(units), dtype=np.bool_)
        while condition is not None:
            if condition.parameter in slots.index:
                applies &= np.isin(slots.choices(condition.parameter, units), list(condition.values))
            condition = slots.space.condition(condition.parameter)
        return applies

    def _calibrate(self, features: Features, complete: Sequence[Tried]) -> Features:
        """Correct what a method was asked to save by what it saved so far; cutting channels needs no correction."""
        method = int(features.method[0])
        name = self._methods[method]
        own = [trial for trial in complete if trial.method == name and "flops" in trial.metrics]
        saving = np.where(np.isnan(features.saving), UNKNOWN_SAVING, features.saving)
        if own:
            asked = Features.join([self._describe_trial(trial) for trial in own])
            asked = replace(asked, saving=np.where(np.isnan(asked.saving), UNKNOWN_SAVING, asked.saving))
            reached = np.array([-np.log2(trial.metrics["flops"] / self._costs.dense.flops) for trial in own])
            off = reached - asked.saving
            if np.abs(off).max() > CALIBRATION:
                # the posterior mean of a process on what was asked and how the method was set
                near = _compute_kernel(asked, asked) + 0.02 * np.eye(len(own))
                saving = saving + _compute_kernel(features, asked, saving) @ np.linalg.solve(near, off)
        saving = saving.clip(0.0, 12.0)
        return Features(features.method, saving, features.deviation, features.knobs)

    # --- candidates -----------------------------------------------------------------------------------------------

    def _pool(self, method: int, complete: Sequence[Tried], rng: np.random.Generator) -> _Pool:
        """Draw candidates: new ones around the authors' values, and variations of a method's best trials."""
        slots = self._slots[self._methods[method]]
        target = self._targets[self._methods[method]]
        named = _find_sparsity_parameters(slots, target)
        sparse = np.array([name in named for name in slots.names], dtype=np.bool_)
        units = self._draw(slots, target, FRESH, rng)
        if slots.default is not None and len(slots):
            usual = np.where(sparse, units, slots.default)
            some = np.where(rng.random(units.shape) < 0.3, units, usual)
            kind = rng.random((FRESH, 1))
            units = np.where(kind < 0.4, some, np.where(kind < 0.6, usual, units))
        parts = [units]
        own = [trial for trial in complete if trial.method == self._methods[method]]
        for trial in self._choose_best(own):
            mutants = np.tile(slots.encode(trial.point), (MUTANTS, 1))
            moved = rng.random(mutants.shape) < rng.choice([0.1, 0.3, 0.6], (MUTANTS, 1))
            steps = rng.normal(0, 1, mutants.shape) * rng.choice([0.05, 0.2], (MUTANTS, 1))
            mutants = np.where(moved, mutants + steps, mutants).clip(0, 1)
            mutants = np.where(rng.random(mutants.shape) < 0.05, rng.random(mutants.shape), mutants)
            redrawn = (rng.random((MUTANTS, 1)) < 0.4) & sparse
            parts.append(np.where(redrawn, self._draw(slots, target, MUTANTS, rng), mutants))
        units = slots.canonicalise(np.vstack(parts))
        features = self._calibrate(self._describe_points(method, units), complete)
        return _Pool(method, units, features, np.empty((len(units), 0)))

    def _choose_best(self, own: Sequence[Tried]) -> list[Tried]:
        """Choose the trials of a method that lie nearest to its own front of error against cost."""
        quality = self._aim.quality
        error = np.array([_error(quality, trial.metrics[quality.name]) for trial in own])
        flops = np.array([trial.metrics.get("flops", 1.0) for trial in own])
        # regret: by what factor a network as cheap or cheaper errs less
        regret = [np.log((error[i] + FLOOR) / (error[flops <= flops[i]].min() + FLOOR)) for i in range(len(own))]
        return [own[i] for i in np.argsort(regret, kind="stable")[:PARENTS]]

    def _draw(self, slots: Slots, target: str | None, count: int, rng: np.random.Generator) -> Floats:
        """Draw points: sparsity over the band evenly in octaves, offsets and tilts near none, all else uniformly."""
        units = rng.random((count, len(slots)))
        low, high = self._costs.find_band(self._aim.limits)
        for slot, name in enumerate(slots.names):
            parameter = slots.parameters[slot]
            if name == target and not isinstance(parameter, Categorical):
                share = np.exp(rng.uniform(np.log(low), np.log(high), count)).clip(parameter.low, parameter.high)
                units[:, slot] = (np.log(share) - np.log(parameter.low)) / np.log(parameter.high / parameter.low)
            elif name == "sparsity.ratio" and not isinstance(parameter, Categorical):
                kept = np.exp(rng.uniform(np.log(low), np.log(high), count) / 2)
                units[:, slot] = ((1 - kept - parameter.low) / (parameter.high - parameter.low)).clip(0, 1)
            elif name == LEVEL and not isinstance(parameter, Categorical):
                kept = np.exp(rng.uniform(np.log(low), np.log(high), count) / 2).clip(parameter.low, parameter.high)
                units[:, slot] = (np.log(kept) - np.log(parameter.low)) / np.log(parameter.high / parameter.low)
            elif name == "sparsity.tilt":
                units[:, slot] = (UNUSED + rng.normal(0, 0.2, count)).clip(0, 1)
        offsets = [slot for slot, name in enumerate(slots.names) if "_offsets[" in name]
        if offsets:
            width = rng.choice([0.08, 0.2, 0.4], (count, 1))
            units[:, offsets] = (UNUSED + rng.normal(0, 1, (count, len(offsets))) * width / 2).clip(0, 1)
        return units

    def _drop_asked(self, pool: _Pool, history: Sequence[Tried]) -> _Pool:
        """Leave out candidates that were asked before."""
        method = self._methods[pool.method]
        slots = self._slots[method]
        fresh = np.ones(len(pool.units), dtype=np.bool_)
        for trial in history:
            if trial.method == method:
                apart = np.abs(pool.units - slots.canonicalise(slots.encode(trial.point)[None]))
                fresh &= apart.max(axis=1, initial=0.0) > REPEAT
        return _Pool(pool.method, pool.units[fresh], pool.features[fresh], pool.savings[fresh])

    def _repeats(self, method: str, point: dict[str, Value], history: Sequence[Tried]) -> bool:
        return any(trial.method == method and dict(trial.point) == point for trial in history)


ASKED = ("flops", "damage", "target")
"""Modes in which a share of the FLOPs is asked for."""

WEIGHTS = "damage_weights["
"""Parameters that decide where is removed in a way that only the solver of allocations knows."""

CALIBRATION = 0.02
"""Octaves by which a method may miss what it was asked to save before the sampler corrects for it."""


def _choices(space: Space) -> tuple[Value, ...]:
    parameter = space[METHOD]
    assert isinstance(parameter, Categorical)
    return parameter.choices


def _find_sparsity_parameters(slots: Slots, target: str | None) -> set[str]:
    """Name the parameters that say how much is removed, and where; weights of damages are like a method's own."""
    return {name for name in slots.space if (name.startswith("sparsity.") and WEIGHTS not in name) or name == target}


def _error(axis: Axis, value: float) -> float:
    """Return how far a quality is from the ideal."""
    return max(0.0, axis.ideal - value if axis.maximise else value - axis.ideal)


def _measure_saving(axis: Axis, value: float) -> float:
    """Return what is saved of a cost, in octaves of the dense network's; of other values, a gain on as long a scale."""
    if axis.dense is not None and axis.dense > 0 and not axis.maximise:
        return float(-np.log2(max(value, 1e-12) / axis.dense))
    return float(4.3 * (value - axis.worst) / (axis.ideal - axis.worst))


def _compute_kernel(one: Features, two: Features, saving: Floats | None = None) -> Floats:
    """Return a kernel of what was asked and how the method was set, ``[n, m]``."""
    asked = one.saving if saving is None else saving
    apart = (asked[:, None] - two.saving[None]) ** 2
    knobs = ((one.knobs[:, None] - two.knobs[None]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-0.5 * (apart / 1.5**2 + knobs / 0.5**2)))
