"""How to prune: methods by name. Importing this costs no torch; a method is imported when it is asked for.

Third parties add methods without touching this file: a study may name any class as ``package.module:Class``, and an
installed package gives its own a short name by an entry point::

    [project.entry-points."paretoprune.methods"]
    mine = "my_package.mine:Mine"
"""

from __future__ import annotations

from importlib import import_module
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
    if found is not None and not wanted.is_file():
        return  # a cluster that was sent our packages has each in a folder of its own
    if found is None or Path(found).resolve() != wanted:
        raise ImportError(
            f"paretoprune needs its own package {name!r} from {wanted.parent}, but Python finds "
            f"{found or 'none'}; uninstall the package that brings it (pip uninstall {name}), or run "
            f"'python -m paretoprune' in {wanted.parent.parent}"
        )


_check_neighbour("spaces")

from methods.contract.named import list_known_names, load_named

if TYPE_CHECKING:
    from torch import nn

    from methods.contract.method import Method, Problem, Pruned
    from methods.contract.recipe import Recipe

__all__ = ["METHODS", "Method", "Problem", "Pruned", "Recipe", "layer_classes", "load_method", "method_names"]

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
    """Return the registered names of all methods, ours and those of installed packages.

    Returns:
        The names, sorted.

    Example:
        >>> {"increg", "magnitude", "random"} <= set(method_names())
        True
    """
    return list_known_names(METHODS, GROUP)


def load_method(name: str) -> type[Method]:
    """Import a method.

    Args:
        name: One of :func:`method_names`, or ``package.module:Class`` for a class that is installed or lies in the
            working directory.

    Returns:
        The class; an ``InputError`` says in one sentence why there is none.

    Example:
        >>> load_method("magnitude").__name__
        'Magnitude'
    """
    return load_named("method", name, METHODS, GROUP, _explain_wrong_method)  # type: ignore[no-any-return]


def layer_classes() -> tuple[type[nn.Module], ...]:
    """List the layer classes that our own methods may put into a network: without them it cannot be rebuilt.

    Returns:
        The classes, for the argument ``layers`` of :func:`methods.network.architecture.rebuild`.
    """
    return tuple(dict.fromkeys(layer for name in METHODS for layer in load_method(name).layers))


def _explain_wrong_method(found: Any) -> str | None:
    """Say what is wrong with what should be a method."""
    from methods.contract.method import Method  # torch: only now

    if not (isinstance(found, type) and issubclass(found, Method)):
        return "is no subclass of methods.Method"
    if missing := sorted(found.__abstractmethods__):
        return f"is abstract: it lacks {', '.join(missing)}"
    for layer in found.layers:  # or trials would fail when their budget is spent
        if not callable(getattr(layer, "settings", None)):
            return f"declares the layer {layer.__name__}, which has no method settings() to describe it by"
    return None
