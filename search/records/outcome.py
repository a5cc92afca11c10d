"""What one trial gave: the record that a worker writes, the store keeps and the front reads.

Needs no torch, so that fronts and tables open at once. The JSON is strict: numbers that JSON does not know
are written as the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, and come back as numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from search.records.timing import Timing

if TYPE_CHECKING:
    from spaces import Value

State = Literal["complete", "failed"]

MEASURED = ("accuracy", "flops", "params", "seconds")
"""Metrics that every complete outcome has."""


@dataclass(frozen=True)
class Outcome:
    """A finished trial, complete or failed.

    Attributes:
        number: Number of the trial in its study, from 0.
        method: Name of the pruning method.
        point: Value of each parameter by the method's own names (without the method's prefix).
        state: ``"complete"``, or ``"failed"`` when an exception ended the trial.
        metrics: Measurements of the pruned network by objective: ``accuracy`` on validation in 0..1,
            ``flops`` (multiply–accumulates for one input), ``params``, ``seconds``, and ``latency`` (seconds of
            one forward pass on the first target) where it could be measured.
        history: One record per epoch.
        widths: Kept and dense channel units by group, in order of depth.
        extra: The method's own results, never mixed with the objectives.
        seed: Seed of the trial.
        error: The traceback of a failed trial, ``None`` for a complete one.
        started: When the trial began, seconds since the epoch (UTC).
        seconds: Wall-clock seconds from beginning to end.
        test_accuracy: Accuracy on the test set in 0..1, once it was looked at.
        profiles: Numbers along an axis of the method's own: pairs of position and value, by name.
        timings: The pruned network beside the dense one by target, where latency was asked for.
        untimed: Why there is no timing, by target.
    """

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
    test_accuracy: float | None = None
    profiles: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)
    untimed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.state not in ("complete", "failed"):
            raise ValueError(f"trial {self.number}: state {self.state!r} is neither 'complete' nor 'failed'")
        if self.state == "complete":
            self._check_complete()
        elif self.error is None:
            raise ValueError(f"trial {self.number} failed but has no error text")

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

    def lacks(self, objectives: Iterable[str]) -> list[str]:
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
            A mapping that ``json.dumps(..., allow_nan=False)`` accepts and :meth:`from_json` reads.
        """
        return {
            **{name: getattr(self, name) for name in ("number", "method", "state", "seed", "error")},
            "point": dict(self.point),
            "metrics": _written(self.metrics),
            "history": [_written(record) for record in self.history],
            "widths": {group: list(pair) for group, pair in self.widths.items()},
            "extra": _written(self.extra),
            "started": self.started,
            "seconds": self.seconds,
            "test_accuracy": self.test_accuracy,
            "profiles": {name: [_written_pair(*pair) for pair in pairs] for name, pairs in self.profiles.items()},
            "timings": {target: timing.to_json() for target, timing in self.timings.items()},
            "untimed": dict(self.untimed),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote; keys of later versions are passed over.

        Args:
            data: The parsed JSON object.

        Returns:
            The outcome.
        """
        given = _required(data, cls, optional=("test_accuracy", "profiles", "timings", "untimed"))
        test = data.get("test_accuracy")
        return cls(
            number=int(given["number"]),
            method=str(given["method"]),
            point=dict(given["point"]),
            state=given["state"],
            metrics=_read(given["metrics"]),
            history=[_read(record) for record in given["history"]],
            widths={group: (int(kept), int(dense)) for group, (kept, dense) in given["widths"].items()},
            extra=_read(given["extra"]),
            seed=int(given["seed"]),
            error=given["error"],
            started=float(given["started"]),
            seconds=float(given["seconds"]),
            test_accuracy=None if test is None else float(test),
            profiles={
                name: [(float(position), float(value)) for position, value in pairs]
                for name, pairs in data.get("profiles", {}).items()
            },
            timings={target: Timing.from_json(timing) for target, timing in data.get("timings", {}).items()},
            untimed=dict(data.get("untimed", {})),
        )


@dataclass(frozen=True)
class DenseRow:
    """The dense network that a study prunes: the first row of every table.

    Attributes:
        accuracy: Accuracy on validation, 0..1.
        flops: Multiply–accumulates for one input.
        params: Number of parameters.
        seconds: Wall-clock seconds of its training; 0 when it came with its weights.
        test_accuracy: Accuracy on the test set in 0..1, once it was looked at.
        latency: Seconds of one forward pass on the first target, where latency is measured.
    """

    accuracy: float
    flops: int
    params: int
    seconds: float
    test_accuracy: float | None = None
    latency: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.accuracy <= 1:
            raise ValueError(f"accuracy {self.accuracy} of the dense network is not in 0..1")
        if self.flops < 1 or self.params < 1:
            raise ValueError(f"{self.flops} FLOPs and {self.params} parameters are not those of a network")
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise ValueError(f"the dense network's training time of {self.seconds} s is not a time")
        if self.latency is not None and not 0 < self.latency < math.inf:
            raise ValueError(f"the dense network's latency of {self.latency} s is not a latency")

    def to_json(self) -> dict[str, Any]:
        """Return the row in JSON's types.

        Returns:
            A mapping that :meth:`from_json` reads.
        """
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote; keys of later versions are passed over.

        Args:
            data: The parsed JSON object.

        Returns:
            The row.
        """
        given = _required(data, cls, optional=("test_accuracy", "latency"))
        test, latency = data.get("test_accuracy"), data.get("latency")
        return cls(
            accuracy=float(given["accuracy"]),
            flops=int(given["flops"]),
            params=int(given["params"]),
            seconds=float(given["seconds"]),
            test_accuracy=None if test is None else float(test),
            latency=None if latency is None else float(latency),
        )


def _required(data: Mapping[str, Any], kind: type[Any], optional: Iterable[str]) -> Mapping[str, Any]:
    # The data, once all fields of the dataclass that are not optional are found in it.
    missing = [name for name in kind.__dataclass_fields__ if name not in data and name not in optional]
    if missing:
        raise ValueError(f"this is no {kind.__name__}: it lacks {', '.join(missing)}")
    return data


def _written(numbers: Mapping[str, float]) -> dict[str, float | str]:
    """Return the numbers with names in place of those that JSON does not know."""
    return {name: value if math.isfinite(value) else _name(value) for name, value in numbers.items()}


def _written_pair(position: float, value: float) -> list[float | str]:
    return [number if math.isfinite(number) else _name(number) for number in (position, value)]


def _name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _read(numbers: Mapping[str, float | str]) -> dict[str, float]:
    """Return what :func:`_written` was given (``float`` knows the three names)."""
    return {name: float(value) for name, value in numbers.items()}
