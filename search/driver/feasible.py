"""Whether the methods of a study can work on its network within its budget: asked before anything is trained."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from methods.contract.analyses import NotMeasured
from methods.contract.method import Method, Problem
from search.study.build import build_method
from search.study.points import make_first_points
from search.study.space import METHOD
from spaces import InputError, Space


def check_methods(
    space: Space, methods: Sequence[str], shares: Sequence[float], problem: Problem, round_to: int
) -> list[str]:
    """Refuse a method that cannot even work at the least demanding of the points that are tried first.

    What a search finds beyond these may still be impossible; such a trial fails alone, and says why.

    Args:
        space: The space of the study.
        methods: Names of the methods that compete.
        shares: Shares of the dense FLOPs that are tried first.
        problem: The network, the data and the budget.
        round_to: Kept widths are multiples of this.

    Returns:
        Warnings.
    """
    easiest_first = sorted(shares, reverse=True)
    warned: list[str] = []
    for name in methods:
        points = [space.split(point, METHOD)[1] for point in make_first_points(space, [name], easiest_first)]
        if points:
            warned += _warnings([build_method(name, point, round_to) for point in points], problem)
    return warned


def _warnings(easiest_first: Sequence[Method], problem: Problem) -> list[str]:
    """Return the warnings, each once, of those methods that can work; raise the first error if none can."""
    errors: list[InputError] = []
    warned: dict[str, None] = {}
    for method in easiest_first:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                method.check(problem)
        except NotMeasured:
            return list(warned)  # what it would leave is known once the dense network is trained
        except InputError as error:
            errors.append(error)
        else:
            warned |= dict.fromkeys(str(each.message) for each in caught if issubclass(each.category, UserWarning))
    if len(errors) == len(easiest_first):
        raise errors[0]
    return list(warned)
