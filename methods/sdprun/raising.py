"""How the threshold of sDprun is raised: to a value, to a share of the FLOPs, or so that groups lose as planned."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from methods.sdprun.dual_averaging import GroupDualAveraging
from methods.sdprun.steering import Landing, Shares, places, thresholds_at

POLLS = 40
"""How often a shared threshold is steered, each time waiting for the device; and points of the way down."""
LEAD = 0.1
"""Share of a steered growth until the first unit vanishes."""
SOME = 1e-9
"""A share of the FLOPs that any unit has."""
LEAST = 1e-6
"""The smallest threshold of a group, in units of the usual one: a unit of zeros vanishes at none."""


@dataclass(frozen=True)
class Timetable:
    """When the threshold grows, and how far: to a threshold, or to a share of the FLOPs.

    Attributes:
        first: Step in which it begins to grow.
        end: Steps until it has grown enough.
        grown: What a threshold with ``c = 1`` would have grown to before each step of the budget and after the
            last one, ``[steps + 1]``.
        threshold: Where it is to end; None if it is steered.
        target: Share of the dense FLOPs that is to be left; None if it is not steered.
    """

    first: int
    end: int
    grown: Sequence[float]
    threshold: float | None = None
    target: float | None = None

    @property
    def lead(self) -> int:
        """Step before which the threshold only comes to where units vanish."""
        return self.first + int(LEAD * (self.end - self.first))

    def share(self, step: int) -> float:
        """Return which share of the dense FLOPs a steered threshold shall leave, on its straight way down.

        Args:
            step: Steps taken, up to :attr:`end`.

        Returns:
            Just less than 1 until :attr:`lead`, then falling steadily to the target.
        """
        assert self.target is not None
        done = max(0, step - self.lead) / (self.end - self.lead)
        return max(self.target, min(1 - SOME, 1 - done * (1 - self.target)))


class Raising(Protocol):
    """Raises the threshold of an optimiser."""

    def before_step(self, step: int) -> None:
        """Set what the optimiser uses in a step.

        Args:
            step: Index of the step, not before the threshold begins to grow and not after it has grown enough.
        """

    def land(self) -> None:
        """Fix the choice of units, once the threshold has grown enough; waits for the device."""

    def threshold(self) -> float:
        """Return the threshold; may wait for the device.

        Returns:
            In units of ``kappa``; the median of the groups where each has its own.
        """


class ToValue:
    """Raises the threshold to a value, as equation (2) has it; which units are left is what comes out.

    Args:
        optimizer: Whose threshold.
        plan: When, and how far.
    """

    def __init__(self, optimizer: GroupDualAveraging, plan: Timetable) -> None:
        self.optimizer, self.plan = optimizer, plan

    def before_step(self, step: int) -> None:
        """Set ``c`` once, so that the threshold is there at the end.

        Args:
            step: Index of the step.
        """
        assert self.plan.threshold is not None
        if step == self.plan.first:
            _aim(self.optimizer, self.plan, self.plan.threshold, step, self.plan.end)

    def land(self) -> None:
        """Change nothing."""

    def threshold(self) -> float:
        """Return the threshold.

        Returns:
            ``G``.
        """
        return self.optimizer.threshold


class Shared:
    """Raises one threshold for all groups to where a share of the FLOPs is left.

    It first comes to where the first unit vanishes. From there on it goes from one look at the norms to the next, so
    that the FLOPs fall steadily. It would be simpler to aim at the target at once; but the norms of a trained network
    hardly differ within a layer, and hardly anything would vanish until, in the last few steps, nearly everything did.

    Args:
        optimizer: Whose threshold.
        shares: Shares of the FLOPs by choice of units.
        plan: When, and how far.
    """

    def __init__(self, optimizer: GroupDualAveraging, shares: Shares, plan: Timetable) -> None:
        self.optimizer, self.shares, self.plan = optimizer, shares, plan

    def before_step(self, step: int) -> None:
        """Set ``c`` again now and then, by the norms as they are.

        Args:
            step: Index of the step.
        """
        plan = self.plan
        since, every = step - plan.first, max(1, (plan.end - plan.first) // POLLS)
        if since % every == 0:
            until = plan.lead if step < plan.lead else min(step + every, plan.end)
            threshold = self.shares.threshold(self.optimizer.ratios().cpu(), plan.share(until))
            _aim(self.optimizer, plan, threshold, step, until)

    def land(self) -> None:
        """Choose by the norms as they are now: they have moved since the last look."""
        assert self.plan.target is not None
        landing = self.shares.land(self.optimizer.ratios().cpu(), self.plan.target)
        _settle(self.optimizer, landing, landing.threshold)

    def threshold(self) -> float:
        """Return the threshold.

        Returns:
            ``G``.
        """
        return self.optimizer.threshold


class Planned:
    """Raises a threshold of every group so that all lose units as planned at every step: the same share, or its own.

    The thresholds follow the norms, of which they are quantiles: groups differ in how their norms grow in training,
    and one threshold would empty those that grow least. A unit that has vanished comes back when others fall below
    it; so noise cannot take more units than planned. (With a threshold that is fixed from one look to the next, it
    does: a unit that comes near the threshold vanishes sooner or later, and nothing drives it back.)

    Args:
        optimizer: Whose thresholds.
        shares: Shares of the FLOPs by choice of units.
        plan: When, and how far.
        rates: How fast each group is to lose units, ``[groups, 1]``, on the CPU; at most :data:`LEAST` for those that
            are to lose none, which have no threshold.
    """

    def __init__(self, optimizer: GroupDualAveraging, shares: Shares, plan: Timetable, rates: Tensor) -> None:
        assert plan.target is not None
        self.optimizer, self.shares, self.plan, self.target = optimizer, shares, plan, plan.target
        self._valid, self._rates = optimizer.valid.cpu(), rates
        self._loses = rates > LEAST
        self._rates_there, self._loses_there = rates.to(optimizer.kappa), self._loses.to(optimizer.kappa)
        # Which share of the units is gone at which share of the FLOPs does not depend on the norms.
        anything = torch.arange(self._valid.shape[1], dtype=torch.double).expand(self._valid.shape)
        exits = places(anything, self._valid, rates)
        self._knots = [plan.lead + (plan.end - plan.lead) * k // POLLS for k in range(POLLS + 1)]
        self._places = [shares.threshold(exits, plan.share(knot)) for knot in self._knots]

    def before_step(self, step: int) -> None:
        """Say which quantile of the norms the thresholds are; nothing waits for the device.

        Args:
            step: Index of the step.
        """
        plan, done = self.plan, step + 1
        rise = min(1.0, (done - plan.first) / max(1, plan.lead - plan.first))
        place = self._place(done)

        def levels(ratios: Tensor) -> Tensor:
            return rise * self._loses_there * thresholds_at(place, ratios, self.optimizer.valid, self._rates_there)

        self.optimizer.levels = levels

    def _place(self, done: int) -> float:
        """Share of its units that a group has lost after so many steps, linear between the points of the way down."""
        after = min(max(1, bisect_right(self._knots, done)), POLLS)
        low, high = self._knots[after - 1 : after + 1]
        part = min(1.0, max(0.0, (done - low) / max(1, high - low)))
        return self._places[after - 1] + part * (self._places[after] - self._places[after - 1])

    def land(self) -> None:
        """Choose by the ranks as they are now; ``kappa`` is set so that from now on one threshold does it."""
        optimizer, ratios = self.optimizer, self.optimizer.ratios().cpu()
        landing = self.shares.land(places(ratios, self._valid, self._rates), self.target)
        threshold = 0.0
        if landing.threshold > 0:
            own = self._loses * thresholds_at(landing.threshold, ratios, self._valid, self._rates)
            threshold = float(own[own > 0].median())
            optimizer.kappa.mul_((own / threshold).clamp_min(LEAST).to(optimizer.kappa))
        optimizer.levels = None
        _settle(optimizer, landing, threshold)

    def threshold(self) -> float:
        """Return the median of the groups' thresholds; waits for the device.

        Returns:
            In units of ``kappa``.
        """
        if self.optimizer.levels is None:
            return self.optimizer.threshold
        return float(self.optimizer.levels(self.optimizer.ratios()).median())


def _aim(optimizer: GroupDualAveraging, plan: Timetable, threshold: float, step: int, until: int) -> None:
    """Let a threshold arrive somewhere after so many steps of the training; it never falls."""
    missing = max(0.0, threshold - optimizer.threshold)
    optimizer.param_groups[0]["scale"] = missing / (plan.grown[until] - plan.grown[step])


def _settle(optimizer: GroupDualAveraging, landing: Landing, threshold: float) -> None:
    optimizer.settle(threshold, landing.alive.to(optimizer.valid.device))
