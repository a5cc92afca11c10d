"""Parameters that are ranges: real numbers on a linear or logarithmic scale, and whole numbers."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, ClassVar, TypeVar

from spaces.errors import InputError, unknown_name

_N = TypeVar("_N", int, float)


@dataclass(frozen=True, slots=True)
class Real:
    """A real number, searched on a linear scale.

    Attributes:
        low: Smallest value, inclusive.
        high: Largest value, inclusive; equal to ``low`` for a fixed value.
        default: The authors' value, or None where there is none.

    Example:
        >>> Real(0.0, 1.0, default=0.9).check("momentum", 1)
        1.0
    """

    low: float
    high: float
    default: float | None = None
    kind: ClassVar[str] = "real"

    def __post_init__(self) -> None:
        _store_reals(self)

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        return _numbers("a number", self.low, self.high)

    @property
    def only(self) -> float | None:
        """The one value that is left, or None while there is a choice."""
        return self.low if self.low == self.high else None

    def check(self, name: str, value: object) -> float:
        """Return the value as a float after checking it.

        Args:
            name: Name of the parameter, for the message.
            value: What the user gave; whole numbers are accepted, truth values are not.

        Returns:
            The value. Anything that is not a finite number in the range is an ``InputError``.
        """
        return _real(f"parameter {name!r}", value, self.low, self.high)

    def sample(self, rng: Random) -> float:
        """Draw a value, uniformly.

        Args:
            rng: Source of randomness.

        Returns:
            A value of the range.
        """
        return _between(self.low, self.high, rng)

    def narrowed(self, name: str, bounds: Mapping[str, object]) -> Real:
        """Return the parameter with a smaller range.

        Args:
            name: Name of the parameter, for the message.
            bounds: ``low`` and ``high`` (either or both), or ``value`` alone to fix it.

        Returns:
            The narrower parameter; its default is kept if it is still inside. Bounds that do not fit are an
            ``InputError``.
        """
        low, high = _interval(name, bounds, self.low, self.high, _real)
        return replace(self, low=low, high=high, default=_inside(self.default, low, high))

    def to_json(self) -> dict[str, Any]:
        """Describe the parameter with JSON types.

        Returns:
            ``kind``, ``low``, ``high``, ``log``, ``choices`` (None) and ``default``.
        """
        return _range_json(self, log=False)


@dataclass(frozen=True, slots=True)
class LogReal:
    """A positive real number, searched on a logarithmic scale.

    Attributes:
        low: Smallest value, inclusive, ``> 0``.
        high: Largest value, inclusive; equal to ``low`` for a fixed value.
        default: The authors' value, or None where there is none.

    Example:
        >>> LogReal(1e-4, 1e-1).narrowed("lr", {"high": 0.01})
        LogReal(low=0.0001, high=0.01, default=None)
    """

    low: float
    high: float
    default: float | None = None
    kind: ClassVar[str] = "log-real"

    def __post_init__(self) -> None:
        _store_reals(self)
        if self.low <= 0:
            raise ValueError(f"a logarithmic range must start above 0, not at {self.low!r}")

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        return _numbers("a number", self.low, self.high)

    @property
    def only(self) -> float | None:
        """The one value that is left, or None while there is a choice."""
        return self.low if self.low == self.high else None

    def check(self, name: str, value: object) -> float:
        """Return the value as a float after checking it.

        Args:
            name: Name of the parameter, for the message.
            value: What the user gave; whole numbers are accepted, truth values are not.

        Returns:
            The value. Anything that is not a finite number in the range is an ``InputError``.
        """
        return _real(f"parameter {name!r}", value, self.low, self.high)

    def sample(self, rng: Random) -> float:
        """Draw a value, uniformly in its logarithm.

        Args:
            rng: Source of randomness.

        Returns:
            A value of the range.
        """
        value = math.exp(_between(math.log(self.low), math.log(self.high), rng))
        return min(max(value, self.low), self.high)  # exp(log(x)) may miss x by a rounding error

    def narrowed(self, name: str, bounds: Mapping[str, object]) -> LogReal:
        """Return the parameter with a smaller range.

        Args:
            name: Name of the parameter, for the message.
            bounds: ``low`` and ``high`` (either or both), or ``value`` alone to fix it.

        Returns:
            The narrower parameter; its default is kept if it is still inside. Bounds that do not fit are an
            ``InputError``.
        """
        low, high = _interval(name, bounds, self.low, self.high, _real)
        return replace(self, low=low, high=high, default=_inside(self.default, low, high))

    def to_json(self) -> dict[str, Any]:
        """Describe the parameter with JSON types.

        Returns:
            ``kind``, ``low``, ``high``, ``log``, ``choices`` (None) and ``default``.
        """
        return _range_json(self, log=True)


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number, searched on a linear or logarithmic scale.

    Attributes:
        low: Smallest value, inclusive; ``>= 1`` on a logarithmic scale.
        high: Largest value, inclusive; equal to ``low`` for a fixed value.
        log: Whether the scale is logarithmic.
        default: The authors' value, or None where there is none.

    Example:
        >>> Integer(1, 8).check("depth", 3)
        3
    """

    low: int
    high: int
    log: bool = False
    default: int | None = None
    kind: ClassVar[str] = "integer"

    def __post_init__(self) -> None:
        given = (self.low, self.high) if self.default is None else (self.low, self.high, self.default)
        if any(isinstance(bound, bool) or not isinstance(bound, int) for bound in given):
            raise ValueError(f"a range of integers needs integers, not {given!r}")
        _refuse_disorder(self.low, self.high, self.default)
        if self.log and self.low < 1:
            raise ValueError(f"a logarithmic range of integers must start at 1 or above, not at {self.low}")

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        return _numbers("a whole number", self.low, self.high)

    @property
    def only(self) -> int | None:
        """The one value that is left, or None while there is a choice."""
        return self.low if self.low == self.high else None

    def check(self, name: str, value: object) -> int:
        """Return the value as an int after checking it.

        Args:
            name: Name of the parameter, for the message.
            value: What the user gave; neither truth values nor ``3.0`` count as whole numbers.

        Returns:
            The value. Anything that is not a whole number in the range is an ``InputError``.
        """
        return _whole(f"parameter {name!r}", value, self.low, self.high)

    def sample(self, rng: Random) -> int:
        """Draw a value, uniformly on the parameter's scale.

        Args:
            rng: Source of randomness.

        Returns:
            A value of the range.
        """
        if not self.log:
            return rng.randint(self.low, self.high)
        # Half a unit beyond both ends, so that the ends are as likely as their share of the scale.
        real = math.exp(_between(math.log(self.low - 0.5), math.log(self.high + 0.5), rng))
        return min(max(round(real), self.low), self.high)

    def narrowed(self, name: str, bounds: Mapping[str, object]) -> Integer:
        """Return the parameter with a smaller range.

        Args:
            name: Name of the parameter, for the message.
            bounds: ``low`` and ``high`` (either or both), or ``value`` alone to fix it.

        Returns:
            The narrower parameter; its default is kept if it is still inside. Bounds that do not fit are an
            ``InputError``.
        """
        low, high = _interval(name, bounds, self.low, self.high, _whole)
        return replace(self, low=low, high=high, default=_inside(self.default, low, high))

    def to_json(self) -> dict[str, Any]:
        """Describe the parameter with JSON types.

        Returns:
            ``kind``, ``low``, ``high``, ``log``, ``choices`` (None) and ``default``.
        """
        return _range_json(self, log=self.log)


