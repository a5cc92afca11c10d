"""Points of a study's space: how many there are, which come first, and whole ones from what was said of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from methods import load_method
from search.study.recipe_space import RECIPE
from search.study.samplers.slots import UNUSED, from_unit
from search.study.space import LEVEL, METHOD
from spaces import Categorical, InputError, Parameter, Space, Value, explain_unknown_name

EASY = 0.5
"""Share of the FLOPs from which on nearly every method loses nearly nothing: no first point is spent there."""


def count_points(space: Space, most: int) -> int | None:
    """Count the points of a space, as far as that matters.

    Args:
        space: The space.
        most: Where to stop counting.

    Returns:
        The number of points; ``None`` where there are more than ``most``, a parameter on a continuous range included.
    """
    found = 0
    chosen: list[int] | None = []  # which option of each parameter that applies, in order
    while chosen is not None:
        sizes = _sizes(space, chosen, most + 1)
        found += 1
        if found > most:
            return None
        chosen = _advance_choice(chosen, sizes)
    return found


def _sizes(space: Space, chosen: Sequence[int], most: int) -> list[int]:
    """Walk to a point, by first options where nothing is chosen; return how many options each parameter had."""
    sizes: list[int] = []

    def choose(name: str, parameter: Parameter) -> Value:
        options = _options(parameter, most)
        place = chosen[len(sizes)] if len(sizes) < len(chosen) else 0
        sizes.append(len(options))
        return options[place]

    space.walk(choose)
    return sizes


def _advance_choice(chosen: Sequence[int], sizes: Sequence[int]) -> list[int] | None:
    """Count one further, the last parameter first; None after the last point."""
    following = [*chosen, *[0] * (len(sizes) - len(chosen))][: len(sizes)]
    while following and following[-1] + 1 == sizes[len(following) - 1]:
        following.pop()
    if not following:
        return None
    following[-1] += 1
    return following


def _options(parameter: Parameter, most: int) -> list[Value]:
    """List values of a parameter; of a range so many that a count of them would be too many."""
    if parameter.only is not None:
        return [parameter.only]
    if isinstance(parameter, Categorical):
        return list(parameter.choices)
    if parameter.whole:
        return list(range(int(parameter.low), min(int(parameter.high), int(parameter.low) + most) + 1))
    step = (parameter.high - parameter.low) / most
    return [min(parameter.low + number * step, parameter.high) for number in range(most + 1)]


def complete_point(space: Space, method: str, values: Mapping[str, object], strict: bool = True) -> dict[str, Value]:
    """Make a whole point of what was said of it.

    Args:
        space: The whole space.
        method: The method.
        values: Some of its parameters, by its own names.
        strict: Whether values that do not apply are an error, rather than passed over.

    Returns:
        The point: what was not said has the authors' value, or the middle of its range where they give none.

    Raises:
        InputError: If the method does not compete, a name or value is not allowed, or one does not apply.
    """
    competing = space[METHOD]
    assert isinstance(competing, Categorical)
    if method not in competing.choices:
        raise InputError(explain_unknown_name("method of this study:", method, map(str, competing.choices)))
    own = [name.removeprefix(f"{method}.") for name in space if name.startswith(f"{method}.")]
    for name in values:
        if name not in own:
            raise InputError(explain_unknown_name(f"parameter of {method}:", name, own))

    def choose(name: str, parameter: Parameter) -> Value:
        if name == METHOD:
            return method
        given = values.get(name.removeprefix(f"{method}."))
        if given is not None:
            return parameter.check(name, given)
        usual = parameter.only if parameter.default is None else parameter.default
        return from_unit(parameter, UNUSED) if usual is None else usual

    point = space.walk(choose)
    idle = [name for name in values if f"{method}.{name}" not in point]
    if idle and strict:
        raise InputError(f"{method}.{idle[0]} does not apply: it needs {space.condition(f'{method}.{idle[0]}')}")
    return point


def refuse_idle_bounds(
    space: Space, points: Sequence[Mapping[str, Value]], bounds: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse bounds that none of the points of a study looks at.

    Args:
        space: The space of the study.
        points: All points that will be tried.
        bounds: Bounds by method and parameter.

    Raises:
        InputError: If a parameter has bounds and applies in no point of its method; the message says what it needs.
    """
    for method, own in bounds.items():
        if method == RECIPE:  # applies in every point
            continue
        mine = [point for point in points if point[METHOD] == method]
        for key in own:
            name = f"{method}.{key}"
            if mine and name in space and not any(name in point for point in mine):
                raise InputError(
                    f"[space.{method}]: {key} = {own[key]!r} would change nothing: it applies only when "
                    f"{space.condition(name)}, and with sampler 'defaults' no point has that; set that too"
                )


