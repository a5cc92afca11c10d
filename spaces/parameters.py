"""The kinds of parameter: a range, of real or whole numbers on a linear or logarithmic scale, and a list of choices.

A parameter knows nothing of other parameters; :class:`spaces.space.Space` puts them in order and says which
apply when. Constructors raise ``ValueError`` (a programmer's mistake); ``check`` and ``narrowed`` are given a
user's words and raise :class:`spaces.errors.InputError`.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from random import Random
from typing import Any, ClassVar, Literal

from spaces.errors import InputError, explain_unknown_name

Value = bool | int | float | str
"""What a parameter can be set to."""

Scale = Literal["linear", "log"]
"""How the values of a range are laid out where they are searched."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from one to another; :func:`Real`, :func:`LogReal` and :func:`Integer` make them.

    Attributes:
        low: Smallest value, inclusive; on a logarithmic scale ``> 0``.
        high: Largest value, inclusive; equal to ``low`` for a fixed value.
        scale: On which scale values are searched.
        whole: Whether the numbers are whole; all values are then of type int, else of type float.
        default: The authors' value, or None where there is none.
    """

    low: float
    high: float
    scale: Scale = "linear"
    whole: bool = False
    default: float | None = None

    def __post_init__(self) -> None:
        given = (self.low, self.high) if self.default is None else (self.low, self.high, self.default)
        if self.whole and any(isinstance(value, bool) or not isinstance(value, int) for value in given):
            raise ValueError(f"a range of integers needs integers, not {given!r}")
        for field, value in () if self.whole else zip(("low", "high", "default"), given, strict=False):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"{field} of a range must be a finite number, not {value!r}")
            object.__setattr__(self, field, float(value))  # so that equal ranges print alike
        if self.low > self.high:
            raise ValueError(f"low = {self.low!r} is above high = {self.high!r}")
        if self.default is not None and not self.low <= self.default <= self.high:
            raise ValueError(f"default {self.default!r} is outside {self.low!r} to {self.high!r}")
        if self.log and self.low < 1 and self.whole:
            raise ValueError(f"a logarithmic range of integers must start at 1 or above, not at {self.low}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range must start above 0, not at {self.low!r}")

    @property
    def log(self) -> bool:
        """Whether the scale is logarithmic."""
        return self.scale == "log"

    @property
    def kind(self) -> str:
        """What the range is called in JSON: ``"integer"``, ``"real"`` or ``"log-real"``."""
        return "integer" if self.whole else "log-real" if self.log else "real"

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        noun = "a whole number" if self.whole else "a number"
        return repr(self.low) if self.low == self.high else f"{noun} from {self.low!r} to {self.high!r}"

    @property
    def only(self) -> float | None:
        """The one value that is left, or None while there is a choice."""
        return self.low if self.low == self.high else None

    def check(self, name: str, value: object) -> float:
        """Return the value in its type after checking it.

        Args:
            name: Name of the parameter, for the message.
            value: What the user gave; truth values are no numbers, and ``3.0`` is no whole one.

        Returns:
            The value, an int of a range of whole numbers, else a float. Anything else than a finite number in the
            range is an ``InputError``.
        """
        return self._read(f"parameter {name!r}", value)

    def _read(self, label: str, value: object) -> float:
        if isinstance(value, numbers.Integral if self.whole else numbers.Real) and not isinstance(value, bool):
            # An int may be too long for a float: it is compared as it is.
            number = int(value) if isinstance(value, numbers.Integral) else float(value)
            if self.low <= number <= self.high:
                return number if self.whole else float(number)
        raise InputError(f"{label} = {value!r} is not allowed; give {self.allowed}")

    def sample(self, rng: Random) -> float:
        """Draw a value, uniformly on the range's scale.

        Args:
            rng: Source of randomness.

        Returns:
            A value of the range.
        """
        if not self.log:
            return rng.randint(int(self.low), int(self.high)) if self.whole else _draw_between(self.low, self.high, rng)
        # Of whole numbers half a unit beyond both ends, so that the ends are as likely as their share of the scale.
        beyond = 0.5 if self.whole else 0.0
        value = math.exp(_draw_between(math.log(self.low - beyond), math.log(self.high + beyond), rng))
        # exp(log(x)) may miss x by a rounding error
        return min(max(round(value) if self.whole else value, self.low), self.high)

    def narrow(self, name: str, bounds: Mapping[str, object]) -> Range:
        """Return the parameter with a smaller range.

        Args:
            name: Name of the parameter, for the message.
            bounds: ``low`` and ``high`` (either or both), or ``value`` alone to fix it.

        Returns:
            The narrower parameter; its default is kept if it is still inside.

        Raises:
            InputError: If the bounds do not fit the range.
        """
        _check_keys(name, bounds, ("low", "high", "value"))
        if "value" in bounds:
            low = high = self.check(name, bounds["value"])
        else:
            low = self._read(f"low of parameter {name!r}", bounds.get("low", self.low))
            high = self._read(f"high of parameter {name!r}", bounds.get("high", self.high))
        if low > high:
            raise InputError(f"parameter {name!r}: low = {low!r} is above high = {high!r}")
        kept = self.default is not None and low <= self.default <= high
        return replace(self, low=low, high=high, default=self.default if kept else None)

    def to_json(self) -> dict[str, Any]:
        """Describe the parameter with JSON types.

        Returns:
            ``kind``, ``low``, ``high``, ``log``, ``choices`` (None) and ``default``.
        """
        return {
            "kind": self.kind,
            "low": self.low,
            "high": self.high,
            "log": self.log,
            "choices": None,
            "default": self.default,
        }


def Real(low: float, high: float, default: float | None = None) -> Range:
    """Make a range of real numbers, searched on a linear scale.

    Args:
        low: Smallest value, inclusive.
        high: Largest value, inclusive.
        default: The authors' value, or None where there is none.

    Returns:
        The range.

    Example:
        >>> Real(0.0, 1.0, default=0.9).check("momentum", 1)
        1.0
    """
    return Range(low, high, default=default)


def LogReal(low: float, high: float, default: float | None = None) -> Range:
    """Make a range of positive real numbers, searched on a logarithmic scale.

    Args:
        low: Smallest value, inclusive, ``> 0``.
        high: Largest value, inclusive.
        default: The authors' value, or None where there is none.

    Returns:
        The range.

    Example:
        >>> LogReal(1e-4, 1e-1).narrow("lr", {"high": 0.01}).allowed
        'a number from 0.0001 to 0.01'
    """
    return Range(low, high, "log", default=default)


def Integer(low: int, high: int, log: bool = False, default: int | None = None) -> Range:
    """Make a range of whole numbers.

    Args:
        low: Smallest value, inclusive; ``>= 1`` on a logarithmic scale.
        high: Largest value, inclusive.
        log: Whether they are searched on a logarithmic scale.
        default: The authors' value, or None where there is none.

    Returns:
        The range.

    Example:
        >>> Integer(1, 8).check("depth", 3)
        3
    """
    return Range(low, high, "log" if log else "linear", whole=True, default=default)


def _draw_between(low: float, high: float, rng: Random) -> float:
    """Return a uniform draw; this form cannot overflow, and rounding cannot leave the range."""
    share = rng.random()
    return min(max(low * (1 - share) + high * share, low), high)


def _check_keys(name: str, bounds: Mapping[str, object], known: tuple[str, ...]) -> None:
    """Refuse bounds with no key, an unknown key, or ``value`` next to another key."""
    if not bounds:
        raise InputError(f"bounds of parameter {name!r} are empty; give {' or '.join(known)}")
    for key in bounds:
        if key not in known:
            raise InputError(explain_unknown_name(f"bound of parameter {name!r}:", str(key), known))
    if "value" in bounds and len(bounds) > 1:
        others = ", ".join(sorted(set(bounds) - {"value"}))
        raise InputError(f"parameter {name!r}: give either value or {others}, not both")


@dataclass(frozen=True, slots=True)
class Categorical:
    """One of a few values without order.

    Attributes:
        choices: The values, at least one, no two equal (``1`` and ``True`` are equal in Python).
        default: The authors' value, or None where there is none.

    Example:
        >>> Categorical(("l1", "l2"), default="l1").check("norm", "l2")
        'l2'
    """

    choices: tuple[Value, ...]
    default: Value | None = None
    kind: ClassVar[str] = "categorical"

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(self.choices))
        if not self.choices:
            raise ValueError("a categorical parameter needs at least one choice")
        for choice in self.choices:
            if not isinstance(choice, Value) or (isinstance(choice, float) and not math.isfinite(choice)):
                raise ValueError(f"a choice must be a text, a finite number or a truth value, not {choice!r}")
        for index, choice in enumerate(self.choices):
            if choice in self.choices[:index]:
                raise ValueError(f"choice {choice!r} equals another one")
        if self.default is not None and not any(_is_same_choice(self.default, choice) for choice in self.choices):
            raise ValueError(f"default {self.default!r} is not among the choices {self.choices!r}")

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if len(self.choices) == 1:
            return repr(self.choices[0])
        return "one of " + ", ".join(map(repr, self.choices))

    @property
    def only(self) -> Value | None:
        """The one value that is left, or None while there is a choice."""
        return self.choices[0] if len(self.choices) == 1 else None

    def check(self, name: str, value: object) -> Value:
        """Return the choice that equals the value.

        Args:
            name: Name of the parameter, for the message.
            value: What the user gave; truth values and numbers are never mixed up.

        Returns:
            The choice.

        Raises:
            InputError: If no choice equals the value; names the nearest one.
        """
        for choice in self.choices:
            if _is_same_choice(value, choice):
                return choice
        near = _find_nearest(value, self.choices)
        hint = "" if near is None else f"; did you mean {near!r}?"
        raise InputError(f"parameter {name!r} = {value!r} is not allowed{hint} (give {self.allowed})")

    def sample(self, rng: Random) -> Value:
        """Draw a choice, uniformly.

        Args:
            rng: Source of randomness.

        Returns:
            One of the choices.
        """
        return rng.choice(self.choices)

    def narrow(self, name: str, bounds: Mapping[str, object]) -> Categorical:
        """Return the parameter with fewer choices.

        Args:
            name: Name of the parameter, for the message.
            bounds: ``choices``, a list, or ``value`` alone to fix it.

        Returns:
            The narrower parameter, its choices in the order they had; its default is kept if it is still one.

        Raises:
            InputError: If the bounds do not fit.
        """
        _check_keys(name, bounds, ("choices", "value"))
        given = [bounds["value"]] if "value" in bounds else bounds["choices"]
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise InputError(f"choices of parameter {name!r} must be a list, not {given!r}; give {self.allowed}")
        wanted = [self.check(name, value) for value in given]
        if not wanted:
            raise InputError(f"choices of parameter {name!r} are empty; give {self.allowed}")
        choices = tuple(choice for choice in self.choices if choice in wanted)
        return replace(self, choices=choices, default=self.default if self.default in choices else None)

    def to_json(self) -> dict[str, Any]:
        """Describe the parameter with JSON types.

        Returns:
            ``kind``, ``low`` and ``high`` (None), ``log`` (False), ``choices`` and ``default``.
        """
        return {
            "kind": self.kind,
            "low": None,
            "high": None,
            "log": False,
            "choices": list(self.choices),
            "default": self.default,
        }


Parameter = Range | Categorical
"""Any kind of parameter."""


def fix_parameter(parameter: Parameter, name: str, value: object) -> Parameter:
    """Return a parameter that has one value left, which may lie outside what is searched.

    Args:
        parameter: The parameter.
        name: Its name, for the message.
        value: The value; of the parameter's type.

    Returns:
        A parameter with that one value, which is its default as well.

    Raises:
        InputError: If the value is of another type: no finite number for a range, no whole number for a range of
            whole numbers.

    Example:
        >>> fix_parameter(LogReal(0.1, 1.0), "factor", 0.05).only
        0.05
    """
    given: Any = value
    try:
        if isinstance(parameter, Categorical):
            return Categorical((given,), default=given)
        return Range(given, given, whole=parameter.whole, default=given)
    except ValueError as error:
        raise InputError(f"parameter {name!r} = {value!r} is not allowed; give {parameter.allowed}") from error


def parameter_from_json(data: Mapping[str, Any]) -> Parameter:
    """Build a parameter from what ``to_json`` gave.

    Args:
        data: The description; further keys (name, condition) are left to the caller.

    Returns:
        A parameter equal to the one described.

    Raises:
        InputError: If the description is not one of a parameter.

    Example:
        >>> parameter_from_json(Integer(1, 64, log=True).to_json())
        Range(low=1, high=64, scale='log', whole=True, default=None)
    """
    try:
        kind, default = data["kind"], data["default"]
        if kind in _RANGES:
            scale: Scale = "log" if kind == "log-real" or (kind == "integer" and data["log"]) else "linear"
            return Range(data["low"], data["high"], scale, kind == "integer", default)
        if kind == Categorical.kind:
            return Categorical(tuple(data["choices"]), default)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{dict(data)!r} does not describe a parameter: {error}") from error
    raise InputError(explain_unknown_name("kind of parameter", str(kind), (*_RANGES, Categorical.kind)))


_RANGES = ("real", "log-real", "integer")


def _is_same_choice(value: object, choice: Value) -> bool:
    """Return whether a value is meant to be this choice; ``1 == True`` is not enough."""
    if isinstance(value, str) or isinstance(choice, str):
        return isinstance(value, str) and value == choice
    if not isinstance(value, numbers.Real) or isinstance(value, bool) != isinstance(choice, bool):
        return False
    return bool(value == choice)


def _find_nearest(value: object, choices: tuple[Value, ...]) -> Value | None:
    """Return the choice that looks most like the value, or None."""
    if isinstance(value, str):
        by_text = {str(choice): choice for choice in choices}
        near = get_close_matches(value, by_text, n=1, cutoff=0.5)
        return by_text[near[0]] if near else None
    numeric = [choice for choice in choices if not isinstance(choice, (str, bool))]
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not numeric:
        return None
    given = value if isinstance(value, int) else float(value)
    if not -1e300 < given < 1e300:  # nothing is near to nan, to infinity or to an int too long for a float
        return None
    return min(numeric, key=lambda choice: abs(choice - given))
