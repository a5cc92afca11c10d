"""Intervals of means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import stdev

CONFIDENCE = 0.95
"""Of the intervals."""


def half_width(values: Sequence[float]) -> float:
    """Return half the width of the interval of a mean (Student's t).

    Args:
        values: One number per seed.

    Returns:
        The half width at :data:`CONFIDENCE`; NaN for fewer than two numbers.

    Example:
        >>> round(half_width([0.9, 0.92, 0.94]), 4)
        0.0497
    """
    if len(values) < 2:
        return math.nan
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