def make_first_points(space: Space, methods: Sequence[str], shares: Sequence[float]) -> list[dict[str, Value]]:
    """Give every method its authors' values at the same few sparsities.

    Args:
        space: The space of the study.
        methods: Names of the methods that compete.
        shares: Shares of the dense FLOPs that are to be left.

    Returns:
        Valid points, all methods at the first share, then at the next. Methods without values for all parameters, or
        whose space was narrowed to exclude these sparsities, have none.
    """
    points = []
    for share, method in itertools.product(shares, methods):
        defaults = space.narrow({METHOD: method}).defaults()
        if defaults is None:
            continue
        target = load_method(method).flops_parameter
        point = {
            name: _set_share(name.removeprefix(f"{method}."), value, share, target) for name, value in defaults.items()
        }
        try:
            points.append(space.check(point))
        except InputError:
            continue  # outside what the user narrowed to
    return _remove_repeats(points)


def spread_points(
    space: Space, methods: Sequence[str], trials: int, seed: int, band: tuple[float, float] = (0.05, 1.0)
) -> list[dict[str, Value]]:
    """Choose the points that are tried before the search has learned anything: one per method, all over the band.

    A front needs its whole range covered early, and every method a trial. A few points do both; more of them would
    keep the search from learning. Which method is tried where is permuted by the seed, so that no method always
    begins at the easy end.

    Args:
        space: The space of the study.
        methods: Names of the methods that compete.
        trials: How many trials the study has; a third of them at most are spent here, but at least one.
        seed: Permutes methods and shares.
        band: Least and largest share of the dense FLOPs that is searched; of it the part below :data:`EASY` is covered.

    Returns:
        Valid points with the authors' values, at shares of the FLOPs that are spread evenly on a logarithmic scale.
        A method without values for all parameters has none; one whose space was narrowed is tried as near as that
        allows.
    """
    low, high = band
    high = max(min(high, EASY), min(high, 2 * low))
    count = min(len(methods), max(1, trials // 3))
    draw = Random(seed)
    order = draw.sample(list(methods), len(methods))[:count]
    # the middles of equal parts of the logarithmic band
    shares = [low * (high / low) ** ((part + 0.5) / count) for part in range(count)]
    points = []
    for method, share in zip(order, draw.sample(shares, count), strict=True):
        narrowed = space.narrow({METHOD: method})
        defaults = narrowed.defaults()
        if defaults is not None:
            target = load_method(method).flops_parameter
            wanted = {
                name: _set_share(name.removeprefix(f"{method}."), value, share, target)
                for name, value in defaults.items()
            }
            points.append(space.check({name: _move_into_range(space[name], value) for name, value in wanted.items()}))
    return points


def _move_into_range(parameter: Parameter, value: Value) -> Value:
    """Move a number into the range of its parameter."""
    if isinstance(parameter, Categorical) or isinstance(value, bool | str):
        return value
    return min(max(value, parameter.low), parameter.high)


def _set_share(own: str, value: Value, share: float, target: str | None) -> Value:
    """Set the parameters that decide sparsity so that about this share of the FLOPs is left.

    Args:
        own: Name of the parameter in its method's space.
        value: Its default.
        share: Share of the dense FLOPs.
        target: The method's parameter that asks for such a share.

    Returns:
        The value to try.
    """
    if own == target:
        return share
    # widths count twice in a layer's FLOPs, once as inputs
    if own == LEVEL:
        return math.sqrt(share)
    if own == "sparsity.ratio":
        return round(1 - math.sqrt(share), 3)
    return value


def _remove_repeats(points: list[dict[str, Value]]) -> list[dict[str, Value]]:
    seen: list[dict[str, Value]] = []
    for point in points:
        if point not in seen:
            seen.append(point)
    return seen
