"""How a reduction of the FLOPs is divided between channels, which are removed, and blocks, which are left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import log

from torch import nn

from methods.contract.method import Problem
from methods.network.channels import cut
from methods.pivoting.block_budget import Candidates, Limits, candidates, is_compatible
from methods.pivoting.block_matrices import Structure
from methods.pivoting.blocking import Choice, allocate
from methods.pivoting.channel_spaces import channel_spaces
from methods.pivoting.pivoted_network import Coupling
from methods.training.damage import add_damages, keep_by_damage
from spaces import ByDamage, FlopsTarget, InputError

SPENT = 0.95
"""Share of the budget below which it is looked whether channels may stay that need not go."""

FINEST = 1 / 64
"""How near to the least channel share the search for it ends."""

Target = FlopsTarget | ByDamage
"""A share of the FLOPs, and how channels are to do their part of it."""


@dataclass(frozen=True)
class Split:
    """How the reduction is divided between channels and blocks.

    Attributes:
        share: Share of the reduction (of the logarithm of FLOPs) that the removal of channels is to do.
        side: Blocks are at least so high and wide.
        widths: Kept units of each channel group.
    """

    share: float
    side: int
    widths: Mapping[str, int]


@dataclass(frozen=True)
class Division:
    """Divides the reduction of one network.

    Attributes:
        problem: The network.
        structure: How blocks lie.
        coupling: What ties the columns of layers to the orders of channels.
        degree: Clusters of columns that a cluster of rows reads.
        block_side: Side of square blocks; ``None`` where it follows from density and degree.
        sides: What blocks are at least high and wide: as wanted, and where that does not suffice.
        channel_share: Least share of the reduction (of the logarithm of FLOPs) that channels do.
        channel_tilt: Tilt of the channels' part; ``None`` for the target's.
        round_to: Widths are multiples of this.
    """

    problem: Problem
    structure: Structure
    coupling: Coupling
    degree: int
    block_side: int | None
    sides: tuple[int, ...]
    channel_share: float
    channel_tilt: float | None
    round_to: int

    def yield_splits(self, target: Target) -> Iterator[Split]:
        """Divide the reduction so that blocks do as much as they can: the best division first, then near ones.

        Args:
            target: What is to be left.

        Yields:
            Divisions that reach the target if all layers lose alike by blocks; if there is none, an ``InputError`` says
            how far channels go.
        """
        if isinstance(target, ByDamage):
            target.curves(add_damages(self.problem))  # a stage that does not exist is not a target out of reach
        share, none = self.channel_share, True
        for side in self.sides:
            for split in self.yield_reached(share, side, target):
                none = False
                yield split
        if none:
            low, share = share, 1.0
            while share - low > FINEST:  # what narrow blocks do not reach wide ones do not either
                middle = (low + share) / 2
                reached = any(True for _ in self.yield_reached(middle, self.sides[-1], target))
                low, share = (low, middle) if reached else (middle, share)
        while True:  # at last by channels alone
            for side in self.sides:
                for split in self.yield_reached(share, side, target):
                    none = False
                    yield split
            if share == 1:
                break
            share = min(1.0, share + 4 * FINEST)
        if none:
            raise self.explain_out_of_reach(target)

    def yield_reached(self, share: float, side: int, target: Target) -> Iterator[Split]:
        """Find widths at which channels do a share of the reduction, and blocks can do the rest.

        Args:
            share: Share of the reduction (of the logarithm of FLOPs).
            side: Blocks are at least so high and wide.
            target: What is to be left.

        Yields:
            Divisions, those whose widths have many divisors first.
        """
        for split, _ in self._yield_counted(share, side, target):
            yield split

    def widen(self, split: Split, flops: int, target: Target) -> Split | None:
        """Keep more channels where blocks, which come in few sizes, save more than was left for them to do.

        Args:
            split: A division that reaches the target.
            flops: What is left by it.
            target: What may be left.

        Returns:
            The division that comes nearest to the target if all layers lose alike by blocks; None if none of those
            looked at comes nearer than this one.
        """
        if flops >= SPENT * target.flops * self.problem.cost.dense:
            return None
        by_blocks = flops / self.problem.cost.flops(split.widths)
        share = log(min(1.0, target.flops / by_blocks)) / log(target.flops)  # of channels, with blocks as they are
        if share >= split.share:
            return None
        near = (share, (share + split.share) / 2)
        found = [pair for each in near for pair in self._yield_counted(each, split.side, target) if pair[1] > flops]
        return max(found, key=lambda pair: pair[1])[0] if found else None

    def _yield_counted(self, share: float, side: int, target: Target) -> Iterator[tuple[Split, int]]:
        """Yield the divisions of :meth:`yield_reached` and what is left if all layers lose alike."""
        groups, cost = self.problem.groups, self.problem.cost
        # Widths with many divisors can be cut into blocks; odd ones may be all that reaches the target.
        for rounding in (4 * self.round_to, self.round_to):
            widths = self._find_widths(target, share, rounding)
            if widths is None:
                continue
            model = cut(self.problem.model, groups, {name: list(range(width)) for name, width in widths.items()})
            layers, fits = self.list_candidates(model, side)
            most = target.flops * cost.dense
            found = allocate(layers.shapes, layers.options, _assume_equal_damage, layers.rest, most, fits)
            if found is not None:
                left = sum(found[shape.name].count_left(shape.flops) for shape in layers.shapes)
                yield Split(share, side, widths), layers.rest + left

    def _find_widths(self, target: Target, share: float, rounding: int) -> dict[str, int] | None:
        """Return the widths at which channels have done their part of the reduction; None if they cannot."""
        groups, part = self.problem.groups, target.flops**share
        try:
            if isinstance(target, ByDamage):
                return keep_by_damage(self.problem, target.model_copy(update={"flops": part}), groups, rounding)
            tilt = target.tilt if self.channel_tilt is None else self.channel_tilt
            equal = FlopsTarget(flops=part, tilt=tilt)
            return equal.keep([group.layer for group in groups], self.problem.cost.flops, rounding)
        except InputError:  # with this rounding; a finer one is tried next
            return None

    def explain_out_of_reach(self, target: Target) -> InputError:
        """Say how far the removal of channels goes.

        Args:
            target: What was to be left.

        Returns:
            The error to raise.
        """
        groups, cost = self.problem.groups, self.problem.cost
        least = cost.flops({group.name: min(group.channels, self.round_to) for group in groups}) / cost.dense
        return InputError(
            f"flops = {target.flops!r} cannot be reached by blocks of at least {self.sides[-1]} "
            f"channels a side and removal of channels to multiples of {self.round_to}; the smallest share by channels "
            f"is {least:.3f}"
        )

    def list_candidates(self, model: nn.Module, side: int) -> tuple[Candidates, Callable[[Mapping[str, Choice]], bool]]:
        """List the layers that can be blocked, and which choices go together.

        Args:
            model: The network, some channels removed.
            side: Blocks are at least so high and wide.

        Returns:
            The layers with their choices, and a test whether a choice for every layer goes together.
        """
        spaces = channel_spaces(model, self.problem.example)
        limits = Limits(self.structure, side, self.degree, self.block_side)
        return candidates(model, self.problem.example, spaces, limits), partial(is_compatible, spaces, self.coupling)


def _assume_equal_damage(name: str, choice: Choice) -> float:
    """Damage of a choice before anything is known of the weights: all layers lose alike."""
    return 1 - choice.density
