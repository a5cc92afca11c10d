"""What a measurement of latency says: quartiles of the dense and the pruned network side by side. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any, Self

NOISE = 0.05
"""Interquartile range, as a share of the median, above which a measurement is repeated and then marked."""


@dataclass(frozen=True)
class Quartiles:
    """Seconds of one forward pass, over the rounds of a measurement.

    Attributes:
        low: A quarter of the rounds were faster, in seconds.
        median: Half of the rounds were faster.
        high: A quarter of the rounds were slower.
    """

    low: float
    median: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.median <= self.high < math.inf:
            raise ValueError(f"quartiles {self.low}, {self.median}, {self.high} are not those of durations")

    @classmethod
    def from_seconds(cls, seconds: Sequence[float]) -> Self:
        """Sum up the rounds of a measurement.

        Args:
            seconds: Seconds of one forward pass in each round, two rounds or more.

        Returns:
            Their quartiles.

        Example:
            >>> Quartiles.from_seconds([4.0, 1.0, 2.0, 3.0, 5.0])
            Quartiles(low=2.0, median=3.0, high=4.0)
        """
        low, middle, high = quantiles(seconds, n=4, method="inclusive")
        return cls(low, middle, high)

    @property
    def spread(self) -> float:
        """Interquartile range as a share of the median."""
        return (self.high - self.low) / self.median


@dataclass(frozen=True)
class Timing:
    """The dense and a pruned network on one target, measured in turns.

    Attributes:
        dense: The dense network.
        pruned: The pruned network.
        share: Time of the pruned network as a share of the dense one's: the median over rounds of the quotient
            within a round, so that a machine that gets slower in between slows both.
        rounds: How many rounds were measured.
        noisy: Whether the interquartile range of either is above :data:`NOISE` of its median, after repetition.
    """

    dense: Quartiles
    pruned: Quartiles
    share: float
    rounds: int
    noisy: bool

    @classmethod
    def from_seconds(cls, dense: Sequence[float], pruned: Sequence[float]) -> Self:
        """Compare two networks that were measured in turns.

        Args:
            dense: Seconds of the dense network in each round.
            pruned: Seconds of the pruned network in the same rounds.

        Returns:
            The comparison.

        Example:
            >>> timing = Timing.from_seconds(dense=[2.0, 4.0, 2.0], pruned=[1.0, 2.0, 1.0])
            >>> timing.share, timing.noisy
            (0.5, True)
        """
        first, second = Quartiles.from_seconds(dense), Quartiles.from_seconds(pruned)
        share = median(p / d for d, p in zip(dense, pruned, strict=True))
        return cls(first, second, share, len(dense), max(first.spread, second.spread) > NOISE)

    def efficiency(self, flops_share: float) -> float:
        """Relate the speed-up to the saving.

        Args:
            flops_share: FLOPs of the pruned network as a share of the dense one's.

        Returns:
            ``(dense seconds / pruned seconds) / (dense FLOPs / pruned FLOPs)``: 1 when half the FLOPs take half
            the time, less when the saving is not seen by the stopwatch.

        Example:
            >>> Timing.from_seconds([2.0, 2.0], [1.5, 1.5]).efficiency(0.5) == 0.5 / 0.75
            True
        """
        return flops_share / self.share

    def to_json(self) -> dict[str, Any]:
        """Return the comparison in JSON's types.

        Returns:
            A mapping that :meth:`from_json` reads.
        """
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote; keys of later versions are passed over.

        Args:
            data: The parsed JSON object.

        Returns:
            The comparison.
        """
        return cls(
            dense=_quartiles(data["dense"]),
            pruned=_quartiles(data["pruned"]),
            share=float(data["share"]),
            rounds=int(data["rounds"]),
            noisy=bool(data["noisy"]),
        )


def _quartiles(data: Mapping[str, Any]) -> Quartiles:
    return Quartiles(float(data["low"]), float(data["median"]), float(data["high"]))
