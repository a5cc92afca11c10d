"""Number of parameters of the cut network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.objectives.base import Objective
from search.objectives.flops import human

if TYPE_CHECKING:
    from torch import Tensor, nn

    from methods.contract.data import Split
    from search.records.outcome import DenseRow


def measure(model: nn.Module, example: Tensor, validation: Split) -> float:
    """Count the parameters.

    Args:
        model: The network.
        example: One input, ``[1, ...]``; not used.
        validation: The validation split; not used.

    Returns:
        Number of parameters.
    """
    return float(sum(parameter.numel() for parameter in model.parameters()))


def _reference(dense: DenseRow) -> float:
    """Return the dense size: a network as large has saved nothing."""
    return float(dense.params)


PARAMS = Objective(
    name="params",
    title="parameters",
    direction="minimise",
    unit="parameters",
    ideal=0.0,
    reference=_reference,
    format=human,
    measure=measure,
)
