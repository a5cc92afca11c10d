"""Fields of the recipe that are searched: ``[space.recipe] lr = { low = 0.01, high = 0.1 }``, for all methods alike.

The same fields can be given to one method alone, as ``[space.increg] "recipe.lr" = 0.02``. Nothing of the recipe is
searched unless the configuration names it, for methods are compared under one recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from pydantic import ValidationError

from methods.contract.recipe import Recipe
from spaces import Categorical, InputError, Integer, LogReal, Parameter, Real, Space, Value, explain_unknown_name
from spaces.errors import explain

RECIPE = "recipe"
"""The table of ``[space]`` that is for all methods, and the first part of the names of its parameters."""

START = f"{RECIPE}."

LOGARITHMIC = frozenset({"lr", "weight_decay", "clip_norm", "temperature"})
"""Fields that are searched on a logarithmic scale, unless their range begins at 0."""

UNSEARCHED = frozenset({"batch_size", "accumulate", "milestones"})
"""Fields that decide how many steps an epoch has, or that no single value describes."""


def split_recipe(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split what belongs to the recipe from what belongs to the method.

    Args:
        values: By parameter name, without the method's prefix.

    Returns:
        The recipe's, by field; and the method's, by parameter.

    Example:
        >>> split_recipe({"recipe.lr": 0.02, "target_flops": 0.5})
        ({'lr': 0.02}, {'target_flops': 0.5})
    """
    recipe = {name.removeprefix(START): value for name, value in values.items() if name.startswith(START)}
    return recipe, {name: value for name, value in values.items() if not name.startswith(START)}


def trial_recipe(recipe: Recipe, point: Mapping[str, Value]) -> Recipe:
    """Return the recipe of one trial.

    Args:
        recipe: The study's.
        point: The trial's point, by the method's own names.

    Returns:
        The study's recipe, with the fields that the point has.

    Example:
        >>> trial_recipe(Recipe(lr=0.1), {"recipe.lr": 0.02, "target_flops": 0.5}).lr
        0.02
    """
    changes = split_recipe(point)[0]
    return recipe.with_changes(**changes) if changes else recipe


def recipe_space(bounds: Mapping[str, Any], recipe: Recipe) -> Space:
    """Build the space of the searched fields.

    Args:
        bounds: By field: ``low`` and ``high``, ``choices``, or one value.
        recipe: The study's recipe; its values are the defaults where they lie inside.

    Returns:
        Parameters ``recipe.FIELD``.

    Raises:
        InputError: If there is no such field, it cannot be searched, or the recipe refuses one of the values.

    Example:
        >>> recipe_space({"lr": {"low": 0.01, "high": 0.1}}, Recipe(lr=0.05))["recipe.lr"]
        Range(low=0.01, high=0.1, scale='log', whole=False, default=0.05)
    """
    known = [name for name in Recipe.model_fields if name not in UNSEARCHED]
    parameters = {}
    for field, bound in bounds.items():
        if field not in known:
            raise InputError(explain_unknown_name("field of the recipe that can be searched:", field, known))
        parameter = _parameter(field, bound, getattr(recipe, field))
        for value in _list_ends(parameter):
            try:
                recipe.with_changes(**{field: value})
            except ValidationError as error:
                raise InputError(explain(error, Recipe, f"[space.{RECIPE}]")) from error
        parameters[START + field] = parameter
    return Space(parameters)


def _parameter(field: str, bound: object, usual: Any) -> Parameter:
    """Turn bounds into a parameter."""
    values: Mapping[str, Any] = bound if isinstance(bound, Mapping) else {"value": bound}
    keys = set(values)
    if keys == {"value"}:
        return Categorical((values["value"],), default=values["value"])
    if keys == {"choices"} and values["choices"]:
        choices = tuple(values["choices"])
        return Categorical(choices, default=usual if usual in choices else choices[0])
    low, high = values.get("low"), values.get("high")
    if keys != {"low", "high"} or not _is_number(low) or not _is_number(high):
        raise InputError(
            f"[space.{RECIPE}] {field} = {dict(values)!r} is not allowed: give low and high, choices, or one value"
        )
    if low > high:
        raise InputError(f"[space.{RECIPE}] {field}: low = {low!r} lies above high = {high!r}")
    inside = usual if _is_number(usual) and low <= usual <= high else None
    if Recipe.model_fields[field].annotation is int:
        return Integer(int(low), int(high), default=int(low if inside is None else inside))
    if field in LOGARITHMIC and low > 0:
        return LogReal(low, high, default=(low * high) ** 0.5 if inside is None else inside)
    return Real(low, high, default=(low + high) / 2 if inside is None else inside)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _list_ends(parameter: Parameter) -> tuple[Value, ...]:
    """The values that the recipe must take: all choices, or both ends of a range."""
    return parameter.choices if isinstance(parameter, Categorical) else (parameter.low, parameter.high)
