"""Greedy forward selection on tensors: step rules, the loop, and what a run of it leaves behind.

A layer of ``D`` units is described by its mask ``m``: what consumers read unit ``i`` with. The theory speaks of
convex weights ``a = m / D``; the whole layer has ``a_i = 1 / D``, that is ``m_i = 1``. A step moves towards one
corner of the simplex, ``a <- (1 - eta) a + eta e_c``, which in masks is::

    m <- keep m + add e_c,    keep = 1 - eta,  add = eta D

Mao Ye, Chengyue Gong, Lizhen Nie, Denny Zhou, Adam Klivans, Qiang Liu: "Good Subnetworks Provably Exist: Pruning
via Greedy Forward Selection", ICML 2020, arXiv 2003.01794; the line search is from Mao Ye, Lemeng Wu, Qiang Liu:
"Greedy Optimization Provably Wins the Lottery", NeurIPS 2020, arXiv 2010.15969.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from spaces import InputError


@dataclass(frozen=True)
class StepRule:
    """How far a step goes, and where to.

    Attributes:
        repeats: Whether a unit may be chosen again.
        scaled: Whether weights sum to 1, so that ``n`` units are read ``D / n`` times as strongly; otherwise
            every chosen unit is read as it is.
        line_search: Whether the length of a step minimises the loss; otherwise it is ``1 / (n + 1)``.
    """

    repeats: bool
    scaled: bool
    line_search: bool


RULES = {
    "uniform_norepeat": StepRule(repeats=False, scaled=True, line_search=False),
    "uniform_repeat": StepRule(repeats=True, scaled=True, line_search=False),
    "linesearch": StepRule(repeats=True, scaled=True, line_search=True),
    "norepeat_noscale": StepRule(repeats=False, scaled=False, line_search=False),
}
"""The authors' code; the algorithm of their theorems; that of the follow-up paper; without the factor ``D / n``."""

LONGEST_STEP = 0.95
"""No line search goes farther: a step of length 1 would forget every unit chosen before."""


class Objective(Protocol):
    """A loss as a function of the mask of one layer."""

    def losses(self, mask: Tensor, candidates: Tensor, keep: Tensor, add: Tensor) -> Tensor:
        """Evaluate steps towards several candidates.

        Args:
            mask: Present mask, ``[units]``.
            candidates: Units to step towards, ``[candidates]``; one may occur more than once.
            keep: What the present mask is multiplied with, ``[candidates]``.
            add: What is added at the candidate, ``[candidates]``.

        Returns:
            The losses, ``[candidates]``; infinite for a candidate that was ruled out.
        """

    def line_search(self, mask: Tensor, candidates: Tensor, usual: float) -> tuple[Tensor, Tensor]:
        """Find how far to step towards the best candidate, or towards each.

        Args:
            mask: Present mask, ``[units]``, of convex weights.
            candidates: Units to step towards, ``[candidates]``.
            usual: The uniform step, ``1 / (n + 1)``.

        Returns:
            Losses and steps ``eta`` in ``0 .. LONGEST_STEP``, ``[candidates]`` each; no loss is above that of the mask.
        """


@dataclass(frozen=True)
class Step:
    """One step of the selection.

    Attributes:
        unit: The unit chosen.
        eta: Length of the step.
        loss: Loss after it.
    """

    unit: int
    eta: float
    loss: float


