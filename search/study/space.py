"""The space of a study: every competing method's space under one choice, narrowed by the user."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from methods import load_method
from methods.contract.recipe import Recipe
from search.study.recipe_space import RECIPE, recipe_space, split_recipe
from spaces import Categorical, Condition, InputError, LayerGroup, Space, Value, explain_unknown_name

METHOD = "method"
"""Name of the parameter that chooses the method."""

MODE = "sparsity.mode"

AUTO = "auto"
"""The allocation by damage in methods that can be told so, a share of the FLOPs for all layers in the others."""
BLOCKS = "sparsity.blocks"
"""Whether residual blocks may go as a whole where widths follow from damage."""

LEVEL = "sparsity.level"
"""The share of units that all stages or layers keep, but for their offsets."""


def level_of(method: str, space: Space, point: Mapping[str, Value]) -> str | None:
    """Name the parameter of a point that decides how much is left of the network.

    Args:
        method: Name of the method.
        space: The method's own space.
        point: A point of it.

    Returns:
        The parameter; larger values leave more, but for ``sparsity.ratio``. ``None`` if the point has none that could
        be changed.
    """
    names = (load_method(method).flops_parameter, LEVEL, "sparsity.ratio", "sparsity.energy")
    return next((name for name in names if name is not None and name in point and space[name].only is None), None)


def select_own_space(space: Space, method: str) -> Space:
    """Return the part of a study's space that belongs to one method, by the method's own names.

    Args:
        space: The whole space.
        method: Name of the method.

    Returns:
        The method's space, as narrowed as it is in the study.
    """
    narrowed, start = space.narrow({METHOD: method}), f"{method}."
    names = [name for name in narrowed if name != METHOD]
    conditions = {}
    for name in names:
        condition = narrowed.condition(name)
        if condition is not None and condition.parameter != METHOD:
            parent = condition.parameter.removeprefix(start)
            conditions[name.removeprefix(start)] = Condition(parent, condition.values)
    return Space({name.removeprefix(start): narrowed[name] for name in names}, conditions)


def fix_known_costs(space: Space, methods: Sequence[str]) -> tuple[Space, list[str]]:
    """Leave out the settings in which a method decides by itself what its network costs.

    Args:
        space: The whole space.
        methods: Names of the methods that compete.

    Returns:
        The smaller space, in which every method is told what to leave; and the methods that cannot be told.
    """
    bounds: dict[str, dict[str, object]] = {}
    free = []
    for method in methods:
        target = load_method(method).flops_parameter
        if target is None or f"{method}.{target}" not in space:
            if f"{method}.{MODE}" not in space:
                free.append(method)
            continue
        condition = space.condition(f"{method}.{target}")
        while condition is not None and condition.parameter != METHOD:
            if condition.parameter != f"{method}.{MODE}":  # other modes are told what to leave, too
                bounds[condition.parameter] = {"choices": list(condition.values)}
            condition = space.condition(condition.parameter)
    space = space.narrow(bounds)
    exact = {f"{method}.{name}": value for method in methods for name, value in load_method(method).exact_with.items()}
    open_ones = {name: value for name, value in exact.items() if name in space and space[name].only is None}
    return space.narrow(open_ones), free


def study_space(
    methods: Sequence[str],
    groups: Sequence[LayerGroup],
    allocation: str,
    narrowed: Mapping[str, Mapping[str, Any]],
    floor: float = 0.0,
    preset: str = "default",
    recipe: Recipe | None = None,
    blocks: bool = False,
) -> Space:
    """Put the methods' spaces under one choice.

    Args:
        methods: Names of the methods that compete.
        groups: The prunable channel groups.
        allocation: How sparsity is given out, or ``"any"`` to let the search choose.
        narrowed: Bounds by method and parameter.
        floor: Least share of the dense FLOPs that can be asked of methods that round their widths.
        preset: Named settings of every method that has none of its own among its bounds.
        recipe: How trials are trained, where fields of it are searched; those of ``narrowed["recipe"]`` are searched
            with every method.
        blocks: Whether residual blocks may go as a whole where widths follow from damage.

    Returns:
        The space: ``method``, then each method's parameters under ``METHOD.``.

    Raises:
        InputError: If bounds are given for a method that does not compete, or do not fit.
    """
    for name in narrowed:
        if name not in (*methods, RECIPE):
            raise InputError(explain_unknown_name("method with bounds in [space]:", name, [*methods, RECIPE]))
    shared = {f"{RECIPE}.{field}": bound for field, bound in narrowed.get(RECIPE, {}).items()}
    own = {name: {**shared, **narrowed.get(name, {})} for name in methods}
    return Space.choose(
        METHOD,
        {name: method_space(name, groups, allocation, own[name], floor, preset, recipe, blocks) for name in methods},
    )


def method_space(
    name: str,
    groups: Sequence[LayerGroup],
    allocation: str,
    bounds: Mapping[str, Any],
    floor: float = 0.0,
    preset: str = "default",
    recipe: Recipe | None = None,
    blocks: bool = False,
) -> Space:
    """Return one method's space, narrowed.

    Args:
        name: Name of the method.
        groups: The prunable channel groups.
        allocation: How sparsity is given out, or ``"any"`` to leave it open.
        bounds: Bounds by parameter, or values that fix one; also values of fields that are not searched, and the
            name of a ``preset``, over which the other bounds go.
        floor: Least share of the dense FLOPs that can be asked for, if the method rounds its widths.
        preset: Named settings, if the bounds name none.
        recipe: How trials are trained, where bounds name fields of it as ``recipe.FIELD``.
        blocks: Whether residual blocks may go as a whole where widths follow from damage.

    Returns:
        The space, with the method's own parameter names. A field that is not searched and has a value becomes a
        parameter with that one choice.

    Raises:
        InputError: If bounds do not fit; the message names the method.
    """
    method = load_method(name)
    try:
        settings = method.preset(str(bounds.get("preset", preset)))
    except InputError as error:
        raise InputError(f"[space.{name}]: {error}") from error
    of_recipe, bounds = split_recipe(bounds)
    bounds = {**settings, **{key: value for key, value in bounds.items() if key != "preset"}}
    space = method.space(groups)
    target = method.flops_parameter
    if target is not None and target not in space:
        raise InputError(explain_unknown_name(f"flops_parameter of method {name}:", target, space.names))
    space = _settle_allocation(space, name, allocation, bounds)
    if blocks and method.removes_blocks and MODE in space and "damage" in space[MODE].to_json()["choices"]:
        space = _add_blocks(space)
    for left_alone in method.fixed_by_default - bounds.keys():
        if (usual := space[left_alone].default) is not None:
            space = space.narrow({left_alone: usual})
    values = {key: value for key, bound in bounds.items() if (value := fixed_value(bound)) is not None}
    fields = {key: value for key, value in values.items() if key not in space and key in method.model_fields}
    try:
        for key, value in values.items():
            if key in method.model_fields:
                method.check_field(key, value)
        # What the search leaves out may be right all the same: the field decides about a value that is fixed.
        # Except where others hang on the value: what goes with one that the space does not know is nowhere to be found.
        parents = {condition.parameter for each in space if (condition := space.condition(each)) is not None}
        decided = (method.model_fields.keys() | (space.defaults() or {}).keys()) - parents
        searched = {key: value for key, value in bounds.items() if key not in fields}
        space = space.narrow(searched, beyond=values.keys() & decided)
        space |= Space({key: Categorical((value,), default=value) for key, value in fields.items()})
        if values and (usual_point := space.defaults()) is not None:
            method.from_point(usual_point)  # what does not go together is said before anything is trained
    except InputError as error:
        raise InputError(f"[space.{name}]: {error}") from error
    if target is not None and target in space and method.rounds_widths:
        space = _leave_out_unreachable(floor, space, target, name)
    return space | recipe_space(of_recipe, recipe or Recipe()) if of_recipe else space


def _settle_allocation(space: Space, name: str, allocation: str, bounds: Mapping[str, Any]) -> Space:
    """Fix how a method gives out its sparsity over layers, unless the bounds do."""
    told = load_method(name).by_damage
    if allocation == "any":
        return space
    if allocation in (AUTO, "damage") and _fits(space, bounds, told):
        return space.narrow(told, beyond=told.keys())
    if MODE not in space or MODE in bounds:
        return space
    mode = "flops" if allocation == AUTO else allocation
    if mode not in (modes := space[MODE].to_json()["choices"]):
        raise InputError(
            f"allocation = {mode!r} does not exist for {name} (it has {', '.join(modes)}); leave {name} "
            f"out, or set [space.{name}] sparsity.mode"
        )
    return space.narrow({MODE: mode})


def _fits(space: Space, bounds: Mapping[str, Any], told: Mapping[str, Value]) -> bool:
    """Whether a method can be told to go by damage, and its bounds are not those of another allocation."""
    if not told or told.keys() & bounds.keys():
        return False
    own = {key: bound for key, bound in bounds.items() if key in space}
    try:
        space.narrow({**own, **told}, beyond={*own, *told})
    except InputError:
        return False
    return True


def _add_blocks(space: Space) -> Space:
    """Let residual blocks go as a whole wherever widths follow from damage."""
    conditions = {name: condition for name in space if (condition := space.condition(name)) is not None}
    conditions[BLOCKS] = Condition(MODE, ("damage",))
    return Space({**{name: space[name] for name in space}, BLOCKS: Categorical((True,), default=True)}, conditions)


def fixed_value(bound: object) -> Value | None:
    """Return the one value that a bound leaves.

    Args:
        bound: A value, or a table of bounds.

    Returns:
        The value; None for bounds that leave several.
    """
    if isinstance(bound, Mapping):
        bound = bound["value"] if bound.keys() == {"value"} else None
    return bound if isinstance(bound, bool | int | float | str) else None


def _leave_out_unreachable(floor: float, space: Space, target: str, name: str) -> Space:
    """Leave out FLOPs that widths of the wanted multiples cannot come down to."""
    allowed = space[target].to_json()
    if allowed["low"] >= floor:
        return space
    least = math.ceil(1000 * floor) / 1000
    if allowed["high"] < least:
        raise InputError(
            f"[space.{name}]: {target} up to {allowed['high']:g} cannot be reached with such round widths, at best "
            f"{least:g}; lower round_to (1 rounds nothing)"
        )
    return space.narrow({target: {"low": least}})
