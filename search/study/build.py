"""How a trial builds its method from a point."""

from __future__ import annotations

from collections.abc import Mapping

from methods import load_method
from methods.contract.method import Method
from search.study.recipe_space import split_recipe
from spaces import Value


def build_method(name: str, point: Mapping[str, Value], round_to: int) -> Method:
    """Build a method as a trial does.

    Args:
        name: Its name.
        point: Values by its own parameter names; fields of the recipe among them are left out.
        round_to: Kept widths are multiples of this, if the method rounds widths and the point has no other value.

    Returns:
        The method.
    """
    kind = load_method(name)
    given = {"round_to": round_to} if kind.rounds_widths else {}
    return kind.from_point({**given, **split_recipe(point)[1]})
