"""The front by what a model thinks of each network, instead of by what was measured once.

A front is chosen for its best numbers, and with a few hundred validation examples a best number is partly luck. The
model that proposes points (:mod:`search.study.samplers.surrogate`) is fitted to all trials of a study; what it expects
of a network is drawn towards what networks like it came to. Costs are exact and stay as they were measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.fronts.front import Front
from search.objectives import Objective
from search.records.outcome import Outcome
from search.study.samplers.slots import Slots
from search.study.samplers.surrogate import FLOOR, Features, Surrogate
from search.study.space import select_own_space
from spaces import InputError, Space

LEAST = 8
"""Trials below which there is nothing to fit a model to."""

COUNTED = "accuracy"
"""The quality that is a share of validation examples."""

WIDE = 1.96
"""Standard deviations of the model to either side that hold 95 %."""

NARROWEST = 1e-3
"""Share of a group's units that counts as what is left of it where it went as a whole."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Denoised:
    """A front by a model.

    Attributes:
        front: The front over all trials; of its quality it has what the model expects, and beside it
            ``measured_QUALITY`` and the ends of a 95 % interval, ``QUALITY_low`` and ``QUALITY_high``.
        trials: How many trials the model was fitted to.
        examples: How many validation examples decide the quality; ``None`` where that is not known, so that the noise
            is judged by how trials scatter.
        luck: By how much, on average, members of the measured front were measured as better than the model expects.
    """

    front: Front
    trials: int
    examples: int | None
    luck: float

    def to_json(self) -> dict[str, Any]:
        """Say how the front was made, in JSON's types.

        Returns:
            ``quality``, ``trials``, ``examples`` and ``luck``.
        """
        quality = self.front.quality.name
        return {"quality": quality, "trials": self.trials, "examples": self.examples, "luck": self.luck}

    def describe(self) -> str:
        """Say in words what the numbers are.

        Returns:
            One sentence.
        """
        quality = self.front.quality
        noise = (
            "the scatter of trials" if self.examples is None else f"the noise of {self.examples} validation examples"
        )
        luck = 100 * self.luck if quality.style.endswith("%") else self.luck
        unit = " points" if quality.style.endswith("%") else ""
        return (
            f"{quality.name} is what a model of {self.trials} trials expects of each network, given {noise}; those of "
            f"the measured front were measured as better by {luck:.2f}{unit} on average"
        )


def denoise(front: Front, space: Space, examples: int | None) -> Denoised:
    """Replace the measured quality of every trial by what the model expects.

    Args:
        front: The measured front.
        space: The space of the study.
        examples: How many validation examples decide the quality, where it is a share of them.

    Returns:
        The denoised front.

    Raises:
        InputError: If there are too few complete trials, or the quality is not one that training changes.
    """
    quality, outcomes = front.quality, front.outcomes
    if len(outcomes) < LEAST:
        raise InputError(
            f"study {front.study!r} has {len(outcomes)} complete trials; a model needs at least {LEAST} to tell luck "
            "from quality"
        )
    if not quality.trained:
        raise InputError(f"{quality.name!r} is not measured with noise: leave --denoised out")
    sign = 1.0 if quality.maximise else -1.0
    # a share of so many examples has the binomial noise of that number; of others only their scatter tells
    examples = examples if quality.name == COUNTED else None
    values = np.array([outcome.metrics[quality.name] for outcome in outcomes])
    error = np.maximum(sign * (quality.ideal - values), 0.0)
    at = _describe(front, space)
    mean, sd = Surrogate.fit(at, error, examples).predict(at)
    # the process is on log(error + FLOOR): median and quantiles go through the logarithm
    expected, low, high = (
        quality.ideal - sign * np.maximum(np.exp(mean + far * sd) - FLOOR, 0.0) for far in (0.0, WIDE, -WIDE)
    )
    measured = _make_column(quality, f"measured_{quality.name}", f"measured {quality.title}", "measured")
    ends = [
        _make_column(quality, f"{quality.name}_{end}", f"{end} end of 95 % for {quality.title}", f"95 % {end}")
        for end in ("low", "high")
    ]
    columns = {quality.name: expected, measured.name: values, ends[0].name: low, ends[1].name: high}
    shown = [
        replace(outcome, metrics={**outcome.metrics, **{name: float(column[k]) for name, column in columns.items()}})
        for k, outcome in enumerate(outcomes)
    ]
    place = {outcome.number: k for k, outcome in enumerate(outcomes)}
    chosen = [place[member.trial] for member in front.members]
    luck = float(np.mean(sign * (values[chosen] - expected[chosen])))
    whole = front.dense.metrics.get(quality.name)
    known = {} if whole is None else dict.fromkeys((measured.name, *(end.name for end in ends)), whole)
    dense = replace(front.dense, metrics={**front.dense.metrics, **known})
    denoised = replace(front, dense=dense, outcomes=shown, metrics=(*front.metrics, measured, *ends))
    return Denoised(denoised, len(outcomes), examples, luck)


def _make_column(quality: Objective, name: str, title: str, heading: str) -> Objective:
    """Describe a number of the same kind as the quality that decides nothing."""
    return replace(quality, name=name[:40], title=title, heading=heading, measure=None)


def _describe(front: Front, space: Space) -> Features:
    """Describe trials by what was removed, where, by which method, and by how it was set."""
    outcomes = front.outcomes
    methods = list(dict.fromkeys(outcome.method for outcome in outcomes))
    slots = {method: Slots(select_own_space(space, method)) for method in methods}
    own = {method: [k for k, name in enumerate(slots[method].names) if not _is_sparsity(name)] for method in methods}
    knobs = np.zeros((len(outcomes), max(map(len, own.values()), default=0)))
    for row, outcome in enumerate(outcomes):
        its, chosen = slots[outcome.method], own[outcome.method]
        usual = np.full(len(its), 0.5) if its.default is None else its.default
        known = {name: value for name, value in outcome.point.items() if name in its.index}
        knobs[row, : len(chosen)] = (its.canonicalise(its.encode(known)[None])[0] - usual)[chosen]
    flops = np.array([max(outcome.metrics["flops"], 1.0) for outcome in outcomes])
    return Features(
        np.array([methods.index(outcome.method) for outcome in outcomes]),
        -np.log2(flops / front.dense.flops),
        _measure_deviations(outcomes),
        knobs,
    )


def _measure_deviations(outcomes: Sequence[Outcome]) -> Floats:
    """Say by how many octaves each group was narrowed more than the mean, ``[trials, groups]``."""
    groups = list(dict.fromkeys(name for outcome in outcomes for name in outcome.widths))

    def shrunk(widths: Mapping[str, tuple[int, int]]) -> list[float]:
        pairs = [widths.get(name, (1, 1)) for name in groups]
        return [-np.log2(max(kept / whole, NARROWEST)) for kept, whole in pairs]

    table = np.array([shrunk(outcome.widths) for outcome in outcomes]).reshape(len(outcomes), len(groups))
    return np.asarray(table - table.mean(axis=1, keepdims=True) if groups else table, dtype=np.float64)


def _is_sparsity(name: str) -> bool:
    """Whether a parameter says how much is removed, and where: that is seen from what came out."""
    return name.startswith("sparsity.") or name.endswith("flops")
