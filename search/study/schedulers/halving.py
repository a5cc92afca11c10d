"""Multi-objective asynchronous successive halving.

Trials wait at rungs, and the best share of those that reached a rung goes on from it, at any time (ASHA: Li et al., A
System for Massively Parallel Hyperparameter Tuning, 2020). With several objectives "the best" are the first fronts of
non-domination, and within a front those that cover it most evenly: an epsilon-net (MO-ASHA: Schmucker et al.,
Multi-objective Asynchronous Successive Halving, 2021).

Two differences follow from pruning. Costs are exact before training, so that one number alone is read at a rung. And
trials are compared within their method: methods that cut at once, and those that cut while they train, are at other
points of their way at the same epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from methods import method_names
from methods.contract.named import is_reference
from methods.contract.session import Decision
from search.study.samplers.base import Aim
from search.study.schedulers.base import Standing
from spaces import InputError, explain_unknown_name

Floats = NDArray[np.float64]


class MultiObjectiveHalving:
    """Lets the best share of the trials of a method go on from each rung.

    Args:
        aim: What is searched for.
        seed: Not used: nothing is random.
        rungs: Shares of a trial's budget at which it is judged, ascending.
        keep: Share of the trials at a rung that goes on from it, rounded up.
        watch: The number that is read at a rung: ``"val_loss"`` or ``"loss"``, of which less is better, or the quality
            that is searched for.
        methods: Methods that are judged; trials of others run to their end. Empty for all.

    Raises:
        InputError: If a share is not between 0 and 1, shares do not ascend, or a name is unknown.
    """

    def __init__(
        self,
        aim: Aim,
        seed: int = 0,
        *,
        rungs: Sequence[float] = (0.1, 0.3),
        keep: float = 1 / 3,
        watch: str = "val_loss",
        methods: Sequence[str] = (),
    ) -> None:
        if not rungs or not all(0 < low < 1 for low in rungs) or sorted(set(rungs)) != list(rungs):
            raise InputError(f"rungs = {list(rungs)} are not ascending shares between 0 and 1 of a trial's budget")
        if not 0 < keep < 1:
            raise InputError(f"keep = {keep:g} is not a share between 0 and 1 of the trials at a rung")
        known = ("loss", "val_loss", aim.quality.name)
        if watch not in known:
            raise InputError(explain_unknown_name("number to watch", watch, known))
        for method in methods:
            if not is_reference(method) and method not in method_names():
                raise InputError(explain_unknown_name("method", method, method_names()))
        self._rungs, self._keep, self._watch, self._methods = tuple(rungs), keep, watch, frozenset(methods)
        self._sign = -1.0 if watch == aim.quality.name and aim.quality.maximise else 1.0
        costs = [axis.name for axis in aim.axes if axis.name in ("flops", "params")]
        self._costs = costs or ["flops"]

    def next_rung(self, trial: Standing) -> float | None:
        """Name the first rung, then the next one.

        Args:
            trial: A trial that begins, or goes on.

        Returns:
            A share of its budget; ``None`` behind the last rung, and for trials that cannot be compared, whose cost
            only training tells.
        """
        judged = not self._methods or trial.method in self._methods
        if trial.cost is None or not judged or len(trial.rungs) >= len(self._rungs):
            return None
        passed = trial.rungs[-1].share if trial.rungs else 0.0
        later = self._rungs[len(trial.rungs)]
        return later if later > passed else None

    def decide(self, trial: Standing, trials: Sequence[Standing]) -> Decision:
        """Let a trial go on if it is among the best at its rung now.

        Args:
            trial: The trial.
            trials: All trials so far.

        Returns:
            ``"continue"`` or ``"pause"``; ``"stop"`` if the number that is read is not finite.
        """
        if not math.isfinite(self._read(trial, len(trial.rungs) - 1)):
            return "stop"
        best = self._choose_best(trial.method, len(trial.rungs) - 1, trials)
        return "continue" if trial.number in best else "pause"

    def promote(self, trials: Sequence[Standing]) -> int | None:
        """Choose a paused trial that is among the best by now, at the highest rung where there is one.

        Args:
            trials: All trials so far.

        Returns:
            Its number; ``None`` if there is none.
        """
        for rung in reversed(range(len(self._rungs))):
            waiting = [each for each in trials if each.state == "paused" and len(each.rungs) == rung + 1]
            for method in sorted({each.method for each in waiting}):
                best = self._choose_best(method, rung, trials)
                for each in waiting:
                    if each.method == method and each.number in best:
                        return each.number
        return None

    def _read(self, trial: Standing, rung: int) -> float:
        return self._sign * float(trial.rungs[rung].record[self._watch])

    def _choose_best(self, method: str, rung: int, trials: Sequence[Standing]) -> set[int]:
        """Number the trials that go on from a rung of a method."""
        there = [each for each in trials if each.method == method and len(each.rungs) > rung]
        there = [each for each in there if each.cost is not None and math.isfinite(self._read(each, rung))]
        # Rounded up: the first trial of a method goes to its end, so that none of them is left without a network.
        count = math.ceil(len(there) * self._keep)
        values = np.array([
            [self._read(each, rung), *(math.log(max(getattr(each.cost, name), 1)) for name in self._costs)]
            for each in there
        ])
        return {there[place].number for place in order_by_net(values)[:count]}


def order_by_net(values: Floats) -> list[int]:
    """Order points by front of non-domination, and within a front so that every beginning covers it evenly.

    Args:
        values: Less is better in every column, ``[points, objectives]``.

    Returns:
        Indices of all points. Each front begins with its best point in the first objective; then always comes the
        point that is farthest from those of the front before it, distances taken in shares of the front's extent.

    Example:
        >>> order_by_net(np.array([[0.0, 9.0], [1.0, 8.0], [5.0, 5.0], [9.0, 0.0], [9.0, 9.0]]))
        [0, 3, 2, 1, 4]
    """
    order: list[int] = []
    for front in fronts_of(values):
        own = values[front]
        extent = np.ptp(own, axis=0)
        scaled = own / np.where(extent > 0, extent, 1.0)
        chosen = [int(np.lexsort(own.T[::-1])[0])]
        nearest = np.linalg.norm(scaled - scaled[chosen[0]], axis=1)
        while len(chosen) < len(front):
            nearest[chosen] = -1.0
            chosen.append(int(np.argmax(nearest)))
            nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
        order += [front[place] for place in chosen]
    return order


def fronts_of(values: Floats) -> list[list[int]]:
    """Sort points into fronts of non-domination.

    Args:
        values: Less is better in every column, ``[points, objectives]``.

    Returns:
        Indices by front, each ascending; equal points are in one front.

    Example:
        >>> fronts_of(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]))
        [[0, 1], [2]]
    """
    better: NDArray[np.bool_] = np.asarray(
        (values[:, None] <= values[None]).all(axis=2) & (values[:, None] < values[None]).any(axis=2)
    )
    left = list(range(len(values)))
    fronts = []
    while left:
        front = [point for point in left if not better[left, point].any()]
        fronts.append(front)
        left = [point for point in left if point not in set(front)]
    return fronts
