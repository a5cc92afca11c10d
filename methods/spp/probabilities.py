"""The hook of SPP: probabilities of being left out that rise with weakness, and a thinned network in every step.

Equation numbers are those of :mod:`methods.spp.method`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from methods.contract.method import Record
from methods.network.thinning import Thinning
from methods.network.units import Scored
from methods.ranked.ranking import Increment, Standing, force_removals, ranks
from methods.training.trainer import Hook

CERTAIN = 1 - 1e-6
"""A probability that counts as 1: sums of steps miss it by rounding."""


@dataclass(frozen=True)
class Plan:
    """How the time before the cut is used.

    Attributes:
        probability_step: Largest change of a probability per update (``A``).
        update_interval: Optimiser steps between updates (``t``).
        prune_steps: Optimiser steps in which removals happen.
    """

    probability_step: float
    update_interval: int
    prune_steps: int


def sample_participants(probability: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the units that take part in a step (equation 2).

    Args:
        probability: Probability of each unit of being left out, any shape; 0 and 1 are certain.
        generator: Where from; on the device of the probabilities.

    Returns:
        Which units take part, same shape; nothing is rescaled by ``1 / (1 - p)``.
    """
    return torch.rand(probability.shape, generator=generator, device=probability.device) >= probability


def update_probabilities(
    standing: Standing,
    score: Tensor,
    valid: Tensor,
    to_remove: Tensor,
    probability_step: Tensor,
    increment: Increment,
    average: Callable[[Tensor, Tensor], Tensor],
) -> Standing:
    """Rank the survivors, move their probabilities, remove those that arrive at 1 (equation 4): all layers at once.

    Args:
        standing: Before the update; ``penalty`` is the probability of being left out.
        score: Importance of the units (L1 norms), ``[layers, units]``.
        valid: Which entries are units, ``[layers, units]``.
        to_remove: How many units each layer loses in all, ``[layers, 1]``.
        probability_step: Largest change of a probability (``A``), ``[layers, 1]``.
        increment: Change by rank, in units of ``probability_step`` (equation 3).
        average: Merges averaged and present ranks.

    Returns:
        After the update. No layer ever loses more than ``to_remove``: only so many probabilities rise. Removed
        units, and survivors of a layer that is done, have probability 0 here: nothing moves them any more.
    """
    alive = valid & ~standing.removed
    gone = standing.removed.sum(1, keepdim=True)
    to_go = to_remove - gone
    rank = average(standing.rank, ranks(score, alive))
    counts = (to_go.clamp_min(1), alive.sum(1, keepdim=True), gone / to_remove.clamp_min(1))
    change = increment(ranks(rank, alive).double(), *(count.double() for count in counts))
    probability = (standing.penalty + probability_step * change).clamp(0, 1)
    removed = standing.removed | (alive & (to_go > 0) & (probability >= CERTAIN))
    unfinished = to_remove > removed.sum(1, keepdim=True)
    return Standing(torch.where(alive & ~removed & unfinished, probability, 0.0), rank, removed)


