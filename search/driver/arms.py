"""What competes in a league: methods with values of their parameters, as people write them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

from spaces import InputError, Value


@dataclass(frozen=True)
class Arm:
    """What competes.

    Attributes:
        label: As the user wrote it: ``greedy``, ``increg[preset=paper]``, ``sdprun[const_frac=0.2, finish=recipe]``.
        method: Name of the method; :data:`search.records.league.SMALLER` for that control.
        bounds: Values of parameters and fields, and perhaps a ``preset``.
    """

    label: str
    method: str
    bounds: Mapping[str, Value]


def read_arm(text: str) -> Arm:
    """Read what competes.

    Args:
        text: A method's name, and in brackets values of its parameters, with commas.

    Returns:
        The arm.

    Raises:
        InputError: If this is not of that form.

    Example:
        >>> read_arm("sdprun[const_frac=0.2, finish=recipe]").bounds
        {'const_frac': 0.2, 'finish': 'recipe'}
    """
    found = re.fullmatch(r"\s*([^\s\[\]]+?)\s*(?:\[(.*)\])?\s*", text, flags=re.DOTALL)
    if found is None:
        raise InputError(f"arm {text!r} is not of the form method or method[parameter=value, ...]")
    bounds: dict[str, Value] = {}
    for part in split_outside(found[2] or ""):
        key, equals, value = part.partition("=") if "[" not in part.partition("=")[0] else part.rpartition("=")
        if not equals or not key.strip():
            raise InputError(f"arm {text!r}: {part.strip()!r} is not of the form parameter=value")
        bounds[key.strip()] = _value(value.strip())
    return Arm(text.strip(), found[1], bounds)


def split_outside(text: str) -> list[str]:
    """Split at commas that are in no brackets.

    Args:
        text: Parts with commas between them.

    Returns:
        The parts that are not empty, stripped.

    Example:
        >>> split_outside("increg, sdprun[const_frac=0.2, momentum=0.9]")
        ['increg', 'sdprun[const_frac=0.2, momentum=0.9]']
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _value(text: str) -> Value:
    """Read a value as TOML would, and as plain text where TOML would not."""
    try:
        read = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return read if isinstance(read, bool | int | float | str) else text
