"""The four kinds of parameter: three ranges (``spaces.ranges``), and a list of choices.

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
from typing import Any, ClassVar

from spaces.errors import InputError, unknown_name
from spaces.ranges import Integer, LogReal, Real, check_keys

__all__ = ["Categorical", "Integer", "LogReal", "Parameter", "Real", "Value", "fixed", "parameter_from_json"]

Value = bool | int | float | str
"""What a parameter can be set to."""


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
        if self.default is not None and not any(_same(self.default, choice) for choice in self.choices):
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
            if _same(value, choice):
                return choice
        near = _nearest(value, self.choices)
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

    def narrowed(self, name: str, bounds: Mapping[str, object]) -> Categorical:
        """Return the parameter with fewer choices.

        Args:
            name: Name of the parameter, for the message.
            bounds: ``choices``, a list, or ``value`` alone to fix it.

        Returns:
            The narrower parameter, its choices in the order they had; its default is kept if it is still one.

        Raises:
            InputError: If the bounds do not fit.
        """
        check_keys(name, bounds, ("choices", "value"))
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


Parameter = Real | LogReal | Integer | Categorical
"""Any kind of parameter."""


def fixed(parameter: Parameter, name: str, value: object) -> Parameter:
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
        >>> fixed(LogReal(0.1, 1.0), "factor", 0.05).only
        0.05
    """
    given: Any = value
    try:
        match parameter:
            case Integer():
                return Integer(given, given, default=given)
            case Categorical():
                return Categorical((given,), default=given)
            case _:
                return Real(given, given, default=given)
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
        Integer(low=1, high=64, log=True, default=None)
    """
    try:
        kind, default = data["kind"], data["default"]
        if kind == Real.kind:
            return Real(data["low"], data["high"], default)
        if kind == LogReal.kind:
            return LogReal(data["low"], data["high"], default)
        if kind == Integer.kind:
            return Integer(data["low"], data["high"], data["log"], default)
        if kind == Categorical.kind:
            return Categorical(tuple(data["choices"]), default)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{dict(data)!r} does not describe a parameter: {error}") from error
    kinds = [each.kind for each in (Real, LogReal, Integer, Categorical)]
    raise InputError(unknown_name("kind of parameter", str(kind), kinds))


def _same(value: object, choice: Value) -> bool:
    """Return whether a value is meant to be this choice; ``1 == True`` is not enough."""
    if isinstance(value, str) or isinstance(choice, str):
        return isinstance(value, str) and value == choice
    if not isinstance(value, numbers.Real) or isinstance(value, bool) != isinstance(choice, bool):
        return False
    return bool(value == choice)


def _nearest(value: object, choices: tuple[Value, ...]) -> Value | None:
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
