"""What a user is told when an input cannot be used.

Every message names what was given, what is allowed and, for names, the nearest valid one. The command line
prints the message alone and exits with code 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

LISTED = 12
"""Most names that a message lists."""


class InputError(ValueError):
    """A value, name or file given by the user cannot be used; the message says why and what would do."""


def shorten_error(error: BaseException) -> str:
    r"""Shorten what an exception of somebody else's says to fit into a sentence.

    Args:
        error: The exception.

    Returns:
        The first line of its message; the name of its class if it says nothing.

    Example:
        >>> shorten_error(ValueError("no such file\nTraceback ..."))
        'no such file'
        >>> shorten_error(KeyError())
        'KeyError'
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()


def kind_and_line(error: BaseException) -> str:
    """Name an exception of somebody else's and shorten what it says.

    Args:
        error: The exception.

    Returns:
        The name of its class, and the first line of its message if it has one.

    Example:
        >>> kind_and_line(ZeroDivisionError("division by zero"))
        'ZeroDivisionError: division by zero'
        >>> kind_and_line(StopIteration())
        'StopIteration'
    """
    name, said = type(error).__name__, shorten_error(error)
    return f"{name}: {said}" if str(error).strip() else name


def explain_unknown_name(kind: str, given: str, known: Iterable[str]) -> str:
    """Say that a name is not known, and which ones are.

    Args:
        kind: What the name stands for, in the singular ("method", "parameter").
        given: The name as the user wrote it.
        known: The names that would have been accepted.

    Returns:
        The message of an :class:`InputError`. Of many names only the most similar ones are listed.

    Example:
        >>> print(explain_unknown_name("method", "incregg", ["increg", "magnitude"]))
        unknown method 'incregg'; did you mean 'increg'? (known: increg, magnitude)
    """
    names = sorted(known)
    near = get_close_matches(given, names, n=LISTED, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if len(names) <= LISTED:
        listed = ", ".join(names) or "none"
    else:
        shown = near or names[:LISTED]
        listed = f"{', '.join(shown)} and {len(names) - len(shown)} more"
    return f"unknown {kind} {given!r}{hint} (known: {listed})"


def explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """Say in one sentence what is wrong with the first value that a pydantic model refused.

    Args:
        error: What pydantic raised.
        model: The model that was to be built.
        where: What the values belong to, for the message ("study.toml", "method increg").

    Returns:
        The message of an :class:`InputError`.
    """
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return f"{where}: {cause}"
    path, owner = _follow_location(model, [str(part) for part in first["loc"]])
    if first["type"] == "extra_forbidden":
        section = ".".join(path[:-1])
        kind = f"key in {where}{f', section {section}' if section else ''}:"
        return explain_unknown_name(kind, path[-1], owner.model_fields)
    if first["type"] == "missing":
        return f"{where}: {'.'.join(path)} needs a value"
    message = _WORDS.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    if not path:  # what several values together must not be
        return f"{where}: {message}"
    return f"{where}: {'.'.join(path)} = {first['input']!r} is not allowed: {message}"


_WORDS = {
    "tuple_type": "it must be a list, such as [1, 2]",
    "mapping_type": "it must be a table of keys, such as { key = 1 }",
    "dict_type": "it must be a table of keys, such as { key = 1 }",
    "model_type": "it must be a table of keys, such as { key = 1 }",
    "int_parsing": "it must be a whole number",
    "int_type": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "float_parsing": "it must be a number",
    "float_type": "it must be a number",
    "bool_parsing": "it must be true or false",
    "bool_type": "it must be true or false",
    "string_type": "it must be a text in quotation marks",
}
"""What pydantic says in words of Python, said in words of TOML."""


def _follow_location(model: type[BaseModel], location: list[str]) -> tuple[list[str], type[BaseModel]]:
    """Follow an error's location: the keys as the user wrote them, and the model that owns the last one."""
    keys: list[str] = []
    owner = model
    members: list[type[BaseModel]] = []
    for part in location:
        tagged = [member for member in members if _tag(member) == part]
        if tagged:  # the tag of a discriminated union is a step of the location, but no key of the user's
            owner, members = tagged[0], []
            continue
        owner = members[0] if len(members) == 1 else owner
        keys.append(part)
        field = owner.model_fields.get(part)
        members = [] if field is None else _models(field.annotation)
    return keys, owner


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Every pydantic model in an annotation such as ``A | B | None``."""
    if isinstance(annotation, type):
        return [annotation] if hasattr(annotation, "model_fields") else []
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _tag(model: type[BaseModel]) -> object:
    mode = model.model_fields.get("mode")
    return None if mode is None else mode.default
