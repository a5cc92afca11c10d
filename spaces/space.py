"""A search space: named parameters in order, some of which apply only under a condition.

Every use of a space is one walk (:meth:`Space.walk`): the parameters are visited in order, and those that do
not apply, given what was chosen before, are left out. Sampling, checking a point and a library's own way of
asking for values (``spaces.dialects``) are such walks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from random import Random
from typing import Any

from spaces.errors import InputError, explain_unknown_name
from spaces.parameters import Categorical, Parameter, Value, fix_parameter, parameter_from_json

Point = Mapping[str, Value]
"""Values by name of parameter: one for each parameter that applies."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A parameter applies only when a parent does and has one of these values.

    Attributes:
        parameter: Name of the parent, a categorical parameter that comes earlier in the space.
        values: The choices of the parent under which the child applies.
    """

    parameter: str
    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))

    def __str__(self) -> str:
        return f"{self.parameter} = {' or '.join(map(repr, self.values))}"


class Space(Mapping[str, Parameter]):
    """Named parameters in order, a parent before its children. Immutable.

    Args:
        parameters: The parameters by name.
        conditions: When a parameter applies, by its name; one that is not listed always applies.

    Raises:
        ValueError: If a condition names no earlier categorical parameter, or values it does not have.

    Example:
        >>> from spaces import Categorical, Integer
        >>> space = Space(
        ...     {"schedule": Categorical(("step", "cosine")), "steps": Integer(1, 3)},
        ...     conditions={"steps": Condition("schedule", ("step",))},
        ... )
        >>> space.check({"steps": 2, "schedule": "step"})
        {'schedule': 'step', 'steps': 2}
        >>> space.check({"schedule": "cosine"})
        {'schedule': 'cosine'}
    """

    __slots__ = ("_conditions", "_parameters")

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        conditions: Mapping[str, Condition] | None = None,
    ) -> None:
        self._parameters = dict(parameters)
        given = dict(conditions or {})
        for name in given:
            if name not in self._parameters:
                raise ValueError(f"condition of {name!r}, which is no parameter of the space")
        self._conditions: dict[str, Condition] = {}
        seen: dict[str, Parameter] = {}
        for name, parameter in self._parameters.items():
            if name in given:
                self._conditions[name] = _check_condition(name, given[name], seen)
            seen[name] = parameter

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all parameters, in order."""
        return tuple(self._parameters)

    def __getitem__(self, name: str) -> Parameter:
        return self._parameters[name]

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Space):
            return NotImplemented
        return self._entries() == other._entries()

    def __hash__(self) -> int:
        return hash(self._entries())

    def __repr__(self) -> str:
        return f"Space({self._parameters!r}, conditions={self._conditions!r})"

    def __or__(self, other: Space) -> Space:
        """Return the parameters of both spaces, this one's first; a name in both is a ``ValueError``."""
        if not isinstance(other, Space):
            return NotImplemented
        parameters = dict(self._parameters)
        _add(parameters, other._parameters)
        return Space(parameters, self._conditions | other._conditions)

    def condition(self, name: str) -> Condition | None:
        """Return when a parameter applies.

        Args:
            name: Name of the parameter.

        Returns:
            Its own condition (that of its parent comes on top), or None if it has none.
        """
        return self._conditions.get(name)

    def walk(self, choose: Callable[[str, Parameter], Value]) -> dict[str, Value]:
        """Visit the parameters that apply, in order, given the values chosen so far.

        Args:
            choose: Gives the value of a parameter; called once for each that applies.

        Returns:
            The chosen values by name, in order.
        """
        point: dict[str, Value] = {}
        for name, parameter in self._walk_active(point):
            point[name] = choose(name, parameter)
        return point

    def sample(self, seed: int | Random) -> dict[str, Value]:
        """Draw a point, each parameter uniformly on its own scale.

        Args:
            seed: A seed, or a source of randomness to go on with.

        Returns:
            The point; the same for the same seed.
        """
        rng = seed if isinstance(seed, Random) else Random(seed)
        return self.walk(lambda name, parameter: parameter.sample(rng))

    def check(self, point: Mapping[str, object]) -> dict[str, Value]:
        """Check a point, and bring it into order and its values into their types.

        Args:
            point: Values by name, in any order.

        Returns:
            The point, in the order of the space.

        Raises:
            InputError: If a name is unknown, a parameter that applies is missing, one that does not apply is
                given, or a value is not allowed.
        """
        for name in point:
            if name not in self._parameters:
                raise InputError(explain_unknown_name("parameter", name, self._parameters))

        def choose(name: str, parameter: Parameter) -> Value:
            if name not in point:
                raise InputError(f"parameter {name!r} is missing; give {parameter.allowed}")
            return parameter.check(name, point[name])

        checked = self.walk(choose)
        for name in point:
            if name not in checked:
                raise InputError(f"parameter {name!r} does not apply: {self._obstacle(name, checked)}")
        return checked

    def narrow(
        self, bounds: Mapping[str, Mapping[str, object] | Value], beyond: Collection[str] = frozenset()
    ) -> Space:
        """Return a smaller space.

        Children that can no longer apply are left out.

        Args:
            bounds: By name of parameter: ``low`` and ``high``, ``choices``, or a bare value to fix it.
            beyond: Names of parameters that may be fixed at values which are not searched.

        Returns:
            The smaller space.

        Raises:
            InputError: If a name is unknown, bounds do not fit the parameter, or the bounds of its parents
                leave a named parameter without use.

        Example:
            >>> from spaces import Categorical, Real
            >>> Space({"lr": Real(0, 1), "nesterov": Categorical((True, False))}).narrow(
            ...     {"lr": {"high": 0.5}, "nesterov": True}
            ... )["lr"]
            Range(low=0.0, high=0.5, scale='linear', whole=False, default=None)
        """
        for name in bounds:
            if name not in self._parameters:
                raise InputError(explain_unknown_name("parameter", name, self._parameters))
        parameters: dict[str, Parameter] = {}
        conditions: dict[str, Condition] = {}
        for name, parameter in self._parameters.items():
            condition = self._conditions.get(name)
            if condition is not None:
                left = _values_left(condition, parameters)
                if not left and name in bounds:
                    raise InputError(
                        f"parameter {name!r} cannot be narrowed: it applies only when {condition}, which the "
                        "other bounds leave out"
                    )
                if not left:
                    continue
                conditions[name] = Condition(condition.parameter, left)
            bound = bounds.get(name)
            parameters[name] = parameter if bound is None else _narrow_parameter(name, parameter, bound, name in beyond)
        return Space(parameters, conditions)

    def add_prefix(self, prefix: str) -> Space:
        """Return the space with ``PREFIX.`` in front of every name.

        Args:
            prefix: What to put in front, without the dot.

        Returns:
            The renamed space.
        """
        return Space(
            {f"{prefix}.{name}": parameter for name, parameter in self._parameters.items()},
            {
                f"{prefix}.{name}": Condition(f"{prefix}.{condition.parameter}", condition.values)
                for name, condition in self._conditions.items()
            },
        )

    @staticmethod
    def choose(name: str, spaces: Mapping[str, Space], default: str | None = None) -> Space:
        """Return the space of choosing one of several spaces and a point in it.

        Args:
            name: Name of the categorical parameter that says which.
            spaces: The spaces by key; names become ``KEY.NAME``.
            default: The key to prefer, if any.

        Returns:
            The joint space; :meth:`split` takes its points apart.

        Example:
            >>> from spaces import Real
            >>> both = Space.choose("method", {"a": Space({"x": Real(0, 1)}), "b": Space({})})
            >>> both.names, str(both.condition("a.x"))
            (('method', 'a.x'), "method = 'a'")
        """
        parameters: dict[str, Parameter] = {name: Categorical(tuple(spaces), default)}
        conditions: dict[str, Condition] = {}
        for key, space in spaces.items():
            part = space.add_prefix(key)
            _add(parameters, part._parameters)
            # A parameter that has a parent follows it; the others follow the choice.
            conditions |= {each: part._conditions.get(each, Condition(name, (key,))) for each in part}
        return Space(parameters, conditions)

    def split(self, point: Mapping[str, Value], name: str) -> tuple[str, dict[str, Value]]:
        """Take a point of :meth:`choose` apart.

        Args:
            point: A point of this space.
            name: Name of the parameter that says which space was chosen.

        Returns:
            The chosen key, and the point of that key's space.

        Raises:
            InputError: If the point does not say which.
        """
        if name not in point:
            raise InputError(f"parameter {name!r} is missing; give {self[name].allowed}")
        key = str(self[name].check(name, point[name]))
        start = f"{key}."
        return key, {
            each.removeprefix(start): value for each, value in point.items() if each.startswith(start) and each != name
        }

    def defaults(self) -> dict[str, Value] | None:
        """Return the point of the authors' values.

        Returns:
            The default of every parameter that applies (a parameter with one value left has that one), or
            None if one of them has none.
        """
        point: dict[str, Value] = {}
        for name, parameter in self._walk_active(point):
            value = parameter.only if parameter.default is None else parameter.default
            if value is None:
                return None
            point[name] = value
        return point

    def _repr_html_(self) -> str:
        """Show the space in a notebook: name and condition, values, default."""
        rows = []
        for entry in self.to_json():
            condition, default = entry["condition"], entry["default"]
            name = escape(entry["name"])
            if condition:
                values = " | ".join(map(str, condition["values"]))
                name += f"<br><small>if {escape(condition['parameter'])} = {escape(values)}</small>"
            if entry["choices"] is not None:
                values = " | ".join(map(str, entry["choices"]))
            else:
                values = f"{entry['low']:g} … {entry['high']:g}{', logarithmic' if entry['log'] else ''}"
            cells = (name, escape(values), escape("" if default is None else str(default)))
            rows.append("".join(f'<td style="text-align:left">{cell}</td>' for cell in cells))
        head = "".join(f'<th style="text-align:left">{title}</th>' for title in ("parameter", "values", "default"))
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"

    def to_json(self) -> list[dict[str, Any]]:
        """Describe the space with JSON types.

        Returns:
            One mapping per parameter, in order: ``name``, ``kind``, ``low``, ``high``, ``log``, ``choices``,
            ``default`` and ``condition`` (``parameter`` and ``values``, or None).
        """
        listed = []
        for name, parameter in self._parameters.items():
            condition = self._conditions.get(name)
            described = condition and {"parameter": condition.parameter, "values": list(condition.values)}
            listed.append({"name": name, **parameter.to_json(), "condition": described})
        return listed

    @staticmethod
    def from_json(data: Sequence[Mapping[str, Any]]) -> Space:
        """Build a space from what :meth:`to_json` gave.

        Args:
            data: The description.

        Returns:
            A space equal to the one described.

        Raises:
            InputError: If the description is not one of a space.
        """
        try:
            parameters = {entry["name"]: parameter_from_json(entry) for entry in data}
            given = {entry["name"]: entry["condition"] for entry in data if entry["condition"] is not None}
            return Space(
                parameters,
                {name: Condition(each["parameter"], tuple(each["values"])) for name, each in given.items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is no description of a space: {error}") from error

    def _walk_active(self, point: Point) -> Iterator[tuple[str, Parameter]]:
        # Lazily: the caller fills the point in between, and conditions look at what is there by then.
        for name, parameter in self._parameters.items():
            condition = self._conditions.get(name)
            if condition is None or point.get(condition.parameter) in condition.values:
                yield name, parameter

    def _entries(self) -> tuple[tuple[str, Parameter, Condition | None], ...]:
        """Return everything that makes two spaces equal."""
        return tuple((name, parameter, self._conditions.get(name)) for name, parameter in self._parameters.items())

    def _obstacle(self, name: str, point: Point) -> str:
        """Return in words which condition, up the line of parents, is not met."""
        condition = self._conditions[name]
        needs = f"it needs {condition}"
        while condition.parameter not in point:
            condition = self._conditions[condition.parameter]
            needs += f", which needs {condition}"
        return f"{needs}, but {condition.parameter} = {point[condition.parameter]!r}"


def _check_condition(name: str, condition: Condition, earlier: Mapping[str, Parameter]) -> Condition:
    """Return a condition with its values as the parent has them.

    Args:
        name: Name of the child.
        condition: Its condition.
        earlier: The parameters before the child.

    Returns:
        The condition.

    Raises:
        ValueError: If the parent is not an earlier categorical parameter, or has no such values.
    """
    parent = earlier.get(condition.parameter)
    if not isinstance(parent, Categorical):
        raise ValueError(f"{name!r} depends on {condition.parameter!r}: no categorical parameter before it")
    if not condition.values:
        raise ValueError(f"{name!r} depends on {condition.parameter!r}, but on none of its values")
    return Condition(condition.parameter, tuple(parent.check(condition.parameter, value) for value in condition.values))


def _values_left(condition: Condition, parameters: Mapping[str, Parameter]) -> tuple[Value, ...]:
    """Return the values of a condition that its (narrowed) parent can still take."""
    parent = parameters.get(condition.parameter)
    if not isinstance(parent, Categorical):
        return ()
    return tuple(value for value in condition.values if value in parent.choices)


def _narrow_parameter(name: str, parameter: Parameter, bound: Mapping[str, object] | Value, beyond: bool) -> Parameter:
    """Return a parameter narrowed by bounds or by a bare value, which may lie beyond what is searched."""
    bounds = bound if isinstance(bound, Mapping) else {"value": bound}
    if not beyond or bounds.keys() != {"value"}:
        return parameter.narrow(name, bounds)
    try:
        return parameter.narrow(name, bounds)
    except InputError:
        return fix_parameter(parameter, name, bounds["value"])


def _add(parameters: dict[str, Parameter], more: Mapping[str, Parameter]) -> None:
    """Add parameters in place.

    Args:
        parameters: The parameters so far.
        more: The parameters to add.

    Raises:
        ValueError: If a name is there already.
    """
    twice = sorted(parameters.keys() & more.keys())
    if twice:
        raise ValueError(f"more than one parameter named {', '.join(twice)}")
    parameters.update(more)
