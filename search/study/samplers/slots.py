"""A method's points as vectors of numbers from 0 to 1, one slot for each parameter that varies."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from spaces import Categorical, Parameter, Space, Value

Floats = NDArray[np.float64]

UNUSED = 0.5
"""What stands in the slot of a parameter that does not apply: the same for all, so that it tells points not apart."""


class Slots:
    """The slots of one method.

    Args:
        space: The method's own space.

    Example:
        >>> from spaces import LogReal, Real
        >>> slots = Slots(Space({"rate": LogReal(0.01, 1.0), "norm": Categorical(("l1", "l2")), "fixed": Real(2, 2)}))
        >>> slots.encode({"rate": 0.1, "norm": "l2", "fixed": 2.0}).tolist()
        [0.5, 0.75]
        >>> slots.decode(slots.encode({"rate": 0.1, "norm": "l2", "fixed": 2.0}))["norm"]
        'l2'
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.names = [name for name in space if space[name].only is None]
        self.index = {name: slot for slot, name in enumerate(self.names)}
        self.parameters = [space[name] for name in self.names]
        self._ancestors = [self._conditions(name) for name in self.names]
        defaults = space.defaults()
        self.default = self.encode(defaults) if defaults is not None else None

    def __len__(self) -> int:
        return len(self.names)

    def _conditions(self, name: str) -> list[tuple[int, NDArray[np.bool_]]]:
        """Find on which slots a parameter depends, and for which of their choices it applies."""
        found = []
        condition = self.space.condition(name)
        while condition is not None:
            parent = self.space[condition.parameter]
            if isinstance(parent, Categorical) and condition.parameter in self.index:
                applies = np.array([choice in condition.values for choice in parent.choices])
                found.append((self.index[condition.parameter], applies))
            condition = self.space.condition(condition.parameter)
        return found

    def encode(self, point: Mapping[str, Value]) -> Floats:
        """Write a point as a vector.

        Args:
            point: Values by name; those of parameters with a single value are passed over.

        Returns:
            ``[slots]``, each in 0..1.
        """
        unit = np.full(len(self.names), UNUSED)
        for name, value in point.items():
            if name in self.index:
                unit[self.index[name]] = to_unit(self.space[name], value)
        return unit

    def decode(self, unit: Floats) -> dict[str, Value]:
        """Read a vector as a point.

        Args:
            unit: ``[slots]``; values outside 0..1 are moved to the nearer end.

        Returns:
            The valid point that it stands for.
        """

        def choose(name: str, parameter: Parameter) -> Value:
            if name in self.index:
                return parameter.check(name, from_unit(parameter, float(unit[self.index[name]])))
            only = parameter.only
            assert only is not None  # it has no slot
            return only

        return self.space.walk(choose)

    def values(self, name: str, units: Floats) -> Floats:
        """Read one numeric parameter of many vectors.

        Args:
            name: The parameter; it has a slot, or a single value.
            units: ``[vectors, slots]``.

        Returns:
            Its values, ``[vectors]``.
        """
        parameter = self.space[name]
        assert not isinstance(parameter, Categorical)
        if name not in self.index:
            return np.full(len(units), float(parameter.low))
        unit = units[:, self.index[name]].clip(0, 1)
        if parameter.log:
            low, high = math.log(parameter.low), math.log(parameter.high)
            return np.exp(low + unit * (high - low)).clip(parameter.low, parameter.high)
        values: Floats = parameter.low + unit * (parameter.high - parameter.low)
        return values

    def choices(self, name: str, units: Floats) -> NDArray[np.object_]:
        """Read one categorical parameter of many vectors.

        Args:
            name: The parameter.
            units: ``[vectors, slots]``.

        Returns:
            Its values, ``[vectors]``.
        """
        parameter = self.space[name]
        assert isinstance(parameter, Categorical)
        listed = np.array(parameter.choices, dtype=object)
        if name not in self.index:
            return np.full(len(units), listed[0], dtype=object)
        chosen: NDArray[np.object_] = listed[_choice(units[:, self.index[name]], len(listed))]
        return chosen

    def active(self, units: Floats) -> NDArray[np.bool_]:
        """Tell which slots apply.

        Args:
            units: ``[vectors, slots]``.

        Returns:
            ``[vectors, slots]``.
        """
        active = np.ones(units.shape, dtype=np.bool_)
        for slot, conditions in enumerate(self._ancestors):
            for parent, applies in conditions:
                active[:, slot] &= applies[_choice(units[:, parent], len(applies))]
        return active

    def canonicalise(self, units: Floats) -> Floats:
        """Write vectors so that equal points have equal vectors.

        Args:
            units: ``[vectors, slots]``.

        Returns:
            The same points: choices in the middle of their part of 0..1, whole numbers on their place, and
            :data:`UNUSED` where a parameter does not apply.
        """
        units = units.clip(0, 1)
        for slot, parameter in enumerate(self.parameters):
            if isinstance(parameter, Categorical):
                count = len(parameter.choices)
                units[:, slot] = (_choice(units[:, slot], count) + 0.5) / count
            elif parameter.whole:
                units[:, slot] = [to_unit(parameter, from_unit(parameter, unit)) for unit in units[:, slot]]
        return np.where(self.active(units), units, UNUSED)


def to_unit(parameter: Parameter, value: Value) -> float:
    """Place a value between 0 and 1, on the parameter's own scale.

    Args:
        parameter: The parameter.
        value: A valid value.

    Returns:
        Its place; the middle of its equal part for a choice.
    """
    if isinstance(parameter, Categorical):
        return (parameter.choices.index(value) + 0.5) / len(parameter.choices)
    low, high, given = float(parameter.low), float(parameter.high), float(value)
    if low == high:
        return UNUSED
    if parameter.log:
        low, high, given = math.log(low), math.log(high), math.log(given)
    return (given - low) / (high - low)


def from_unit(parameter: Parameter, unit: float) -> Value:
    """Read a place between 0 and 1 as a value.

    Args:
        parameter: The parameter.
        unit: The place; outside 0..1 the nearer end is meant.

    Returns:
        A valid value.
    """
    unit = min(max(unit, 0.0), 1.0)
    if isinstance(parameter, Categorical):
        count = len(parameter.choices)
        return parameter.choices[min(int(unit * count), count - 1)]
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        value = math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
    else:
        value = low + unit * (high - low)
    if parameter.whole:
        return min(max(round(value), int(low)), int(high))
    return min(max(value, low), high)


def _choice(unit: Floats, count: int) -> NDArray[np.int64]:
    return np.minimum((unit.clip(0, 1) * count).astype(np.int64), count - 1)