def check_keys(name: str, bounds: Mapping[str, object], known: tuple[str, ...]) -> None:
    """Refuse bounds with no key, an unknown key, or ``value`` next to another key.

    Args:
        name: Name of the parameter, for the message.
        bounds: What the user gave.
        known: The keys that fit the kind of parameter.

    Raises:
        InputError: If the keys do not fit.
    """
    if not bounds:
        raise InputError(f"bounds of parameter {name!r} are empty; give {' or '.join(known)}")
    for key in bounds:
        if key not in known:
            raise InputError(unknown_name(f"bound of parameter {name!r}:", str(key), known))
    if "value" in bounds and len(bounds) > 1:
        others = ", ".join(sorted(set(bounds) - {"value"}))
        raise InputError(f"parameter {name!r}: give either value or {others}, not both")


def _store_reals(parameter: Real | LogReal) -> None:
    """Check a range of real numbers and store it as floats, so that equal ranges print alike.

    Args:
        parameter: The range under construction.

    Raises:
        ValueError: If a bound or the default is not a finite number, or they are out of order.
    """
    for field in ("low", "high", "default"):
        value = getattr(parameter, field)
        if field == "default" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{field} of a range must be a finite number, not {value!r}")
        object.__setattr__(parameter, field, float(value))
    _refuse_disorder(parameter.low, parameter.high, parameter.default)


