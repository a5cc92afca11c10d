"""Number of parameters of the cut network."""

from __future__ import annotations

from search.objectives.base import MeasureContext, Objective


def measure(context: MeasureContext) -> float:
    """Count the parameters.

    Args:
        context: The network.

    Returns:
        Number of parameters.
    """
    return float(sum(parameter.numel() for parameter in context.model.parameters()))


PARAMS = Objective(
    name="params",
    title="parameters",
    direction="minimise",
    unit="parameters",
    style="count",
    heading="params",
    measure=measure,
)
