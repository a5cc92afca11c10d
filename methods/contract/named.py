"""Parts by name: ours, those of installed packages, and ``package.module:Name`` from anywhere.

Everything that a study names (methods, tasks, objectives, samplers, schedulers, executors, data, models, targets) is
found here, in this order: a name of ours; an entry point of an installed package; a reference to something in a module
that is installed or lies in the working directory. Needs no torch.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from spaces.errors import InputError, explain_unknown_name, kind_and_line

ROOMS = ("methods", "search", "spaces", "paretoprune")
"""Our packages, whose names a user's modules cannot have."""

Check = Callable[[Any], str | None]
"""Says what is wrong with a loaded object ("is no subclass of methods.Method"), or ``None`` if it is of the kind."""


def accept_callable(found: Any) -> str | None:
    """Accept whatever can be called (the usual check of functions).

    Args:
        found: What was loaded.

    Returns:
        What is wrong, or ``None``.
    """
    return None if callable(found) else f"is {kind_of(found)}, not a function"


def kind_of(found: Any) -> str:
    """Name what was found where something else should be.

    Args:
        found: Any object.

    Returns:
        Its class, or that it is one.

    Example:
        >>> kind_of(3), kind_of("x"), kind_of(int)
        ('an int', 'a str', 'the class int')
    """
    if isinstance(found, type):
        return f"the class {found.__name__}"
    name = type(found).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def is_reference(name: str) -> bool:
    """Tell whether a name is a reference ``package.module:Name`` rather than a registered name.

    Args:
        name: What the user wrote.

    Returns:
        Whether it has a colon.

    Example:
        >>> is_reference("mine:Mine"), is_reference("increg")
        (True, False)
    """
    return ":" in name


def list_registered_parts(group: str) -> list[EntryPoint]:
    """List what installed packages register.

    Args:
        group: A group of entry points.

    Returns:
        Its entry points; a package that is installed while this process runs is found by the next one.
    """
    return list(_read_entry_points(group, tuple(sys.path)))


@lru_cache(maxsize=64)
def _read_entry_points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    # Reading opens a file of every installed package, and a trial asks for names a dozen times.
    return tuple(entry_points(group=group))


def list_known_names(builtins: Mapping[str, str], group: str) -> list[str]:
    """Return the registered names of a kind, ours and those of installed packages.

    Args:
        builtins: Our own: ``"module:Attribute"`` by name.
        group: The entry-point group in which other packages list theirs.

    Returns:
        The names, sorted.
    """
    return sorted({*builtins, *(point.name for point in list_registered_parts(group))})


def load_named(kind: str, name: str, builtins: Mapping[str, str], group: str, check: Check = accept_callable) -> Any:
    """Import what a name stands for.

    Args:
        kind: What it is, in the singular, for messages ("method", "sampler").
        name: A name of :func:`list_known_names`, or ``package.module:Name``; the module is installed or lies in the
            working directory.
        builtins: Our own: ``"module:Attribute"`` by name.
        group: The entry-point group in which other packages list theirs.
        check: Says what is wrong with an object of another kind.

    Returns:
        The object.

    Raises:
        InputError: In one sentence, if the name is unknown or claimed twice, the reference is malformed, there is no
            such module or it does not import, it has no such attribute, or that is of another kind.

    Example:
        >>> load_named("function", "math:sqrt", {}, "paretoprune.examples")(9)
        3.0
    """
    if is_reference(name):
        return _import(f"{kind} {name!r}", name, check)
    claims = [point.value for point in list_registered_parts(group) if point.name == name]
    places = [builtins[name], *claims] if name in builtins else claims
    if not places:
        raise InputError(explain_unknown_name(kind, name, [*list_known_names(builtins, group), "package.module:Name"]))
    if len(places) > 1:
        raise InputError(f"{kind} {name!r} is registered more than once: {', '.join(places)}")
    return _import(f"{kind} {name!r} (registered as {places[0]!r})", places[0].partition("[")[0].strip(), check)


def call_named(function: Callable[..., Any], reference: str, kind: str, **arguments: Any) -> Any:
    """Call a user's function; what it raises becomes an error in the user's words.

    Args:
        function: What :func:`load_named` gave.
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
    except InputError:
        raise
    except Exception as error:  # anything may go wrong in somebody else's function
        raise InputError(f"{kind} {reference!r} failed: {kind_and_line(error)}") from error


def _import(subject: str, reference: str, check: Check) -> Any:
    """Import ``package.module:Name``; ``subject`` begins every message."""
    module_name, _, path = reference.partition(":")
    parts = path.split(".")
    if not all(part.isidentifier() for part in [*module_name.split("."), *parts]):
        raise InputError(f"{subject} must have the form package.module:Name")
    try:
        with _working_directory():
            module = importlib.import_module(module_name)
    except ImportError as error:
        if (taken := _find_taken_name(error)) is not None:
            raise InputError(
                f"{subject}: paretoprune has a package {taken!r} of its own, which hides yours in {os.getcwd()}; "
                "rename yours"
            ) from error
        missing = isinstance(error, ModuleNotFoundError)
        if not missing or error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(f"{subject}: importing {module_name} failed: {kind_and_line(error)}") from error
        raise InputError(
            f"{subject}: there is no module {error.name!r}; it must be installed or lie in {os.getcwd()}"
        ) from error
    except Exception as error:  # anything may go wrong in somebody else's module
        raise InputError(f"{subject}: importing {module_name} failed: {kind_and_line(error)}") from error
    found: Any = module
    for part in parts:
        if not hasattr(found, part):
            fitting = [n for n, value in vars(found).items() if not n.startswith("_") and check(value) is None]
            raise InputError(f"{subject}: {explain_unknown_name(f'name in {module_name}:', part, fitting)}")
        found = getattr(found, part)
    if (complaint := check(found)) is not None:
        raise InputError(f"{subject}: {path} {complaint}")
    return found


def _find_taken_name(error: ImportError) -> str | None:
    """The package of ours that was imported in place of a module in the working directory, if that is what failed."""
    name = (error.name or "").partition(".")[0]
    ours = Path(__file__).resolve().parent.parent.parent
    here = [Path(name).with_suffix(".py"), Path(name)] if name in ROOMS else []
    return name if any(path.exists() and path.resolve() != ours / name for path in here) else None


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
