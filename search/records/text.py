"""Text of others, made fit to be shown."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, cursor movements and the like
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles of windows, links, the clipboard
    r"|\x1b[PX^_].*?\x1b\\"  # strings for devices
    r"|\r(?=\n)"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # what is left of control characters, but for newline and tab
    r"|[\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # changes of the direction of writing
)


def strip_control_characters(text: str) -> str:
    r"""Take out of a text what would act on a terminal instead of being shown.

    Args:
        text: Any text: an exception's, a file's, a name.

    Returns:
        The text without escape sequences, other control characters (newlines and tabs stay) and marks that change
        the direction of writing.

    Example:
        >>> strip_control_characters("\x1b[31mred\x1b[0m\x07 and \x1b]0;title\x07plain")
        'red and plain'
    """
    return _UNPRINTABLE.sub("", text)


def remove_credentials(text: str) -> str:
    """Strike user names, passwords and queries out of addresses.

    Args:
        text: An address, or a message that may quote some.

    Returns:
        The text; of an address, what is before its last ``@`` and behind ``?`` is left out, for both may hold secrets.

    Example:
        >>> remove_credentials("cannot open postgresql://anna:se@cr/et@host:5432/runs?password=x (refused)")
        'cannot open postgresql://host:5432/runs (refused)'
        >>> remove_credentials("sqlite:////runs/a.db")
        'sqlite:////runs/a.db'
    """
    return _ADDRESS.sub(_hide_credentials, text)


_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s'\"<>]*)")


def _hide_credentials(found: re.Match[str]) -> str:
    rest = found[2]
    if found[1].startswith("sqlite"):  # a path, in which both characters are its own
        return found[0]
    if "@" in rest:
        rest = rest.rpartition("@")[2]
    return found[1] + rest.partition("?")[0]
