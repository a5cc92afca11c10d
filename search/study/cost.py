"""What points of a study's space cost before anything is trained, one by one exactly and many at once nearly so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from methods import load_method
from methods.contract.method import Problem
from search.study.build import build_method
from search.study.samplers.base import Limits, PointCost
from search.study.space import LEVEL
from spaces import InputError, Value
from spaces.layers import HIGHEST_RATIO, round_down_width

Floats = NDArray[np.float64]

NARROWEST = 0.05
"""Least share of the FLOPs that is looked at without a limit."""

WIDEST = 0.9
"""Largest share that is looked at without a limit: what is larger saves next to nothing."""

HALVINGS = 20
"""Bisections of a base ratio: far below one unit of any layer."""


class PointCosts:
    """Costs the points of a study's methods: a :class:`search.study.samplers.base.CostOf` with more to it.

    Args:
        problem: The dense network, with its groups and its cost model.
        round_to: Widths are multiples of this in methods that round them.
        analysed: Whether the dense network may be analysed for it, which takes as long as a trial's own analysis and is
            shared with the trials.
    """

    def __init__(self, problem: Problem, round_to: int = 1, analysed: bool = False) -> None:
        self.groups = [group.layer for group in problem.groups]
        self._problem = problem
        self._round_to = round_to
        self._analysed = analysed
        self._model = problem.cost
        self._channels = np.array([group.channels for group in self.groups], dtype=np.int64)
        self._depth = np.array([group.depth for group in self.groups])
        flops, params = self._model.batch(self._channels[None])
        self.dense = PointCost(int(flops[0]), int(params[0]))
        narrowest = np.array([
            [round_down_width(group.channels * (1 - HIGHEST_RATIO), group.channels, round_to) for group in self.groups]
        ])
        flops, params = self._model.batch(narrowest)
        self.least = PointCost(int(flops[0]), int(params[0]))
        self._known: dict[tuple[str, str], PointCost | None] = {}

    def __call__(self, method: str, point: Mapping[str, Value]) -> PointCost | None:
        """Cost the network that a point will come to.

        Args:
            method: Name of the method.
            point: The method's parameters, by their own names.

        Returns:
            The exact cost; ``None`` where only training tells it, or a costly analysis, or where the point is
            impossible.
        """
        key = (method, json.dumps(dict(point), sort_keys=True))
        if key not in self._known:
            self._known[key] = self._preview(method, point)
        return self._known[key]

    def _preview(self, method: str, point: Mapping[str, Value]) -> PointCost | None:
        try:
            built = build_method(method, point, self._round_to)
            found = None if built.has_costly_preview and not self._analysed else built.preview(self._problem)
        except InputError:
            return None
        return None if found is None else PointCost(found.flops, found.params)

    @property
    def names(self) -> Sequence[str]:
        """Names of the channel groups."""
        return [group.name for group in self.groups]

    def target(self, method: str) -> str | None:
        """Name the parameter of a method that asks for a share of the FLOPs.

        Args:
            method: Name of the method.

        Returns:
            Its own name of the parameter; ``None`` if it has none.
        """
        return load_method(method).flops_parameter

    def find_band(self, limits: Limits) -> tuple[float, float]:
        """Say between which shares of the FLOPs a search looks.

        Args:
            limits: Limits of the study.

        Returns:
            The least and the largest share; without limits :data:`NARROWEST` and :data:`WIDEST`.
        """
        low = NARROWEST if limits.min_flops is None else max(limits.min_flops / self.dense.flops, 1e-4)
        high = WIDEST if limits.max_flops is None else min(limits.max_flops / self.dense.flops, 1.0)
        return min(low, high / 1.05), max(high, low * 1.05) if limits.max_flops is None else high

    # --- many at once -------------------------------------------------------------------------------------------

    def shares(self, ratios: Floats) -> Floats:
        """Cost many choices of ratios.

        Args:
            ratios: Share of the units that is removed, ``[candidates, groups]``.

        Returns:
            Share of the dense FLOPs and of the parameters that is left, ``[candidates, 2]``; widths are rounded to
            the nearest unit, whatever the methods round to.
        """
        kept = np.maximum(np.rint(self._channels * (1 - ratios)), 1).astype(np.int64)
        flops, params = self._model.batch(kept)
        return np.column_stack([flops / self.dense.flops, params / self.dense.params])

    def cost_each(self, method: str, points: Sequence[Mapping[str, Value]]) -> Floats:
        """Leave points that no ratios describe to the surrogate: one by one they take milliseconds.

        Args:
            method: Name of the method.
            points: Its parameters, by their own names.

        Returns:
            Not a number, ``[points]``.
        """
        return np.full(len(points), np.nan)

    def ratios(self, mode: str, columns: Mapping[str, Floats], target: str | None) -> Floats | None:
        """Compute the ratios of many points of one mode.

        Args:
            mode: The value of ``sparsity.mode``; ``"target"`` for methods that have a share of the FLOPs alone.
            columns: Values by name of parameter, ``[candidates]`` each.
            target: The parameter that asks for a share of the FLOPs.

        Returns:
            Share of the units that is removed, ``[candidates, groups]``; ``None`` for modes whose ratios follow from
            the weights or the data.
        """
        if mode in ("flops", "target") and target is not None:
            share = columns[target]
            tilt = columns.get("sparsity.tilt", np.zeros_like(share))
            return self._find_ratios(share, tilt[:, None] * (self._depth - 0.5)[None])
        if mode == "uniform":
            return np.repeat(columns["sparsity.ratio"][:, None], len(self.groups), axis=1)
        if mode in ("stage", "layer"):
            names = [
                f"sparsity.stage_offsets[{group.stage}]" if mode == "stage" else f"sparsity.layer_offsets[{group.name}]"
                for group in self.groups
            ]
            offsets = np.column_stack([columns[name] for name in names])
            shares = columns[LEVEL][:, None] * 2.0**offsets
            return 1 - shares.clip(1 - HIGHEST_RATIO, 1)
        return None

    def _find_ratios(self, share: Floats, lean: Floats) -> Floats:
        """Find the ratios ``base + lean`` that leave the wanted shares of the FLOPs, by bisection of all bases."""
        wide = np.full(len(share), -float(np.abs(lean).max(initial=0.0)))
        narrow = HIGHEST_RATIO - wide
        for _ in range(HALVINGS):
            base = (wide + narrow) / 2
            costly = self._smooth((base[:, None] + lean).clip(0, HIGHEST_RATIO)) > share
            wide, narrow = np.where(costly, base, wide), np.where(costly, narrow, base)
        return (narrow[:, None] + lean).clip(0, HIGHEST_RATIO)

    def _smooth(self, ratios: Floats) -> Floats:
        """Return the share of the FLOPs at widths rounded down."""
        kept = np.maximum(np.floor(self._channels * (1 - ratios)), 1).astype(np.int64)
        return np.asarray(self._model.batch(kept)[0] / self.dense.flops)
