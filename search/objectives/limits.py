"""Limits as people write them: ``50%``, ``0.5``, ``20M``, ``2ms``, ``1e-3``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction

from spaces import InputError

_NUMBER = re.compile(r"(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(?:[eE]([+-]?\d{1,2}))?\s*([%kKmMgG]?)")
_FACTORS = {"k": 10**3, "m": 10**6, "g": 10**9}
_DURATION = re.compile(r"(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(?:[eE]([+-]?\d{1,2}))?\s*(%|s|ms|us|µs|μs)")
_FEW = 1000
"""A bare count that is this many times less than the dense network's, and no more than 100, was meant as percent."""
_SECONDS = {
    "s": Fraction(1),
    "ms": Fraction(1, 10**3),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),  # the micro sign and the Greek letter look alike
    "μs": Fraction(1, 10**6),
}


def parse_limit(text: str | float, dense_value: int, name: str) -> int:
    """Read an upper limit on a count, as a share of the dense network or as a number.

    ``"50%"`` and numbers above 0 and up to 1 are shares; whole numbers above 1 are counts, and so is anything
    with k, M or G.

    Args:
        text: What the user wrote.
        dense_value: The count of the dense network.
        name: Name of the limit, for the message (``"max-flops"``).

    Returns:
        The largest count that is within the limit.

    Raises:
        InputError: If the text is no limit, or one that nothing (0) or everything (above 100 %) meets.

    Example:
        >>> [parse_limit(text, 1_000_000, "max-flops") for text in ("50%", 0.25, "300k", 300_000)]
        [500000, 250000, 300000, 300000]
    """
    examples = "write a share of the dense network ('50%' or '0.5') or a count ('20M')"
    number, suffix = _parse(text, name, examples)
    if suffix == "%" or (not suffix and number <= 1):
        share = number / 100 if suffix else number
        if share > 1:
            raise InputError(f"{name}: {text!r} is more than the whole dense network; {examples}")
        return int(share * dense_value)
    count = number * _FACTORS.get(suffix, 1)
    if count.denominator != 1:
        raise InputError(f"{name}: {text!r} is neither a share (shares end at 1) nor a whole number; {examples}")
    if not suffix and count <= 100 and count * _FEW < dense_value:
        raise InputError(
            f"{name}: {text} of the dense network's {dense_value:,} is next to nothing; did you mean '{text}%'? "
            f"({examples})"
        )
    return int(count)


def parse_share(text: str | float, name: str) -> float:
    """Read a share such as a least accuracy.

    Args:
        text: What the user wrote: ``"95%"``, ``"0.95"`` or a number above 0 and up to 1.
        name: Name of the limit, for the message (``"min-accuracy"``).

    Returns:
        The share, above 0 and up to 1.

    Raises:
        InputError: If the text is no such share.

    Example:
        >>> parse_share("95%", "min-accuracy")
        0.95
    """
    examples = "write a share above 0 and up to 1, for example '0.95', '95%' or '97.5%'"
    number, suffix = _parse(text, name, examples)
    share = number / 100 if suffix == "%" else number
    if suffix not in ("", "%") or share > 1:
        raise InputError(f"{name}: {text!r} is not a share; {examples}")
    return float(share)


def parse_latency(text: str, dense_seconds: float, name: str) -> float:
    """Read an upper limit on a latency: a time with its unit, or a share of the dense network's.

    Args:
        text: What the user wrote: ``"2ms"``, ``"350us"``, ``"0.5s"``, or ``"50%"``.
        dense_seconds: Latency of the dense network, in seconds.
        name: Name of the limit, for the message (``"max-latency"``).

    Returns:
        Seconds.

    Raises:
        InputError: If the text is no limit, has no unit, or is one that nothing (0) meets.

    Example:
        >>> [parse_latency(text, 0.01, "max-latency") for text in ("2ms", "350 us", "0.5s", "25%")]
        [0.002, 0.00035, 0.5, 0.0025]
    """
    examples = "write a time with its unit ('2ms', '350us', '0.5s') or a share of the dense network's ('50%')"
    match = _DURATION.fullmatch(str(text).strip())
    if match is None:
        raise InputError(f"{name}: {text!r} is not a latency; {examples}")
    digits, exponent, unit = match.groups()
    number = Fraction(digits) * Fraction(10) ** int(exponent or 0)
    if number == 0:
        raise InputError(f"{name}: {text!r} leaves nothing; {examples}")
    if unit == "%" and math.isnan(dense_seconds):
        raise InputError(f"{name}: the dense network's time is not known; write a time with its unit ('2ms', '0.5s')")
    return float(number * _SECONDS[unit]) if unit != "%" else float(number / 100) * dense_seconds


