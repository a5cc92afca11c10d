"""FLOPs: multiply–accumulates for one input, counted on the cut network."""

from __future__ import annotations

from search.objectives.base import MeasureContext, Objective


def measure(context: MeasureContext) -> float:
    """Count the multiply–accumulates of one forward pass.

    Args:
        context: The network and one input.

    Returns:
        Multiply–accumulates for one input.
    """
    from methods.network.cost import count

    return float(count(context.model, context.example).flops)


FLOPS = Objective(
    name="flops",
    title="FLOPs",
    direction="minimise",
    unit="multiply–accumulates for one input",
    style="count",
    measure=measure,
)