def draw(pool: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw candidates without replacement.

    Args:
        pool: Units to draw from, ``[pool]``, ascending.
        count: How many at most.
        generator: Where from; not used where the pool is not larger.

    Returns:
        The candidates, ascending.
    """
    if len(pool) <= count:
        return pool
    return pool[torch.randperm(len(pool), generator=generator)[:count].sort().values]


def forward_selection(
    objective_at: Callable[[int], Objective],
    units: int,
    rule: StepRule,
    candidates: int,
    generator: torch.Generator,
    *,
    repeats: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> Iterator[Step]:
    """Select units one by one, each time the one whose addition gives the lowest loss.

    Args:
        objective_at: The loss to be used in a step, by its index.
        units: Units of the layer (``D``).
        rule: The step rule.
        candidates: How many units are tried in a step, newly drawn each time.
        generator: Where candidates are drawn from.
        repeats: How many times a unit may be chosen again in all (with rules that repeat), after which, and
            whenever a line search finds no descent, only new units are chosen, by uniform steps; the run then
            ends with all units chosen. By default there is no limit, and only a line search that finds no descent
            ends the run.
        dtype: Precision of the masks given to the objective.

    Yields:
        The steps.

    Raises:
        InputError: If no candidate has a finite loss.
    """  # noqa: DOC502
    left = torch.ones(units, dtype=torch.bool)
    steps: list[Step] = []
    while repeats is None and rule.repeats or bool(left.any()):
        mask = mask_after([s.unit for s in steps], [s.eta for s in steps], units, rule).to(dtype)
        again = rule.repeats and (repeats is None or len(steps) - int((~left).sum()) < repeats)
        pool = torch.arange(units) if again else left.nonzero().flatten()
        objective = objective_at(len(steps))
        step = _choose_step(objective, mask, draw(pool, candidates, generator), rule, len(steps), again)
        if step.eta == 0:
            if repeats is None:
                return
            new = draw(left.nonzero().flatten(), candidates, generator)
            if not len(new):
                return
            step = _choose_step(objective, mask, new, rule, len(steps), searching=False)
        left[step.unit] = False
        steps.append(step)
        yield step


def _choose_step(
    objective: Objective, mask: Tensor, candidates: Tensor, rule: StepRule, taken: int, searching: bool
) -> Step:
    """Evaluate the candidates and choose; the first of equals wins."""
    usual = 1 / (taken + 1)
    if rule.line_search and searching and taken:
        losses, etas = objective.line_search(mask, candidates, usual)
    else:
        etas = torch.full((len(candidates),), usual, dtype=torch.float64)
        keep, add = (1 - etas, etas * len(mask)) if rule.scaled else (torch.ones_like(etas), torch.ones_like(etas))
        losses = objective.losses(mask, candidates, keep, add)
    losses = losses.double().cpu()
    if not bool(losses.isfinite().any()):
        raise InputError(f"no candidate has a finite loss in step {taken + 1} of the selection")
    best = int(losses.nan_to_num(nan=torch.inf).argmin())
    return Step(int(candidates[best]), float(etas[best]), float(losses[best]))


def mask_after(chosen: Sequence[int], etas: Sequence[float], units: int, rule: StepRule) -> Tensor:
    """Compute the mask after some steps, in closed form where there is one, so that it does not drift.

    Args:
        chosen: The unit of each step.
        etas: The length of each step.
        units: Units of the layer.
        rule: The step rule.

    Returns:
        The mask, ``[units]``, float64.

    Example:
        >>> mask_after([2, 0, 2], [1, 1 / 2, 1 / 3], 4, RULES["uniform_repeat"]).tolist()
        [1.3333333333333333, 0.0, 2.6666666666666665, 0.0]
    """
    mask = torch.zeros(units, dtype=torch.float64)
    if not chosen:
        return mask
    steps = torch.tensor(list(chosen))
    if not rule.line_search:
        counts = torch.bincount(steps, minlength=units).double()
        return counts * (units / len(steps)) if rule.scaled else counts.clamp_max(1)
    # Step t is multiplied by 1 - eta of all later steps.
    lengths = torch.tensor(list(etas), dtype=torch.float64)
    later = torch.cat([(1 - lengths).flip(0).cumprod(0).flip(0)[1:], torch.ones(1, dtype=torch.float64)])
    return mask.index_add(0, steps, units * lengths * later)


def prefix(chosen: Tensor, width: int) -> int:
    """Count the steps after which a run has chosen so many different units, repeats of them included.

    Args:
        chosen: The unit of each step, ``[steps]``.
        width: Number of different units.

    Returns:
        Number of steps.

    Example:
        >>> prefix(torch.tensor([3, 3, 1, 3, 0]), 2)
        4
    """
    return int((find_first_choices(chosen).cumsum(0) <= width).sum())


def find_first_choices(chosen: Tensor) -> Tensor:
    """Tell which steps chose a unit for the first time.

    Args:
        chosen: The unit of each step, ``[steps]``.

    Returns:
        ``[steps]``, boolean.
    """
    seen: set[int] = set()
    first = []
    for unit in chosen.tolist():
        first.append(unit not in seen)
        seen.add(unit)
    return torch.tensor(first, dtype=torch.bool)


@dataclass(frozen=True)
class Ordering:
    """A whole run of the selection on one layer; every width is a prefix of it.

    Attributes:
        chosen: The unit of each step, ``[steps]``.
        etas: Length of each step, ``[steps]``.
        units: Units of the layer.
        rule: The step rule.
    """

    chosen: Tensor
    etas: Tensor
    units: int
    rule: StepRule

    @staticmethod
    def from_steps(steps: Sequence[Step], units: int, rule: StepRule) -> Ordering:
        """Collect the steps of a run.

        Args:
            steps: The steps.
            units: Units of the layer.
            rule: The step rule.

        Returns:
            The ordering.
        """
        chosen = torch.tensor([step.unit for step in steps], dtype=torch.long)
        return Ordering(chosen, torch.tensor([step.eta for step in steps], dtype=torch.float64), units, rule)

    def mask(self, width: int) -> Tensor:
        """Return the mask with which so many units are read.

        Args:
            width: How many different units; with all of them the layer is the original one.

        Returns:
            ``[units]``, float64; zero for units that are not chosen.
        """
        if width == self.units:
            return torch.ones(self.units, dtype=torch.float64)
        steps = prefix(self.chosen, width)
        return mask_after(self.chosen[:steps].tolist(), self.etas[:steps].tolist(), self.units, self.rule)

    def keep_first(self, width: int) -> list[int]:
        """Return the first units that were chosen.

        Args:
            width: How many.

        Returns:
            Their indices, ascending.
        """
        return sorted(self.chosen[find_first_choices(self.chosen)][:width].tolist())


def grid_line_search(objective: Objective, mask: Tensor, candidates: Tensor, usual: float) -> tuple[Tensor, Tensor]:
    """Search along lines on which nothing but the loss is known: a grid for all, refined for the best.

    Args:
        objective: The loss.
        mask: Present mask, ``[units]``, of convex weights.
        candidates: Units to step towards, ``[candidates]``.
        usual: The uniform step; the grid lies around it.

    Returns:
        Losses and steps, ``[candidates]`` each; where no step descends, the step is 0 and the loss the present one.
    """

    def compute_losses(who: Tensor, etas: Tensor) -> Tensor:
        return objective.losses(mask, who, 1 - etas, etas * len(mask)).double().cpu().nan_to_num(nan=torch.inf)

    def find_lowest(who: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        found = compute_losses(who.repeat_interleave(len(grid)), grid.repeat(len(who))).view(len(who), -1).min(1)
        return found.values, grid[found.indices]

    factors = torch.tensor([0.125, 0.35, 1.0, 2.8], dtype=torch.float64)
    losses, etas = find_lowest(candidates, (usual * factors).clamp_max(LONGEST_STEP))
    best = losses.argmin()
    ratio = 2.8
    for _ in range(2):  # 7 points between the neighbours of the best, twice
        around = etas[best] * ratio ** torch.linspace(-1, 1, 9, dtype=torch.float64)[1:-1]
        loss, eta = find_lowest(candidates[best : best + 1], around.clamp_max(LONGEST_STEP))
        if loss[0] < losses[best]:
            losses[best], etas[best] = loss[0], eta[0]
        ratio **= 0.25
    present = compute_losses(candidates[:1], torch.zeros(1, dtype=torch.float64))[0]
    stay = losses >= present
    return losses.where(~stay, present), etas.where(~stay, torch.zeros_like(etas))
