"""Functions that users name as ``package.module:function``: how they are found and called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spaces import InputError, unknown_name

ROOMS = ("methods", "search", "spaces")
"""Our packages, whose names a user's modules cannot have."""


def load_function(reference: str, kind: str) -> Callable[..., Any]:
    """Import a user's function; modules in the working directory are found, too.

    Args:
        reference: ``package.module:function``.
        kind: What the function gives, for messages ("model", "data").

    Returns:
        The function (or any other callable, such as a class).

    Raises:
        InputError: If the reference has another form, the module cannot be imported, or it has no such
            callable.
    """
    module_name, _, name = reference.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise InputError(f"{kind} {reference!r} must have the form package.module:function")
    try:
        with _working_directory():
            module = importlib.import_module(module_name)
    except ImportError as error:
        if (taken := _taken_name(error)) is not None:
            raise InputError(
                f"{kind} {reference!r}: paretoprune has a package {taken!r} of its own, which hides yours in "
                f"{os.getcwd()}; rename yours"
            ) from error
        if not isinstance(error, ModuleNotFoundError):
            raise InputError(f"{kind} {reference!r}: importing {module_name} failed: {_explain(error)}") from error
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(f"{kind} {reference!r}: importing {module_name} failed: {error}") from error
        raise InputError(
            f"{kind} {reference!r}: there is no module {error.name!r}; it must be installed or lie in {os.getcwd()}"
        ) from error
    except Exception as error:  # anything may go wrong in somebody else's module
        raise InputError(f"{kind} {reference!r}: importing {module_name} failed: {_explain(error)}") from error
    if not hasattr(module, name):
        callables = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise InputError(unknown_name(f"function in module {module_name}:", name, callables))
    function = getattr(module, name)
    if not callable(function):
        raise InputError(f"{kind} {reference!r}: {name} is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


def call_function(function: Callable[..., Any], reference: str, kind: str, **arguments: Any) -> Any:
    """Call a user's function; what it raises becomes an error in the user's words.

    Args:
        function: What :func:`load_function` gave.
        reference: The name it was given by, for messages.
        kind: What the function gives, for messages.
        **arguments: Keyword arguments of the call.

    Returns:
        What the function returns.

    Raises:
        InputError: If the function raises anything.
    """
    try:
        with _working_directory():  # functions may import, too
            return function(**arguments)
    except Exception as error:  # anything may go wrong in somebody else's function
        raise InputError(f"{kind} {reference!r} failed: {_explain(error)}") from error


def _taken_name(error: ImportError) -> str | None:
    """The package of ours that was imported in place of a module in the working directory, if that is what failed."""
    name = (error.name or "").partition(".")[0]
    ours = Path(__file__).resolve().parent.parent.parent
    here = [Path(name).with_suffix(".py"), Path(name)] if name in ROOMS else []
    return name if any(path.exists() and path.resolve() != ours / name for path in here) else None


def _explain(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def _working_directory() -> Generator[None]:
    # In front of the import path, as with ``python -m``.
    entry = os.getcwd()
    sys.path.insert(0, entry)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(entry)