def _refuse_disorder(low: float, high: float, default: float | None) -> None:
    """Refuse a range that is empty or does not hold its default.

    Args:
        low: Smallest value.
        high: Largest value.
        default: The default, or None.

    Raises:
        ValueError: If the range is empty or the default lies outside.
    """
    if low > high:
        raise ValueError(f"low = {low!r} is above high = {high!r}")
    if default is not None and not low <= default <= high:
        raise ValueError(f"default {default!r} is outside {low!r} to {high!r}")


def _real(label: str, value: object, low: float, high: float) -> float:
    """Return a finite number within a range as a float.

    Args:
        label: What the value is for.
        value: What was given.
        low: Smallest allowed value.
        high: Largest allowed value.

    Returns:
        The number.

    Raises:
        InputError: If it is not a finite number of the range.
    """
    if not isinstance(value, bool) and isinstance(value, numbers.Real):
        number = value if isinstance(value, int) else float(value)  # an int may be too long for a float
        if low <= number <= high:
            return float(number)
    raise InputError(f"{label} = {value!r} is not allowed; give {_numbers('a number', low, high)}")


def _whole(label: str, value: object, low: int, high: int) -> int:
    """Return a whole number within a range as an int.

    Args:
        label: What the value is for.
        value: What was given.
        low: Smallest allowed value.
        high: Largest allowed value.

    Returns:
        The number.

    Raises:
        InputError: If it is not a whole number of the range.
    """
    if not isinstance(value, bool) and isinstance(value, numbers.Integral) and low <= int(value) <= high:
        return int(value)
    raise InputError(f"{label} = {value!r} is not allowed; give {_numbers('a whole number', low, high)}")


def _numbers(noun: str, low: float, high: float) -> str:
    """Return a range in words."""
    return repr(low) if low == high else f"{noun} from {low!r} to {high!r}"


def _between(low: float, high: float, rng: Random) -> float:
    """Return a uniform draw; this form cannot overflow, and rounding cannot leave the range."""
    share = rng.random()
    return min(max(low * (1 - share) + high * share, low), high)


def _interval(
    name: str,
    bounds: Mapping[str, object],
    low: _N,
    high: _N,
    read: Callable[[str, object, _N, _N], _N],
) -> tuple[_N, _N]:
    """Read new bounds of a range.

    Args:
        name: Name of the parameter, for the message.
        bounds: What the user gave.
        low: Present smallest value.
        high: Present largest value.
        read: Checks one number: label, value, smallest and largest allowed.

    Returns:
        The new smallest and largest value.

    Raises:
        InputError: If the bounds do not fit the range.
    """
    check_keys(name, bounds, ("low", "high", "value"))
    if "value" in bounds:
        value = read(f"parameter {name!r}", bounds["value"], low, high)
        return value, value
    new_low = read(f"low of parameter {name!r}", bounds.get("low", low), low, high)
    new_high = read(f"high of parameter {name!r}", bounds.get("high", high), low, high)
    if new_low > new_high:
        raise InputError(f"parameter {name!r}: low = {new_low!r} is above high = {new_high!r}")
    return new_low, new_high


def _inside(default: _N | None, low: _N, high: _N) -> _N | None:
    """Return the default if it is still within the range."""
    return default if default is not None and low <= default <= high else None


def _range_json(parameter: Real | LogReal | Integer, log: bool) -> dict[str, Any]:
    """Return the JSON of a range."""
    return {
        "kind": parameter.kind,
        "low": parameter.low,
        "high": parameter.high,
        "log": log,
        "choices": None,
        "default": parameter.default,
    }
