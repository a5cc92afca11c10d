"""Numbers as people read them: shares, counts, latencies, durations."""

from __future__ import annotations

_SUFFIXES = "kMGT"
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def write_percent(value: float, digits: int = 2) -> str:
    """Write a share in percent.

    Args:
        value: The share; 1 is the whole.
        digits: Digits after the point.

    Returns:
        The text, with a blank before the sign.

    Example:
        >>> write_percent(0.97777), write_percent(0.5, digits=1)
        ('97.78 %', '50.0 %')
    """
    return f"{100 * value:.{digits}f} %"


def write_count(value: float) -> str:
    """Write a count with three significant digits and k, M, G or T.

    Args:
        value: The count, ``>= 0``.

    Returns:
        The text.

    Example:
        >>> [write_count(n) for n in (640, 77_850, 999_950, 125_485_706, 4.09e9)]
        ['640', '77.8 k', '1.00 M', '125 M', '4.09 G']
    """
    if value < 999.5:
        return f"{value:.0f}"
    power = 1
    # 999,500 is written with three digits as "1.00 M", not as "1000 k".
    while value / 1000**power >= 999.5 and power < len(_SUFFIXES):
        power += 1
    scaled = value / 1000**power
    digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
    return f"{scaled:.{digits}f} {_SUFFIXES[power - 1]}"


def write_latency(value: float) -> str:
    """Write a latency with three significant digits.

    Args:
        value: Seconds, ``>= 0``.

    Returns:
        The text, in s, ms or us.

    Example:
        >>> [write_latency(seconds) for seconds in (1.5, 0.0123, 0.0009999, 47e-6, 0.0)]
        ['1.50 s', '12.3 ms', '1.00 ms', '47.0 us', '0 s']
    """
    if value == 0:
        return "0 s"
    # 999.9 us is written with three digits as "1.00 ms".
    size, unit = next(((size, unit) for size, unit in _UNITS if value >= 0.9995 * size), _UNITS[-1])
    scaled = value / size
    digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
    return f"{scaled:.{digits}f} {unit}"


def write_duration(value: float) -> str:
    """Write seconds so that the eye can weigh them.

    Args:
        value: Seconds, ``>= 0``.

    Returns:
        The text.

    Example:
        >>> [write_duration(s) for s in (0.42, 7.26, 83.0, 4000.0)]
        ['0.4 s', '7.3 s', '1 min 23 s', '1 h 07 min']
    """
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    hours, minutes = divmod(round(value / 60), 60)
    return f"{hours} h {minutes:02d} min"
