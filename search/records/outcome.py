"""What one trial gave: the record that a worker writes, the store keeps and the front reads.

Needs no torch, so that fronts and tables open at once. The JSON is strict: numbers that JSON does not know
are written as the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, and come back as numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Self, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from search.records.timing import Timing
from spaces import Value

State = Literal[
    "complete", "failed", "out_of_memory", "diverged", "timed_out", "lost", "stopped", "infeasible", "paused"
]
"""How a trial ended: with a network; by an exception; without memory; with a loss that is not finite; after its time
limit; with its worker; at a rung, because others were better; or because the point cannot be carried out. One that is
paused has not ended: it waits at a rung."""

STATES: tuple[str, ...] = get_args(State)

MEASURED = ("flops", "params", "seconds")
"""Metrics that every complete outcome has, beside those of its task."""


@dataclass(frozen=True)
class Outcome:
    """A finished trial, complete or failed.

    Attributes:
        number: Number of the trial in its study, from 0.
        method: Name of the pruning method.
        point: Value of each parameter by the method's own names (without the method's prefix).
        state: How it ended, see :data:`State`.
        metrics: Measurements of the pruned network by name: the metrics of the task on validation (``accuracy`` in
            0..1), ``flops`` (multiply–accumulates for one input), ``params``, ``seconds``, every objective of the
            study, and ``latency`` (seconds of one forward pass on the first target) where it could be measured.
        history: One record per epoch.
        widths: Kept and dense channel units by group, in order of depth.
        extra: The method's own results, never mixed with the objectives.
        seed: Seed of the trial.
        error: Why there is no network (a traceback, or a sentence); ``None`` for a complete trial.
        started: When the trial began, seconds since the epoch (UTC).
        seconds: Wall-clock seconds from beginning to end.
        test_metrics: Metrics of the task on the test set by name, once it was looked at.
        profiles: Numbers along an axis of the method's own: pairs of position and value, by name.
        timings: The pruned network beside the dense one by target, where latency was asked for.
        untimed: Why there is no timing, by target.
    """

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings", extra="ignore")

    number: int
    method: str
    point: dict[str, Value]
    state: State
    metrics: dict[str, float]
    history: list[dict[str, float]]
    widths: dict[str, tuple[int, int]]
    extra: dict[str, float]
    seed: int
    error: str | None
    started: float
    seconds: float
    test_metrics: dict[str, float] = field(default_factory=dict)
    profiles: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)
    untimed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"trial {self.number}: state {self.state!r} is none of {', '.join(STATES)}")
        if self.state == "complete":
            self._check_complete()
        elif self.error is None:
            raise ValueError(f"trial {self.number} is {self.state} but has no error text")

    @property
    def complete(self) -> bool:
        """Whether there is a network."""
        return self.state == "complete"

    def _check_complete(self) -> None:
        # A front is made of complete outcomes: their numbers must be there, and be numbers.
        if self.error is not None:
            raise ValueError(f"trial {self.number} is complete but has an error text")
        for name in MEASURED:
            if name not in self.metrics:
                raise ValueError(f"trial {self.number} is complete but its metrics lack {name!r}")
        for name, value in self.metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"trial {self.number} is complete but {name} = {value} is not finite")

    @property
    def test_accuracy(self) -> float | None:
        """Accuracy on the test set in 0..1, once it was looked at and where the task has one."""
        return self.test_metrics.get("accuracy")

    def list_missing(self, objectives: Iterable[str]) -> list[str]:
        """Name the objectives that were not measured.

        Args:
            objectives: Names of objectives.

        Returns:
            Those without a value. A complete trial without its latency keeps its network and all its other
            numbers, but cannot be compared by latency.
        """
        return [name for name in objectives if name not in self.metrics]

    def to_json(self) -> dict[str, Any]:
        """Return the outcome in JSON's types.

        Returns:
            A mapping that ``json.dumps(..., allow_nan=False)`` accepts and :meth:`from_json` reads;
            ``test_accuracy`` is told beside ``test_metrics`` where the task has an accuracy.
        """
        data: dict[str, Any] = json.loads(_codec().dump_json(self))
        return data | ({"test_accuracy": self.test_accuracy} if "accuracy" in self.metrics else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """Read what :meth:`to_json` wrote; keys of later versions are passed over, and those of earlier ones read.

        Args:
            data: The parsed JSON object.

        Returns:
            The outcome.

        Raises:
            ValueError: If something is missing or of another type.
        """
        try:
            return _codec().validate_python({**data, "test_metrics": _test_metrics(data)})
        except ValidationError as error:
            missing = [str(each["loc"][0]) for each in error.errors() if each["type"] == "missing" and each["loc"]]
            why = f"it lacks {', '.join(missing)}" if missing else str(error)
            raise ValueError(f"this is no Outcome: {why}") from error


@dataclass(frozen=True)
class DenseRow:
    """The dense network that a study prunes: the first row of every table.

    Attributes:
        metrics: Measurements by name, as those of :class:`Outcome`: the metrics of the task on validation, ``flops``,
            ``params``, ``seconds`` (of its training; 0 when it came with its weights), every other objective of the
            study that can be measured on it, and ``latency`` where latency is measured.
        test_metrics: Metrics of the task on the test set by name, once it was looked at.
    """

    metrics: dict[str, float]
    test_metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in MEASURED:
            if name not in self.metrics:
                raise ValueError(f"the dense network's metrics lack {name!r}")
        if not 0 <= self.metrics.get("accuracy", 0.0) <= 1:
            raise ValueError(f"accuracy {self.accuracy} of the dense network is not in 0..1")
        if self.flops < 1 or self.params < 1:
            raise ValueError(f"{self.flops} FLOPs and {self.params} parameters are not those of a network")
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise ValueError(f"the dense network's training time of {self.seconds} s is not a time")
        if self.latency is not None and not 0 < self.latency < math.inf:
            raise ValueError(f"the dense network's latency of {self.latency} s is not a latency")
        for name, value in self.metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"the dense network's {name} = {value} is not finite")

    @classmethod
    def from_metrics(cls, test_metrics: Mapping[str, float] | None = None, **metrics: float) -> Self:
        """Make the row from measurements by name.

        Args:
            test_metrics: Metrics of the task on the test set.
            **metrics: The measurements.

        Returns:
            The row.

        Example:
            >>> DenseRow.from_metrics(accuracy=0.98, flops=2_140_000, params=78_100, seconds=9.0).flops
            2140000
        """
        return cls({name: float(value) for name, value in metrics.items()}, dict(test_metrics or {}))

    @property
    def flops(self) -> int:
        """Multiply–accumulates for one input."""
        return round(self.metrics["flops"])

    @property
    def params(self) -> int:
        """Number of parameters."""
        return round(self.metrics["params"])

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of its training; 0 when it came with its weights."""
        return self.metrics["seconds"]

    @property
    def accuracy(self) -> float:
        """Accuracy on validation, 0..1; a ``KeyError`` where the task has none."""
        return self.metrics["accuracy"]

    @property
    def latency(self) -> float | None:
        """Seconds of one forward pass on the first target, where latency is measured."""
        return self.metrics.get("latency")

    @property
    def test_accuracy(self) -> float | None:
        """Accuracy on the test set in 0..1, once it was looked at and where the task has one."""
        return self.test_metrics.get("accuracy")

    def to_json(self) -> dict[str, Any]:
        """Return the row in JSON's types.

        Returns:
            A mapping that :meth:`from_json` reads; the usual measurements stand at its top, too.
        """
        usual: dict[str, Any] = {"flops": self.flops, "params": self.params, "seconds": self.seconds}
        if "accuracy" in self.metrics:
            usual = {"accuracy": self.accuracy, **usual, "test_accuracy": self.test_accuracy}
        whole = {"metrics": dict(self.metrics), "test_metrics": dict(self.test_metrics)}
        return {**usual, "latency": self.latency, **whole}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote; keys of later versions are passed over, and those of earlier ones read.

        Args:
            data: The parsed JSON object.

        Returns:
            The row.

        Raises:
            ValueError: If something is missing.
        """
        flat = {name: data[name] for name in (*MEASURED, "accuracy", "latency") if data.get(name) is not None}
        if missing := [name for name in MEASURED if name not in data.get("metrics", flat)]:
            raise ValueError(f"this is no DenseRow: it lacks {', '.join(missing)}")
        metrics = {name: float(value) for name, value in data.get("metrics", flat).items()}
        return cls(metrics, {name: float(value) for name, value in _test_metrics(data).items()})


def _test_metrics(data: Mapping[str, Any]) -> dict[str, float]:
    """Read the metrics on the test set; earlier versions knew an accuracy alone."""
    if data.get("test_metrics"):
        return dict(data["test_metrics"])
    return {} if data.get("test_accuracy") is None else {"accuracy": data["test_accuracy"]}


@cache
def _codec() -> TypeAdapter[Outcome]:
    return TypeAdapter(Outcome)
