"""How each arm of the comparison chooses its widths, and what a seed changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from methods.contract.data import Batch, Split
from methods.contract.inputs import call
from methods.contract.method import Problem
from methods.contract.recipe import derive_seed
from methods.network.channels import cut
from methods.network.cost import CostModel
from methods.network.importance import l1_importance
from methods.training.damage import BATCH, BATCHES
from methods.training.evaluation import evaluation_mode, recalibrate
from methods.training.one_shot import keep_top
from search.records.outcome import Outcome
from search.store.analyses import StoredAnalyses, analysis_identity
from search.trials.trial import Setting
from spaces import InputError, LayerGroup, Value
from spaces.sparsity import FlopsTarget, PerLayer

ARMS = ("uniform", "tilt", "damage", "blocks", "search")
"""In the order of the table."""

TILTS = (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6)
"""Tilts that are tried, at equal FLOPs."""

NEAR = 0.75
"""A trial of the sweep speaks for a share if it spends at least so much of it."""


@dataclass(frozen=True)
class Shuffled:
    """A training split whose epochs have another order and other augmentations.

    Attributes:
        split: The split.
        seed: Which others.
    """

    split: Split
    seed: int

    @property
    def examples(self) -> int:
        """How many examples the split holds."""
        return self.split.examples

    def to(self, device: str) -> Split:
        """Move the split to a device.

        Args:
            device: ``"cpu"`` or ``"cuda"``.

        Returns:
            The same order, there.
        """
        return Shuffled(self.split.to(device), self.seed)

    def steps(self, batch_size: int) -> int:
        """Count the batches of an epoch.

        Args:
            batch_size: Examples per batch.

        Returns:
            The split's own count.
        """
        return self.split.steps(batch_size)

    def epoch(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Return an epoch of the split.

        Args:
            batch_size: Examples per batch.
            seed: Seed of the epoch.
            start: First batch.

        Returns:
            The batches of another seed.
        """
        return self.split.epoch(batch_size, derive_seed(seed, self.seed), start)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Return every example once, in stored order.

        Args:
            batch_size: Examples per batch.

        Returns:
            The split's own batches.
        """
        return self.split.batches(batch_size)


def make_setting(setting: Setting, store: Path, seed: int) -> Setting:
    """Give a setting the training images of a seed, with analyses of their own.

    Args:
        setting: What all networks share.
        store: The run store.
        seed: The seed.

    Returns:
        The setting.
    """
    identity = analysis_identity(setting.model, {"allocation": f"{setting.analyses} {seed}"})
    analyses = StoredAnalyses(store / "analyses", identity)
    return replace(setting, train=Shuffled(setting.train, seed), analyses=analyses)


def measure_after_cut(problem: Problem, kept: Mapping[str, int]) -> float:
    """Measure the quality that a choice of widths leaves, on the images that damages are measured on.

    Args:
        problem: The network and the data.
        kept: Kept units by name of group.

    Returns:
        The task's quality after the cut, batch norm estimated again.
    """
    units = {group.name: keep_top(l1_importance(problem.model, group), kept[group.name]) for group in problem.groups}
    smaller = cut(problem.model, problem.groups, units)
    recalibrate(smaller, problem.train, BATCHES, BATCH, seed=1)
    sums: dict[str, Tensor] = {}
    with evaluation_mode(smaller), torch.no_grad():
        for inputs, target in islice(problem.train.epoch(BATCH, 0), BATCHES):
            found = problem.task.sums(problem.task.output(call(smaller, inputs)), target)
            sums = {name: sums.get(name, 0.0) + each for name, each in found.items()}
    return problem.task.metrics_from(sums)[problem.task.quality.name]


def find_tilt(problem: Problem, share: float) -> float:
    """Find the tilt whose network is the best after the cut.

    Args:
        problem: The network and the data.
        share: Share of the FLOPs.

    Returns:
        One of :data:`TILTS`; those with which the share cannot be reached are passed over.
    """
    layers = [group.layer for group in problem.groups]
    found: tuple[float, float] | None = None
    for tilt in sorted(TILTS, key=abs):  # of equal ones the smallest
        try:
            kept = FlopsTarget(flops=share, tilt=tilt).keep(layers, problem.cost.flops)
        except InputError:
            continue
        quality = measure_after_cut(problem, kept)
        if found is None or problem.task.quality.is_better(quality, found[1]):
            found = tilt, quality
    if found is None:
        raise InputError(f"no tilt reaches {share:.1%} of the FLOPs")
    return found[0]


def raise_level(point: Mapping[str, Value], layers: Sequence[LayerGroup], cost: CostModel, share: float) -> float:
    """Find the largest level whose network keeps to a share of the FLOPs.

    Args:
        point: A trial of the sweep, with level and offsets.
        layers: The groups.
        cost: What widths cost.
        share: The share.

    Returns:
        The level, to within 1e-6.
    """
    offsets = {
        name.partition("[")[2].rstrip("]"): float(value)
        for name, value in point.items()
        if name.startswith("sparsity.layer_offsets[")
    }
    low, high = 0.01, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        kept = PerLayer(level=middle, layer_offsets=offsets).keep(layers, cost.flops)
        low, high = (middle, high) if cost.flops(kept) <= share * cost.dense else (low, middle)
    return low


def choose_trial(outcomes: Sequence[Outcome], dense: int, share: float) -> Outcome:
    """Choose the trial of a sweep that speaks for a share of the FLOPs.

    Args:
        outcomes: Complete trials.
        dense: FLOPs of the dense network.
        share: The share.

    Returns:
        The most accurate one of those that spend between :data:`NEAR` of it and all of it; of all that keep to it,
        where there is none.

    Raises:
        InputError: If every trial costs more.
    """
    within = [each for each in outcomes if each.metrics["flops"] <= share * dense]
    if not within:
        raise InputError(f"no trial of the search has at most {share:.1%} of the FLOPs")
    near = [each for each in within if each.metrics["flops"] >= NEAR * share * dense]
    return max(near or within, key=lambda each: each.metrics["accuracy"])
