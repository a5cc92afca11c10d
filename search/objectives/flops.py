"""FLOPs: multiply–accumulates for one input, counted on the cut network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.objectives.base import Objective

if TYPE_CHECKING:
    from torch import Tensor, nn

    from methods.contract.data import Split
    from search.records.outcome import DenseRow

_SUFFIXES = "kMGT"


def measure(model: nn.Module, example: Tensor, validation: Split) -> float:
    """Count the multiply–accumulates of one forward pass.

    Args:
        model: The network.
        example: One input, ``[1, ...]``.
        validation: The validation split; not used.

    Returns:
        Multiply–accumulates for one input.
    """
    from methods.network.cost import count

    return float(count(model, example).flops)


def human(value: float) -> str:
    """Write a count with three significant digits and k, M, G or T.

    Args:
        value: The count, ``>= 0``.

    Returns:
        The text.

    Example:
        >>> [human(n) for n in (640, 77_850, 999_950, 125_485_706, 4.09e9)]
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


def _reference(dense: DenseRow) -> float:
    """Return the dense cost: a network as costly has saved nothing."""
    return float(dense.flops)


FLOPS = Objective(
    name="flops",
    title="FLOPs",
    direction="minimise",
    unit="multiply–accumulates for one input",
    ideal=0.0,
    reference=_reference,
    format=human,
    measure=measure,
)