class Probabilities(Hook):
    """Keeps the standing of all units and draws those of each step.

    Args:
        table: The units.
        names: Name of each row of the table.
        to_remove: Units to be removed from each row.
        plan: When to update and when to be done.
        thinning: Leaves units out.
        increment: Change of a probability by rank, in units of the plan's step (equation 3).
        average: ``(average so far, present ranks, number of updates)`` to averaged ranks.
        seed: Decides all draws.
        rates: What the plan's step is multiplied with in each row.
        measure: Removed units to numbers for the record of an epoch; may wait for the device.
        settle: Called with the number of steps taken before the network is evaluated, in which no unit is left out
            but those that are removed.
    """

    def __init__(
        self,
        table: Scored,
        names: Sequence[str],
        to_remove: Sequence[int],
        plan: Plan,
        thinning: Thinning,
        increment: Increment,
        average: Callable[[Tensor, Tensor, int], Tensor],
        seed: int,
        rates: Sequence[float] | None = None,
        measure: Callable[[Tensor], Record] = lambda removed: {},
        settle: Callable[[int], None] = lambda step: None,
    ) -> None:
        self.table, self.names, self.plan, self.thinning = table, list(names), plan, thinning
        self._increment, self._average, self._measure, self._settle = increment, average, measure, settle
        device = table.valid.device
        self.to_remove = torch.tensor(to_remove, device=device)[:, None]
        rates = [1.0] * len(to_remove) if rates is None else rates
        self._steps_of_rows = plan.probability_step * torch.tensor(rates, dtype=torch.float64, device=device)[:, None]
        self._largest_step = plan.probability_step * max(rates)
        # Doubles: the change at rank ``to_go`` is zero but for rounding, and must not carry a unit over the edge.
        zeros = torch.zeros(table.valid.shape, dtype=torch.float64, device=device)
        self.standing = Standing(zeros, zeros.clone(), torch.zeros_like(table.valid))
        self.updates, self.finished = 0, not any(to_remove)
        self._generator = torch.Generator(device).manual_seed(seed)
        self._optimizer: torch.optim.Optimizer | None = None
        self._thinned = False
        self._steps = 0
        self._forced = torch.zeros((), dtype=torch.long, device=device)

    @property
    def probability(self) -> Tensor:
        """Probability of each unit of being left out, ``[layers, widest]``; 1 for removed ones."""
        return self.standing.penalty.masked_fill(self.standing.removed, 1.0)

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """Learn whose memory of units that are left out stands still.

        Args:
            optimizer: Who takes the steps.
        """
        self._optimizer = optimizer

    def before_batch(self, step: int) -> None:
        """Leave units out, the same ones for all pieces of the batch.

        Args:
            step: Index of the step.
        """
        if self.updates > 0:  # before the first update all probabilities are zero
            self.thinning.begin(sample_participants(self.probability, self._generator))
            self._thinned = True

    def before_step(self, step: int, lr: float) -> None:
        """Note what the optimiser must not change.

        Args:
            step: Index of the step.
            lr: Learning rate of the step.
        """
        if self._thinned and self._optimizer is not None:
            self.thinning.hold(self._optimizer)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Put back what was left out; update the probabilities when it is time.

        Args:
            step: Index of the step.
        """
        self._steps = step + 1
        if self._thinned:
            self.thinning.end(~self.standing.removed)
            self._thinned = False
        if self._steps % self.plan.update_interval == 0 and self._steps <= self.plan.prune_steps:
            self._update()
        if self._steps == self.plan.prune_steps:
            self._force()

    def before_evaluation(self) -> None:
        """Do what has to be done to a network that was thinned before its accuracy is taken."""
        self._settle(self._steps)

    def _update(self) -> None:
        if self.finished:
            return
        self.updates += 1
        self.standing = update_probabilities(
            self.standing,
            self.table.importance(),
            self.table.valid,
            self.to_remove,
            self._steps_of_rows,
            self._increment,
            lambda history, rank: self._average(history, rank, self.updates),
        )
        if self.updates * self._largest_step >= CERTAIN:  # before, nothing can have been removed
            self.thinning.remove(~self.standing.removed)

    def _force(self) -> None:
        before = self.standing.removed
        self.standing = force_removals(self.standing, self.table.valid, self.to_remove)
        self._forced += (self.standing.removed & ~before).sum()
        self.thinning.remove(~self.standing.removed)
        self.finished = True

    def results(self) -> Record:
        """Return the numbers for ``Pruned.extra``.

        Returns:
            ``forced``, the number of units removed because the time was over, and what followed from the budget:
            ``update_interval`` and ``probability_step``.
        """
        return {
            "forced": float(self._forced),
            "update_interval": float(self.plan.update_interval),
            "probability_step": self.plan.probability_step,
        }

    def epoch_end(self) -> Record:
        """Return the state of the removals.

        Returns:
            ``removed``, the share of the removals that is done, and ``removed[NAME]``, the share of a row's units
            that is gone; ``probability_mean`` and ``probability_max`` over the units that are left; and the
            measurements.
        """
        standing, valid = self.standing, self.table.valid
        gone = standing.removed.sum(1)
        done = gone.sum() / self.to_remove.sum().clamp_min(1)
        mean = standing.penalty.sum() / (valid & ~standing.removed).sum()
        numbers = torch.stack([done, mean, standing.penalty.max(), *(gone / valid.sum(1))]).tolist()
        self.finished = bool((gone >= self.to_remove[:, 0]).all())
        return {
            "removed": numbers[0],
            "probability_mean": numbers[1],
            "probability_max": numbers[2],
            **{f"removed[{name}]": share for name, share in zip(self.names, numbers[3:], strict=True)},
            **self._measure(standing.removed),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to continue.

        Returns:
            Tensors and counts.
        """
        return {
            "probability": self.standing.penalty,
            "rank": self.standing.rank,
            "removed": self.standing.removed,
            "updates": self.updates,
            "forced": self._forced,
            "finished": self.finished,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state.

        Args:
            state: What :meth:`state_dict` returned.
        """
        self.standing = Standing(state["probability"], state["rank"], state["removed"])
        self.updates, self.finished, self._forced = state["updates"], state["finished"], state["forced"]
        self._generator.set_state(state["generator"])
        self.thinning.forget()
