"""Widths for budgets, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Allotted:
    """Widths for one budget, and what they come to.

    Attributes:
        budget: Share of the dense network's cost that may be spent.
        widths: Kept units by name of group; 0 for groups that go with their residual block.
        flops: Multiply–accumulates for one input, counted on the network that was cut.
        params: Its parameters, counted.
        seconds: Seconds of one forward pass by the table; ``None`` where the budget is none of time.
        measured: Seconds of that network, timed whole; ``None`` likewise, and where it cannot be timed.
        damage: Sum of the measured damages of its groups, in units of the loss.
        quality: The quality metric of the network on validation, nothing trained.
        uniform: The same of the widest network within the budget whose groups all keep the same share.
        removed: Names of the residual blocks that go as a whole.
    """

    budget: float
    widths: Mapping[str, int]
    flops: int
    params: int
    seconds: float | None
    measured: float | None
    damage: float
    quality: float
    uniform: float
    removed: tuple[str, ...] = ()

    def settings(self, units: Mapping[str, int]) -> dict[str, Any]:
        """Write the widths as parameters of a method whose sparsity is given, such as ``magnitude``.

        Args:
            units: Units of the dense network by name of group.

        Returns:
            Values for ``paretoprune.prune(..., settings=...)``.
        """
        ratios = {f"sparsity.layers[{name}]": 1 - width / units[name] for name, width in self.widths.items() if width}
        return {"sparsity.mode": "layer"} | ratios | {f"sparsity.without[{name}]": True for name in self.removed}


@dataclass(frozen=True)
class Allotments:
    """Widths for several budgets.

    Attributes:
        resource: What the budgets are of.
        metric: Name of the quality metric.
        units: Units of the dense network by name of group.
        flops: Multiply–accumulates of the dense network.
        params: Its parameters.
        seconds: Its seconds on the target; ``None`` where the budgets are none of time.
        quality: Its quality on validation.
        rows: The allocations, in the order of the budgets.
    """

    resource: str
    metric: str
    units: Mapping[str, int]
    flops: int
    params: int
    seconds: float | None
    quality: float
    rows: tuple[Allotted, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything in JSON's types.

        Returns:
            The dense network, and every allocation with its settings.
        """
        rows = [asdict(row) | {"settings": row.settings(self.units)} for row in self.rows]
        return asdict(self) | {"rows": rows}
