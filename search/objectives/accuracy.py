"""Accuracy on the validation data."""

from __future__ import annotations

from search.objectives.base import MeasureContext, Objective


def measure(context: MeasureContext) -> float:
    """Look up the share of validation examples that the network classifies correctly.

    Args:
        context: The network and the validation data.

    Returns:
        Accuracy, 0..1.
    """
    return context.metrics["accuracy"]


ACCURACY = Objective(
    name="accuracy",
    title="validation accuracy",
    direction="maximise",
    unit="share of examples",
    style=".2%",
    heading="accuracy",
    ideal=1.0,
    worst=0.0,  # the worst a classifier can be, whatever the dense network reaches
    measure=measure,
    quality=True,
    trained=True,
)
