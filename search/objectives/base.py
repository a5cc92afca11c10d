"""What a search optimises: the description of one objective, and what it is measured on.

An objective is a value like any other: it can be made in a user's own module and named as ``package.module:NAME``.
Its description is stored with the study, so that fronts are read, written and drawn without that module::

    def joules(context: MeasureContext) -> float:
        return my_meter(context.model, context.example)

    energy = Objective(name="energy", title="energy", direction="minimise", unit="J", style=".3g", measure=joules)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

from search.objectives.limits import parse_latency, parse_limit, parse_number, parse_share
from search.objectives.units import write_count, write_duration, write_latency
from spaces import InputError

if TYPE_CHECKING:
    from torch import nn

    from methods.contract.data import Split
    from methods.contract.inputs import Inputs
    from methods.contract.method import Method
    from methods.contract.task import Metric, Task
    from search.records.outcome import DenseRow

RESERVED = frozenset({"trial", "method", "point", "drop", "seed", "error", "study", "noisy", "efficiency", "dense"})
"""Words that stand for something else where objectives are columns, keys and orders."""

_WRITERS: Mapping[str, Callable[[float], str]] = {
    "count": write_count,
    "latency": write_latency,
    "duration": write_duration,
}


@dataclass(frozen=True)
class MeasureContext:
    """A network that is to be measured, and everything that a measurement may need.

    Attributes:
        model: The network in eval mode, on the device where trials compute.
        example: One input, ``[1, ...]``, on the same device.
        validation: The validation split. No objective may see test data.
        task: What the network is for.
    """

    model: nn.Module
    example: Inputs
    validation: Split
    task: Task

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The metrics of the task on validation, by name; computed once for all objectives that need them."""
        from search.objectives.quality import measure_quality

        return measure_quality(self.model, self.validation, self.task)


Measure = Callable[[MeasureContext], float]
"""Measures a finished network."""