def parse_number(text: str | float, dense_value: float | None, name: str, write: Callable[[float], str] = str) -> float:
    """Read a limit on a plain number, or a share of the dense network's.

    Args:
        text: What the user wrote: ``0.1``, ``"1e-3"``, ``"-2"`` or, where the dense network has a value, ``"50%"``.
        dense_value: The value of the dense network; ``None`` where shares of it say nothing.
        name: Name of the limit, for the message.
        write: Writes a value, for the message.

    Returns:
        The number.

    Raises:
        InputError: If the text is no number.

    Example:
        >>> [parse_number(text, 8.0, "max-energy") for text in ("50%", "1e-3", 3)]
        [4.0, 0.001, 3.0]
    """
    examples = "write a number, such as '0.25'"
    if dense_value is not None:
        examples += f", or a share of the dense network's {write(dense_value)}, such as '50%'"
    plain = str(text).strip()
    share = plain.endswith("%") and dense_value is not None
    try:
        number = float(plain.removesuffix("%") if share else plain)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or isinstance(text, bool) or (share and number <= 0):
        raise InputError(f"{name}: {text!r} is not a limit; {examples}")
    return number / 100 * dense_value if share and dense_value is not None else number


def parse_drop(given: str | float) -> float:
    """Read a largest drop in quality.

    Args:
        given: Percentage points, with or without the sign: ``2`` or ``"2%"``.

    Returns:
        The drop as a share of the range from worst to ideal, above 0 and up to 1.

    Raises:
        InputError: If it is no such number.

    Example:
        >>> parse_drop("2%"), parse_drop(0.5)
        (0.02, 0.005)
    """
    try:
        points = float(str(given).strip().removesuffix("%"))
    except ValueError:
        points = -1.0
    if not 0 < points <= 100:
        raise InputError(
            f"max-drop: {given!r} is no drop; write percentage points above 0 and up to 100, such as 2 or 2%"
        )
    return points / 100


def parse_budget(text: str, name: str = "budget") -> float:
    """Read a budget of time.

    Args:
        text: What the user wrote: ``"8h"``, ``"90min"``, ``"300s"`` or ``"2d"``.
        name: What it is called, for the message.

    Returns:
        Seconds, above 0.

    Raises:
        InputError: If it is no such time.

    Example:
        >>> parse_budget("8h"), parse_budget("1.5 min")
        (28800.0, 90.0)
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{0,9})?)\s*(s|min|h|d)", str(text).strip())
    seconds = float(match[1]) * {"s": 1, "min": 60, "h": 3600, "d": 86400}[match[2]] if match else 0.0
    if seconds <= 0:
        raise InputError(f"{name}: {text!r} is no time; write a number with s, min, h or d, such as 8h or 90min")
    return seconds


def _parse(text: str | float, name: str, examples: str) -> tuple[Fraction, str]:
    # The positive number, exact (29 % of 100 must be 29, not 28.999…), and its suffix in lower case.
    match = _NUMBER.fullmatch(str(text).strip())
    if match is None or isinstance(text, bool):
        raise InputError(f"{name}: {text!r} is not a limit; {examples}")
    digits, exponent, suffix = match.groups()
    number = Fraction(digits) * Fraction(10) ** int(exponent or 0)
    if number == 0:
        raise InputError(f"{name}: {text!r} leaves nothing; {examples}")
    return number, suffix.lower()
