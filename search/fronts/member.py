"""One pruned network beside its dense one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from search.objectives import Objective
from search.records.outcome import DenseRow, Outcome
from spaces import Value

if TYPE_CHECKING:
    from torch import nn

Rebuild = Callable[[int], "nn.Module"]
"""Rebuilds the pruned network of a trial, given its number."""


@dataclass(frozen=True)
class Member:
    """One pruned network beside its dense one.

    Attributes:
        trial: Number of the trial.
        method: Name of the pruning method.
        point: The method's parameters.
        metrics: All measurements by name.
        dense: The dense network of the study.
        test_metrics: Metrics of the task on the test set, once it was looked at.
        noisy: Whether the measurement of its latency scattered more than it should.
        shown: Descriptions of what was measured.
    """

    trial: int
    method: str
    point: Mapping[str, Value]
    metrics: Mapping[str, float]
    dense: DenseRow = field(repr=False)
    test_metrics: Mapping[str, float] = field(default_factory=dict)
    noisy: bool = False
    shown: tuple[Objective, ...] = field(default=(), repr=False, compare=False)
    _rebuild: Rebuild | None = field(default=None, repr=False, compare=False)
    _html: Callable[[Member], str] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_outcome(
        cls,
        outcome: Outcome,
        dense: DenseRow,
        rebuild: Rebuild | None = None,
        shown: tuple[Objective, ...] = (),
        html: Callable[[Member], str] | None = None,
    ) -> Self:
        """Set a complete outcome beside the dense network.

        Args:
            outcome: The outcome of a complete trial.
            dense: The dense network of its study.
            rebuild: Rebuilds the network of a trial; needed by :meth:`model` alone.
            shown: Descriptions of what was measured.
            html: Shows a network in a notebook.

        Returns:
            The member.
        """
        first = next(iter(outcome.timings.values()), None)
        return cls(
            trial=outcome.number,
            method=outcome.method,
            point=outcome.point,
            metrics=outcome.metrics,
            dense=dense,
            test_metrics=outcome.test_metrics,
            noisy="latency" in outcome.metrics and first is not None and first.noisy,
            shown=shown,
            _rebuild=rebuild,
            _html=html,
        )

    def share(self, name: str) -> float | None:
        """Relate a measurement to the dense network's.

        Args:
            name: Name of the measurement.

        Returns:
            The quotient; ``None`` where one of the two is not known, or the dense network's is 0.
        """
        own, whole = self.metrics.get(name), self.dense.metrics.get(name)
        return None if own is None or not whole else own / whole

    @property
    def accuracy(self) -> float:
        """Accuracy on validation, 0..1; a ``KeyError`` where the task has none."""
        return self.metrics["accuracy"]

    @property
    def flops(self) -> int:
        """Multiply–accumulates for one input."""
        return round(self.metrics["flops"])

    @property
    def flops_share(self) -> float:
        """Share of the dense network's FLOPs."""
        return self.flops / self.dense.flops

    @property
    def params(self) -> int:
        """Number of parameters."""
        return round(self.metrics["params"])

    @property
    def params_share(self) -> float:
        """Share of the dense network's parameters."""
        return self.params / self.dense.params

    @property
    def seconds(self) -> float:
        """Seconds that pruning and fine-tuning took."""
        return self.metrics["seconds"]

    @property
    def latency(self) -> float | None:
        """Seconds of one forward pass on the first target, where it was measured."""
        return self.metrics.get("latency") if self.dense.latency is not None else None

    @property
    def latency_share(self) -> float | None:
        """Share of the dense network's latency."""
        return self.share("latency")

    @property
    def efficiency(self) -> float | None:
        """Speed-up divided by the factor of FLOPs saved: 1 when half the FLOPs take half the time."""
        return None if self.latency_share is None else self.flops_share / self.latency_share

    @property
    def test_accuracy(self) -> float | None:
        """Accuracy on the test set in 0..1, once it was looked at and where the task has one."""
        return self.test_metrics.get("accuracy")

    def _repr_html_(self) -> str | None:
        """Show the network in a notebook; as text where its front was made without a way to."""
        return None if self._html is None else self._html(self)

    def model(self) -> nn.Module:
        """Rebuild the pruned network with its trained weights.

        Returns:
            The network, smaller than the dense one, in eval mode.

        Raises:
            ValueError: If the front was made without a way to the stored networks.
        """
        if self._rebuild is None:
            raise ValueError("this front holds numbers alone; load_front gives one that can rebuild networks")
        return self._rebuild(self.trial)
