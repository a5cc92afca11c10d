"""Latency: measured seconds of one forward pass, beside the dense network. The trial itself holds the watch.

See ``search.speed.measure`` for how it is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.objectives.base import Objective

if TYPE_CHECKING:
    from search.records.outcome import DenseRow

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def written(value: float) -> str:
    """Write a latency with three significant digits.

    Args:
        value: Seconds, ``>= 0``.

    Returns:
        The text, in s, ms or us.

    Example:
        >>> [written(seconds) for seconds in (1.5, 0.0123, 0.0009999, 47e-6, 0.0)]
        ['1.50 s', '12.3 ms', '1.00 ms', '47.0 us', '0 s']
    """
    if value == 0:
        return "0 s"
    # 999.9 us is written with three digits as "1.00 ms".
    size, unit = next(((size, unit) for size, unit in _UNITS if value >= 0.9995 * size), _UNITS[-1])
    scaled = value / size
    digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
    return f"{scaled:.{digits}f} {unit}"


def _reference(dense: DenseRow) -> float:
    """Return the dense network's latency: a network as slow has saved nothing."""
    if dense.latency is None:
        raise ValueError("the dense network of this study was not timed")
    return dense.latency


LATENCY = Objective(
    name="latency",
    title="latency",
    direction="minimise",
    unit="s",
    ideal=0.0,
    reference=_reference,
    format=written,
)
