"""What a search optimises: the description of one objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from methods.contract.data import Split
    from methods.contract.method import Method
    from search.records.outcome import DenseRow

Measure = Callable[["nn.Module", "Tensor", "Split"], float]
"""Measures a finished network, given one input ``[1, ...]`` and the validation split."""


@dataclass(frozen=True)
class Objective:
    """One quantity of a pruned network that is maximised or minimised.

    Attributes:
        name: Key of the value in ``Outcome.metrics``.
        title: The name in words, for axes and headings.
        direction: ``"maximise"`` or ``"minimise"``.
        unit: Unit of the value.
        ideal: Best value that can be thought of: counts 1 in the hypervolume.
        reference: Worst acceptable value, given the dense network: counts 0 in the hypervolume.
        format: The value as text with its unit, for tables.
        measure: Measures a finished network; ``None`` when the value is known from the trial itself.
        reported_by: Tells whether a method reports the value itself, in ``Pruned.extra`` under the objective's name;
            ``None`` for values that do not come from the method.
        quality: Whether it tells a good network from a small one. A search needs one such objective, or the
            smallest network always wins.
        trained: Whether fine-tuning changes it. A study without any such objective does not fine-tune.
    """

    name: str
    title: str
    direction: Literal["maximise", "minimise"]
    unit: str
    ideal: float
    reference: Callable[[DenseRow], float]
    format: Callable[[float], str]
    measure: Measure | None = None
    reported_by: Callable[[type[Method]], bool] | None = None
    quality: bool = False
    trained: bool = False

    @property
    def maximise(self) -> bool:
        """Whether larger is better."""
        return self.direction == "maximise"

    def gain(self, value: float, dense: DenseRow) -> float:
        """Normalise a value so that 0 is the worst acceptable and 1 the ideal one.

        Args:
            value: The measured value.
            dense: The dense network of the study.

        Returns:
            The gain: 1 at :attr:`ideal`, 0 at :attr:`reference`, negative beyond it.
        """
        worst = self.reference(dense)
        return (value - worst) / (self.ideal - worst)
