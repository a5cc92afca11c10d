"""The port for samplers, which propose the points of a study.

A sampler is an object with two acts. :meth:`Sampler.observe` hears of every trial that was told, in order of number;
:meth:`Sampler.propose` answers what to try next. It is made for each sweep as ``Name(aim, seed)``, and made again when
the sweep is resumed: what it proposes may depend on its seed and on the trials alone, never on the clock or on objects
that live on, or a resumed sweep would ask other points than one that was never interrupted.

In a configuration, ``sampler = "package.module:Name"`` takes a sampler of somebody else's.

Example:
    A sampler that tries what the best trial so far did, at half the FLOPs::

        class Halving:
            def __init__(self, aim: Aim, seed: int) -> None:
                self.told: list[Tried] = []

            def observe(self, trial: Tried) -> None:
                self.told.append(trial)

            def propose(self, history, space, cost, n):
                ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from spaces import Space, Value

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """One objective, as a sampler sees it.

    Attributes:
        name: Its name in ``Tried.metrics``.
        maximise: Whether larger is better.
        quality: Whether it tells a good network from a small one; the others are costs.
        ideal: The best value that can be thought of.
        worst: The value that is worth nothing.
        dense: The dense network's value; ``None`` where it has none.
        examples: How many validation examples decide it, where it is a share of them; ``None`` for other quantities.
    """

    name: str
    maximise: bool
    quality: bool
    ideal: float
    worst: float
    dense: float | None = None
    examples: int | None = None


@dataclass(frozen=True)
class Limits:
    """What every network of a study must keep to, as counts; ``None`` where there is no limit.

    Attributes:
        min_flops: Least multiply–accumulates for one input.
        max_flops: Most multiply–accumulates.
        max_params: Most parameters.
        max_latency: Most seconds of one forward pass. What a point takes is learned; a trial that exceeds it is
            refused before it is trained.
    """

    min_flops: int | None = None
    max_flops: int | None = None
    max_params: int | None = None
    max_latency: float | None = None

    def is_met_by(self, flops: float, params: float) -> bool:
        """Tell whether a network is within the limits that are known before training.

        Args:
            flops: Its multiply–accumulates.
            params: Its parameters.

        Returns:
            Whether it is.
        """
        return (
            (self.min_flops is None or flops >= self.min_flops)
            and (self.max_flops is None or flops <= self.max_flops)
            and (self.max_params is None or params <= self.max_params)
        )

    def excesses(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Say by how much a network that was measured breaks each limit.

        Args:
            metrics: Its measurements by name.

        Returns:
            By name of the limit, as a share of it: above 0 where it is broken. Limits whose measurement is missing are
            left out.
        """
        found = {}
        for name, sign in (("min_flops", -1), ("max_flops", 1), ("max_params", 1), ("max_latency", 1)):
            limit, value = getattr(self, name), metrics.get(name.partition("_")[2])
            if limit is not None and value is not None:
                found[name] = sign * (value - limit) / limit
        return found

    def list_broken(self, metrics: Mapping[str, float]) -> list[str]:
        """Name the limits that a network which was measured breaks.

        Args:
            metrics: Its measurements by name.

        Returns:
            As users write them, such as ``"max-params"``.

        Example:
            >>> Limits(max_flops=500, max_params=30).list_broken({"flops": 400.0, "params": 31.0})
            ['max-params']
        """
        return [name.replace("_", "-") for name, excess in self.excesses(metrics).items() if excess > 0]

    @property
    def hard(self) -> bool:
        """Whether there is a limit that is known before training."""
        return (self.min_flops, self.max_flops, self.max_params) != (None, None, None)


