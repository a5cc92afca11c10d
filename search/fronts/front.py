"""The Pareto front of a study: which pruned networks no other one beats, and how to choose among them.

Light to import: pandas, matplotlib and plotly are imported by the functions that need them.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar

from search.fronts.dominance import hypervolume, knee, non_dominated
from search.objectives import Objective
from search.objectives.limits import parse_latency, parse_limit, parse_share
from search.records.outcome import DenseRow, Outcome
from spaces import InputError, unknown_name

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure
    from torch import nn

    from spaces import Value

__all__ = [
    "PICKS",
    "SORTS",
    "Front",
    "Member",
    "hypervolume",
    "knee",
    "non_dominated",
    "parse_latency",
    "parse_limit",
    "parse_share",
]

Found = TypeVar("Found")
Rebuild = Callable[[int], "nn.Module"]
"""Rebuilds the pruned network of a trial, given its number."""


@dataclass(frozen=True)
class Member:
    """One pruned network beside its dense one.

    Attributes:
        trial: Number of the trial.
        method: Name of the pruning method.
        accuracy: Accuracy on validation, 0..1.
        flops: Multiply–accumulates for one input.
        flops_share: Share of the dense network's FLOPs.
        params: Number of parameters.
        params_share: Share of the dense network's parameters.
        seconds: Seconds that pruning and fine-tuning took.
        point: The method's parameters.
        metrics: All measurements by name of the objective.
        test_accuracy: Accuracy on the test set in 0..1, once it was looked at.
        latency: Seconds of one forward pass on the first target, where it was measured.
        latency_share: Share of the dense network's latency.
        noisy: Whether that measurement scattered more than it should.
    """

    trial: int
    method: str
    accuracy: float
    flops: int
    flops_share: float
    params: int
    params_share: float
    seconds: float
    point: Mapping[str, Value]
    metrics: Mapping[str, float]
    test_accuracy: float | None = None
    latency: float | None = None
    latency_share: float | None = None
    noisy: bool = False
    _rebuild: Rebuild | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, outcome: Outcome, dense: DenseRow, rebuild: Rebuild | None = None) -> Self:
        """Set a complete outcome beside the dense network.

        Args:
            outcome: The outcome of a complete trial.
            dense: The dense network of its study.
            rebuild: Rebuilds the network of a trial; needed by :meth:`model` alone.

        Returns:
            The member.
        """
        flops, params = round(outcome.metrics["flops"]), round(outcome.metrics["params"])
        latency, known = outcome.metrics.get("latency"), dense.latency is not None
        first = next(iter(outcome.timings.values()), None)
        return cls(
            trial=outcome.number,
            method=outcome.method,
            accuracy=outcome.metrics["accuracy"],
            flops=flops,
            flops_share=flops / dense.flops,
            params=params,
            params_share=params / dense.params,
            seconds=outcome.metrics["seconds"],
            point=outcome.point,
            metrics=outcome.metrics,
            test_accuracy=outcome.test_accuracy,
            latency=latency if known else None,
            latency_share=None if latency is None or dense.latency is None else latency / dense.latency,
            noisy=latency is not None and first is not None and first.noisy,
            _rebuild=rebuild,
        )

    @property
    def efficiency(self) -> float | None:
        """Speed-up divided by the factor of FLOPs saved: 1 when half the FLOPs take half the time."""
        return None if self.latency_share is None else self.flops_share / self.latency_share

    def model(self) -> nn.Module:
        """Rebuild the pruned network with its trained weights.

        Returns:
            The network, smaller than the dense one, in eval mode.

        Raises:
            ValueError: If the front was made without a way to the stored networks.
        """
        if self._rebuild is None:
            raise ValueError("this front holds numbers alone; load_front gives one that can rebuild networks")
        return self._rebuild(self.trial)

    def to_json(self) -> dict[str, Any]:
        """Return the member as ``front --json`` prints it.

        Returns:
            A mapping in JSON's types; ``test_accuracy``, and ``latency`` with what belongs to it, are there only
            when they are known.
        """
        data = {name: getattr(self, name) for name in _COLUMNS} | {"point": dict(self.point)}
        if self.latency is not None:
            data |= {name: getattr(self, name) for name in _TIMED}
        return data if self.test_accuracy is None else data | {"test_accuracy": self.test_accuracy}


_COLUMNS = ("trial", "method", "accuracy", "flops", "flops_share", "params", "params_share", "seconds")
_TIMED = ("latency", "latency_share", "efficiency", "noisy")


@dataclass(frozen=True, eq=False)
class Front:
    """The complete trials of a study and the front among them.

    Attributes:
        study: Name of the study.
        dense: The dense network that was pruned.
        outcomes: The complete outcomes, by number of the trial.
        objectives: What was optimised; decides who is on the front.
        rebuild: Rebuilds the network of a trial; ``None`` for numbers alone.
    """

    study: str
    dense: DenseRow
    outcomes: Sequence[Outcome]
    objectives: tuple[Objective, ...]
    rebuild: Rebuild | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.outcomes, key=lambda outcome: outcome.number))
        object.__setattr__(self, "outcomes", ordered)
        for outcome in ordered:
            if outcome.state != "complete":
                raise ValueError(f"trial {outcome.number} of study {self.study!r} is {outcome.state}")
            for objective in self.objectives:
                if objective.name not in outcome.metrics:
                    raise ValueError(f"trial {outcome.number} was not measured for {objective.name!r}")

    @cached_property
    def _split(self) -> tuple[tuple[Member, ...], tuple[Member, ...]]:
        """Members on the front and the others, both by ascending FLOPs."""
        rows = [Member.of(outcome, self.dense, self.rebuild) for outcome in self.outcomes]
        on_front = non_dominated(self._values(rows), self._maximise)
        # Among equal FLOPs (possible with other objectives) the most accurate comes first.
        ranked = sorted(zip(rows, on_front, strict=True), key=lambda row: (row[0].flops, -row[0].accuracy))
        front = tuple(member for member, best in ranked if best)
        return front, tuple(member for member, best in ranked if not best)

    @property
    def members(self) -> tuple[Member, ...]:
        """The networks that no other one beats in all objectives, by ascending FLOPs."""
        return self._split[0]

    @property
    def dominated(self) -> tuple[Member, ...]:
        """The other complete trials, by ascending FLOPs."""
        return self._split[1]

    @property
    def timed(self) -> bool:
        """Whether latency was measured in this study."""
        return self.dense.latency is not None

    @property
    def _maximise(self) -> list[bool]:
        return [objective.maximise for objective in self.objectives]

    def _values(self, members: Sequence[Member]) -> list[list[float]]:
        """Return the values of the objectives, ``[members, objectives]``."""
        return [[member.metrics[objective.name] for objective in self.objectives] for member in members]

    def filter(
        self,
        max_flops: str | float | None = None,
        min_accuracy: str | float | None = None,
        max_params: str | float | None = None,
        method: str | None = None,
        max_latency: str | None = None,
    ) -> Front:
        """Keep the trials that meet all limits, and take the front among them anew.

        Args:
            max_flops: Upper limit, a share of the dense network (``"50%"``, ``0.5``) or a count (``"20M"``).
            min_accuracy: Least validation accuracy, a share (``0.95``, ``"95%"``).
            max_params: Upper limit, written like ``max_flops``.
            method: The only method to keep; one that no trial used is an ``InputError``, like a limit that
                cannot be read.
            max_latency: Upper limit on the measured latency, a time (``"2ms"``) or a share (``"50%"``); an
                ``InputError`` if latency was not measured. Networks that could not be timed do not meet it.

        Returns:
            The front of what is left, possibly empty.
        """
        kept = list(self.outcomes)
        if method is not None:
            by_method = {outcome.method: outcome.method for outcome in self.outcomes}
            wanted = _look_up("method of this study", method, by_method)
            kept = [outcome for outcome in kept if outcome.method == wanted]
        if max_flops is not None:
            most = parse_limit(max_flops, self.dense.flops, "max-flops")
            kept = [outcome for outcome in kept if outcome.metrics["flops"] <= most]
        if max_params is not None:
            most = parse_limit(max_params, self.dense.params, "max-params")
            kept = [outcome for outcome in kept if outcome.metrics["params"] <= most]
        if max_latency is not None:
            slowest = parse_latency(max_latency, self._dense_latency("max-latency"), "max-latency")
            kept = [outcome for outcome in kept if outcome.metrics.get("latency", math.inf) <= slowest]
        if min_accuracy is not None:
            least = parse_share(min_accuracy, "min-accuracy")
            kept = [outcome for outcome in kept if outcome.metrics["accuracy"] >= least]
        return replace(self, outcomes=kept)

    def sorted(self, by: str = "flops") -> tuple[Member, ...]:
        """Return the members in another order.

        Args:
            by: A name in :data:`SORTS` (others are an ``InputError``, and ``"latency"`` where it was not measured);
                accuracy and efficiency come best first, everything else in ascending order.

        Returns:
            The members; equal ones stay in the order of their FLOPs.
        """
        if by in ("latency", "efficiency"):
            self._dense_latency(f"sort {by}")
        return tuple(sorted(self.members, key=_look_up("order", by, SORTS)))

    def _dense_latency(self, asked: str) -> float:
        """Return the dense network's latency, which stands for all others having been measured."""
        if self.dense.latency is None:
            raise InputError(
                f"{asked}: no latency was measured in study {self.study!r}; run a sweep with --objectives "
                "accuracy,latency, or with --set 'latency.targets=[\"cpu\"]'"
            )
        return self.dense.latency

    def knee(self) -> Member:
        """Return the member at which the front bends most (see :func:`search.fronts.dominance.knee`).

        Returns:
            The knee; the more accurate one where a front of two, or one without a bend, leaves the choice.
        """
        members = self._some()[::-1]
        return members[knee(self._values(members), self._maximise)]

    def best(self) -> Member:
        """Return the most accurate member.

        Returns:
            The member with the highest validation accuracy; the cheapest of equals.
        """
        return max(self._some(), key=lambda member: member.accuracy)

    def cheapest(self, drop: float = 0.5) -> Member:
        """Return the member with the fewest FLOPs that is still accurate enough.

        Args:
            drop: How much accuracy may be lost against the dense network, in percentage points.

        Returns:
            The member.

        Raises:
            InputError: If ``drop`` is not in 0..100, or no member is accurate enough.
        """
        if not 0 <= drop <= 100:
            raise InputError(f"drop: {drop} is not in 0..100 percentage points (example: 0.5)")
        for member in self._some():
            if self.drop(member) <= drop:
                return member
        least = self.drop(self.best())
        raise InputError(
            f"no network of study {self.study!r} is within {drop:g} percentage points of the dense one; "
            f"the most accurate lost {least:.2f}"
        )

    def drop(self, member: Member) -> float:
        """Return how much accuracy a member lost.

        Args:
            member: A member.

        Returns:
            Validation accuracy lost against the dense network, in percentage points; negative for a gain.
        """
        # Rounded, so that 98 % - 97.5 % is not 0.50000000000000044.
        return round(100 * (self.dense.accuracy - member.accuracy), 9)

    def pick(self, rule: str, drop: float = 0.5) -> Member:
        """Choose one member by a named rule.

        Args:
            rule: A name in :data:`PICKS`: ``knee``, ``best`` or ``cheapest`` (others are an ``InputError``).
            drop: For ``cheapest``: accuracy that may be lost, in percentage points.

        Returns:
            The member.
        """
        return _look_up("rule", rule, PICKS)(self, drop)

    def _some(self) -> tuple[Member, ...]:
        # The members, when there are any to choose from.
        if not self.members:
            raise InputError(f"study {self.study!r} has no complete trial within these limits")
        return self.members

    def hypervolume(self) -> float:
        """Return how much of the space between the dense network and the ideal the front commands.

        Every objective is normalised by :meth:`search.objectives.Objective.gain`: 0 is its worst acceptable
        value, 1 its ideal. For accuracy and FLOPs this is the area, in the unit square of accuracy (0..1)
        against ``1 - flops_share``, that the front dominates: the reference point is accuracy 0 at the dense
        network's FLOPs, the ideal is accuracy 1 at 0 FLOPs.

        Returns:
            The volume, 0..1.
        """
        gains = [
            [objective.gain(member.metrics[objective.name], self.dense) for objective in self.objectives]
            for member in self.members
        ]
        axes = len(self.objectives)
        return hypervolume(gains, reference=[0.0] * axes, maximise=[True] * axes)

    def records(self) -> list[dict[str, Any]]:
        """Return the front as flat rows, the dense network first.

        Returns:
            One mapping per row, all with the same keys: the numbers of :class:`Member`, the ``drop`` in
            percentage points, and the parameters as ``point.NAME`` (``None`` where a method has none such).
        """
        names = sorted({name for member in self.members for name in member.point})
        dense = {"trial": None, "method": "dense", "flops_share": 1.0, "params_share": 1.0, "drop": 0.0}
        dense |= {name: getattr(self.dense, name) for name in ("accuracy", "flops", "params", "seconds")}
        columns = (*_COLUMNS[:3], "drop", *_COLUMNS[3:], *(_TIMED if self.timed else ()))
        if self.timed:
            dense |= {"latency": self.dense.latency, "latency_share": 1.0, "efficiency": 1.0, "noisy": None}
        rows = [{name: dense[name] for name in columns} | {"test_accuracy": self.dense.test_accuracy}]
        rows[0] |= {f"point.{name}": None for name in names}
        for member in self.members:
            row = {name: self.drop(member) if name == "drop" else getattr(member, name) for name in columns}
            row["test_accuracy"] = member.test_accuracy
            rows.append(row | {f"point.{name}": member.point.get(name) for name in names})
        return rows

    def table(self) -> pandas.DataFrame:
        """Return the front as a data frame, the dense network first.

        Returns:
            The rows of :meth:`records`; ``trial`` is a nullable integer, missing for the dense network.
        """
        import pandas

        kinds = {"trial": "Int64", "test_accuracy": "float64"}
        return pandas.DataFrame.from_records(self.records()).astype(kinds)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw accuracy against FLOPs: the front, the trials behind it, the dense network.

        Args:
            path: Where to write the picture as well (``.png``, ``.svg``, ``.pdf``; ``.html`` is interactive).

        Returns:
            The matplotlib figure.
        """
        from search.report.plots import front_figure, save_front

        if path is not None:
            save_front(self, path)
        return front_figure(self)

    def to_json(self) -> dict[str, Any]:
        """Return the front as ``front --json`` prints it.

        Returns:
            A mapping in JSON's types: ``study``, ``dense``, ``hypervolume``, ``members`` (ascending FLOPs).
        """
        return {
            "study": self.study,
            "dense": {name: getattr(self.dense, name) for name in ("accuracy", "flops", "params")}
            | ({"latency": self.dense.latency} if self.timed else {}),
            "hypervolume": self.hypervolume(),
            "members": [member.to_json() for member in self.members],
        }

    def to_csv(self) -> str:
        """Return the rows of :meth:`records` as CSV with a header.

        Returns:
            The text; missing values are empty.
        """
        rows = self.records()
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


PICKS: Mapping[str, Callable[[Front, float], Member]] = {
    "knee": lambda front, drop: front.knee(),
    "best": lambda front, drop: front.best(),
    "cheapest": lambda front, drop: front.cheapest(drop),
}
"""Rules that choose one member of a front."""

SORTS: Mapping[str, Callable[[Member], Any]] = {
    "accuracy": lambda member: -member.accuracy,
    "flops": lambda member: member.flops,
    "latency": lambda member: math.inf if member.latency is None else member.latency,
    "efficiency": lambda member: -(member.efficiency or 0.0),
    "params": lambda member: member.params,
    "seconds": lambda member: member.seconds,
    "method": lambda member: member.method,
    "trial": lambda member: member.trial,
}
"""Orders of the members of a front."""


def _look_up(kind: str, name: str, known: Mapping[str, Found]) -> Found:
    # What the user's word stands for.
    if name not in known:
        raise InputError(unknown_name(kind, name, known))
    return known[name]
