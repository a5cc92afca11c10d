"""Accuracy on the validation data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.objectives.base import Objective

if TYPE_CHECKING:
    from torch import Tensor, nn

    from methods.contract.data import Split
    from search.records.outcome import DenseRow


def measure(model: nn.Module, example: Tensor, validation: Split) -> float:
    """Measure the share of validation examples that the network classifies correctly.

    Args:
        model: The network.
        example: One input, ``[1, ...]``; not used.
        validation: The validation split.

    Returns:
        Accuracy, 0..1.
    """
    from methods.training.evaluation import evaluate

    return evaluate(model, validation).accuracy


def percent(value: float) -> str:
    """Write an accuracy in percent.

    Args:
        value: Accuracy, 0..1.

    Returns:
        Percent with two digits after the point.

    Example:
        >>> percent(0.97777)
        '97.78 %'
    """
    return f"{100 * value:.2f} %"


def _reference(dense: DenseRow) -> float:
    """Return the worst a classifier can be, whatever the dense network reaches."""
    return 0.0


ACCURACY = Objective(
    name="accuracy",
    title="validation accuracy",
    direction="maximise",
    unit="share of examples",
    ideal=1.0,
    reference=_reference,
    format=percent,
    measure=measure,
    quality=True,
    trained=True,
)