@dataclass(frozen=True)
class Aim:
    """What a study searches for.

    Attributes:
        axes: The objectives, in the order of the study.
        limits: What every network must keep to.
        drop: Loss of quality at which a network is worth nothing, as a share of the range from worst to ideal.
        least: Share of the dense cost from which on cheaper is not better.
    """

    axes: tuple[Axis, ...]
    limits: Limits = field(default_factory=Limits)
    drop: float = 0.05
    least: float = 0.05

    @property
    def quality(self) -> Axis:
        """The objective that tells good networks from small ones (the first of them)."""
        return next(axis for axis in self.axes if axis.quality)


@dataclass(frozen=True)
class Tried:
    """One trial, as a sampler sees it.

    Attributes:
        number: Its number in the study; below 0 for a trial of an earlier study of the same problem.
        method: The method that it tried.
        point: The method's parameters, by their own names.
        state: ``"complete"``, ``"failed"``, ``"stopped"`` by a scheduler at a rung, or ``"running"`` while nothing is
            known of it (also while it waits at a rung).
        metrics: Measurements by name; empty unless it is complete.
    """

    number: int
    method: str
    point: Mapping[str, Value]
    state: Literal["complete", "failed", "stopped", "running"]
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PointCost:
    """What the network of a point costs, known before training.

    Attributes:
        flops: Multiply–accumulates for one input.
        params: Number of parameters.
    """

    flops: int
    params: int


class CostOf(Protocol):
    """Tells what a point costs before anything is trained."""

    def __call__(self, method: str, point: Mapping[str, Value]) -> PointCost | None:
        """Cost a point.

        Args:
            method: Name of the method.
            point: The method's parameters, by their own names.

        Returns:
            The exact cost; ``None`` where only training will tell.
        """


class ManyCosts(CostOf, Protocol):
    """Tells what many points cost at once, as far as that is known without a trial."""

    @property
    def dense(self) -> PointCost:
        """Cost of the dense network."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the channel groups; empty where points are not about widths."""

    def target(self, method: str) -> str | None:
        """Name the parameter of a method that asks for a share of the FLOPs.

        Args:
            method: Name of the method.

        Returns:
            Its own name of the parameter; ``None`` if it has none.
        """

    def find_band(self, limits: Limits) -> tuple[float, float]:
        """Say between which shares of the FLOPs a search looks.

        Args:
            limits: Limits of the study.

        Returns:
            The least and the largest share.
        """

    def ratios(self, mode: str, columns: Mapping[str, Floats], target: str | None) -> Floats | None:
        """Compute what many points of one mode remove.

        Args:
            mode: The value of ``sparsity.mode``; ``"target"`` for methods that have a share of the FLOPs alone.
            columns: Values by name of parameter, ``[candidates]`` each.
            target: The parameter that asks for a share of the FLOPs.

        Returns:
            Share of the units that is removed, ``[candidates, groups]``; ``None`` where that is not known.
        """

    def shares(self, ratios: Floats) -> Floats:
        """Cost many choices of ratios.

        Args:
            ratios: Share of the units that is removed, ``[candidates, groups]``.

        Returns:
            Share of the dense FLOPs and of the parameters that is left, ``[candidates, 2]``.
        """

    def cost_each(self, method: str, points: Sequence[Mapping[str, Value]]) -> Floats:
        """Cost points that no ratios describe.

        Args:
            method: Name of the method.
            points: Its parameters, by their own names.

        Returns:
            Share of the dense FLOPs, ``[points]``; not a number where it is not known, or not known quickly.
        """


@runtime_checkable
class Sampler(Protocol):
    """Proposes the points of a study."""

    def observe(self, trial: Tried) -> None:
        """Hear of a trial that was told; called once for each, in order of number.

        Args:
            trial: The trial, complete, failed or stopped.
        """

    def propose(self, history: Sequence[Tried], space: Space, cost: CostOf, n: int) -> list[dict[str, Value]]:
        """Propose points.

        Args:
            history: All trials so far, those that run included, by number.
            space: The whole space: ``method``, and each method's parameters under ``METHOD.``.
            cost: The exact cost of any point.
            n: How many points.

        Returns:
            Points of the space, ``n`` of them.
        """