@dataclass(frozen=True)
class Objective:
    """One quantity of a pruned network that is maximised or minimised.

    Attributes:
        name: Key of the value in ``Outcome.metrics``, in tables, JSON and CSV: letters, digits and ``_``.
        title: The name in words, for axes.
        direction: ``"maximise"`` or ``"minimise"``.
        unit: Unit of the value.
        style: How a value is written: ``"count"``, ``"latency"``, ``"duration"`` (both of seconds), or a format of
            Python's for a number, such as ``".3g"`` or, for shares, ``".2%"``. It decides how limits are read, too.
        heading: The name in a word, for columns; ``title`` if it is not given.
        ideal: Best value that can be thought of: counts 1 in the hypervolume. It is 0 where less is better, and
            must be given where more is better.
        worst: Worst acceptable value: counts 0 in the hypervolume. ``None`` for the dense network's own.
        unknown: Stands for the dense network's own value where it has none, or is as good as :attr:`ideal`.
        measure: Measures a finished network; ``None`` when the value is known from the trial itself.
        reported_by: Tells whether a method reports the value itself, in ``Pruned.extra`` under the objective's name;
            ``None`` for values that do not come from the method.
        quality: Whether it tells a good network from a small one. A search needs one such objective, or the
            smallest network always wins.
        trained: Whether fine-tuning changes it. A study without any such objective does not fine-tune.
    """

    name: str
    title: str
    direction: Literal["maximise", "minimise"]
    unit: str = ""
    style: str = ".4g"
    heading: str = ""
    ideal: float = math.nan
    worst: float | None = None
    unknown: float | None = None
    measure: Measure | None = field(default=None, compare=False)
    reported_by: Callable[[type[Method]], bool] | None = field(default=None, compare=False)
    quality: bool = False
    trained: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,39}", self.name) or self.name in RESERVED:
            raise InputError(
                f"an objective cannot be called {self.name!r}: use letters, digits and '_', at most 40, and none of "
                f"{', '.join(sorted(RESERVED))}"
            )
        if self.direction not in ("maximise", "minimise"):
            raise InputError(f"objective {self.name!r}: direction {self.direction!r} is not 'maximise' or 'minimise'")
        if math.isnan(self.ideal):
            if self.maximise:
                raise InputError(f"objective {self.name!r} is maximised: give its ideal, the best value there could be")
            object.__setattr__(self, "ideal", 0.0)
        if not self.heading:
            object.__setattr__(self, "heading", self.title)
        try:
            self.format(1.0)
        except ValueError as error:
            raise InputError(
                f"objective {self.name!r}: style {self.style!r} writes no number; take 'count', 'latency', 'duration' "
                "or a format such as '.3g' or '.2%'"
            ) from error

    @classmethod
    def from_metric(cls, metric: Metric) -> Self:
        """Make the objective that searches for a metric of a task.

        Args:
            metric: The metric; measured on validation.

        Returns:
            The objective. Where the metric has no ideal it is 1 if more is better; where it has no worst value that
            of the dense network is the worst acceptable one if less is better, and 0 if more is.
        """
        maximise = metric.direction == "maximize"
        worst = metric.worst if metric.worst is not None and math.isfinite(metric.worst) else None
        return cls(
            name=metric.name,
            title=f"validation {metric.title}",
            direction="maximise" if maximise else "minimise",
            unit=metric.unit,
            style=metric.format,
            heading=metric.title,
            ideal=float(maximise) if metric.ideal is None else metric.ideal,
            worst=0.0 if worst is None and maximise else worst,
            measure=lambda context: context.metrics[metric.name],
            quality=True,
            trained=True,
        )

    @property
    def maximise(self) -> bool:
        """Whether larger is better."""
        return self.direction == "maximise"

    @property
    def relative(self) -> bool:
        """Whether a value is best told as a share of the dense network's: costs are."""
        return not self.quality and not self.maximise and self.ideal == 0.0

    @property
    def column(self) -> str:
        """The heading of a column of values: with the unit, where that is given and values are written without one."""
        plain = self.style not in _WRITERS and not self.style.endswith("%") and self.heading == self.title
        return f"{self.heading}, {self.unit}" if plain and self.unit else self.heading

    def format(self, value: float) -> str:
        """Write a value.

        Args:
            value: The value.

        Returns:
            The text, with a unit where the style has one.
        """
        if self.style in _WRITERS:
            return _WRITERS[self.style](value)
        text = format(value, self.style)
        return f"{text[:-1]} %" if text.endswith("%") else text

    def parse_limit(self, text: str | float, dense: DenseRow, option: str) -> float:
        """Read a limit on the value.

        Args:
            text: What the user wrote: a value as this objective's are written or, for costs, a share of the dense
                network's (``"50%"``).
            dense: The dense network.
            option: Name of the limit, for messages (``"max-flops"``).

        Returns:
            The limit as a value; an ``InputError`` if the text is no limit, or needs an unknown value of the dense
            network.
        """
        whole = dense.metrics.get(self.name)
        if self.style.endswith("%"):
            return parse_share(text, option)
        if self.style == "count" and whole is not None:
            return parse_limit(text, round(whole), option)
        if self.style in ("latency", "duration"):
            return parse_latency(str(text), math.nan if whole is None else whole, option)
        return parse_number(text, whole if self.relative else None, option, self.format)

    def reference(self, dense: DenseRow) -> float:
        """Return the worst acceptable value.

        Args:
            dense: The dense network of the study.

        Returns:
            The value that counts 0 in the hypervolume.

        Raises:
            ValueError: If it is the dense network's own, and that was not measured.
        """
        if self.worst is not None:
            return self.worst
        own = dense.metrics.get(self.name)
        if own is not None and own != self.ideal:
            return own
        if self.unknown is not None:
            return self.unknown
        if own is None:
            raise ValueError(f"the {self.title} of this study's dense network was not measured")
        raise ValueError(f"the dense network's {self.title} is ideal already: {self.format(own)}")

    def gain(self, value: float, dense: DenseRow) -> float:
        """Normalise a value so that 0 is the worst acceptable and 1 the ideal one.

        Args:
            value: The measured value.
            dense: The dense network of the study.

        Returns:
            The gain: 1 at :attr:`ideal`, 0 at :meth:`reference`, negative beyond it.
        """
        worst = self.reference(dense)
        return (value - worst) / (self.ideal - worst)

    def drop(self, value: float, whole: float) -> float:
        """Say how much was lost.

        Args:
            value: The value of a pruned network.
            whole: The value of the dense network.

        Returns:
            What is worse than dense, negative for a gain: in percentage points where values are shares, else in the
            unit of the value.
        """
        lost = whole - value if self.maximise else value - whole
        # Rounded, so that 98 % - 97.5 % is not 0.50000000000000044.
        return round(100 * lost if self.style.endswith("%") else lost, 9)

    def to_json(self) -> dict[str, Any]:
        """Return the description, without what measures.

        Returns:
            A mapping in JSON's types that :meth:`from_json` reads.
        """
        return {each.name: getattr(self, each.name) for each in fields(self) if each.compare}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote; keys of later versions are passed over.

        Args:
            data: The parsed JSON object.

        Returns:
            The objective; it can be shown and compared, but not measured.
        """
        known = {each.name for each in fields(cls) if each.compare}
        return cls(**{key: value for key, value in data.items() if key in known})
