"""How to prune: methods by name. Importing this costs no torch; a method is imported when it is asked for.

Third parties add methods without touching this file, by an entry point in their own project::

    [project.entry-points."paretoprune.methods"]
    mine = "my_package.mine:Mine"
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any


def _check_neighbour(name: str) -> None:
    """Refuse to work with a package of another project that has the name of one of our rooms.

    Args:
        name: The room that must lie beside this one.

    Raises:
        ImportError: If Python would import another one.
    """
    wanted = Path(__file__).resolve().parent.parent / name / "__init__.py"
    spec = find_spec(name)
    found = spec.origin if spec is not None else None
    if found is None or Path(found).resolve() != wanted:
        raise ImportError(
            f"paretoprune needs its own package {name!r} from {wanted.parent}, but Python finds "
            f"{found or 'none'}; uninstall the package that brings it (pip uninstall {name}), or run "
            f"'python -m paretoprune' in {wanted.parent.parent}"
        )


_check_neighbour("spaces")

from spaces.errors import InputError, unknown_name

if TYPE_CHECKING:
    from methods.contract.method import Method, Problem, Pruned
    from methods.contract.recipe import Recipe

__all__ = ["METHODS", "Method", "Problem", "Pruned", "Recipe", "load_method", "method_names"]

METHODS: dict[str, str] = {
    "eigendamage": "methods.eigendamage.method:EigenDamage",
    "greedy": "methods.greedy.method:Greedy",
    "increg": "methods.increg.method:IncReg",
    "magnitude": "methods.magnitude:Magnitude",
    "pivoting": "methods.pivoting.method:Pivoting",
    "random": "methods.random_channels:RandomChannels",
    "sdprun": "methods.sdprun.method:SDPrun",
    "spp": "methods.spp.method:SPP",
}
"""Our own methods: where the class of each name is."""

GROUP = "paretoprune.methods"
"""The entry-point group in which other packages list theirs."""


def __getattr__(name: str) -> Any:
    homes = {
        "Method": "contract.method",
        "Problem": "contract.method",
        "Pruned": "contract.method",
        "Recipe": "contract.recipe",
    }
    if name in homes:
        return getattr(import_module(f"methods.{homes[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def method_names() -> list[str]:
    """Return the names of all methods, ours and those of installed packages.

    Returns:
        The names, sorted.

    Example:
        >>> {"increg", "magnitude", "random"} <= set(method_names())
        True
    """
    return sorted({*METHODS, *(point.name for point in entry_points(group=GROUP))})


def load_method(name: str) -> type[Method]:
    """Import a method.

    Args:
        name: One of :func:`method_names`.

    Returns:
        The class.

    Raises:
        InputError: If there is no such method, two packages claim the name, or it cannot be imported.

    Example:
        >>> load_method("magnitude").__name__
        'Magnitude'
    """
    claims = [point.value for point in entry_points(group=GROUP, name=name)]
    places = [METHODS[name], *claims] if name in METHODS else claims
    if not places:
        raise InputError(unknown_name("method", name, method_names()))
    if len(places) > 1:
        raise InputError(f"method {name!r} is registered more than once: {', '.join(places)}")
    return _import_method(EntryPoint(name, places[0], GROUP))


def _import_method(point: EntryPoint) -> type[Method]:
    """Import what an entry point names.

    Args:
        point: Name and place of a method.

    Returns:
        The class.

    Raises:
        InputError: If it cannot be imported or is no method.
    """
    from methods.contract.method import Method  # torch: only now

    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise InputError(f"method {point.name!r} cannot be loaded from {point.value!r}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise InputError(f"method {point.name!r}: {point.value!r} is no subclass of methods.Method")
    return found
