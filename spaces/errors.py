"""What a user is told when an input cannot be used.

Every message names what was given, what is allowed and, for names, the nearest valid one. The command line
prints the message alone and exits with code 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """A value, name or file given by the user cannot be used; the message says why and what would do."""


def unknown(kind: str, given: str, known: Iterable[str]) -> InputError:
    """Build the error for a name that is not known.

    Args:
        kind: What the name stands for, in the singular ("method", "parameter").
        given: The name as the user wrote it.
        known: The names that would have been accepted.

    Returns:
        The error, ready to be raised.

    Example:
        >>> print(unknown("method", "incregg", ["increg", "magnitude"]))
        unknown method 'incregg'; did you mean 'increg'? (known: increg, magnitude)
    """
    names = sorted(known)
    near = get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    listed = ", ".join(names) if names else "none"
    return InputError(f"unknown {kind} {given!r}{hint} (known: {listed})")
