"""The hooks of sDprun: how the threshold grows, and what is known of the units at every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from methods.base import Record
from methods.gradual.dual_averaging import GroupDualAveraging
from methods.gradual.scope import Shortcuts
from methods.gradual.steering import Shares, places, thresholds_at
from methods.network.channels import ChannelGroup
from methods.training import Hook

POLLS = 40
"""How often the growth is steered; each time waits for the device once."""
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


class Growth(Hook):
    """Lets the threshold grow, steers it, and says who is gone. Its state is the optimiser's.

    Args:
        optimizer: Holds threshold and units.
        groups: The groups that may lose units, in the order of the rows of all tables.
        shares: Shares of the FLOPs by choice of units.
        shortcuts: The parameter-free shortcuts to be closed around zero units; None leaves them open.
        plan: When to grow, and how far.
        rates: How fast each group is to lose units, ``[groups, 1]``, on the CPU, for a steered threshold; None
            leaves that to the norms.
    """

    def __init__(
        self,
        optimizer: GroupDualAveraging,
        groups: Sequence[ChannelGroup],
        shares: Shares,
        shortcuts: Shortcuts | None,
        plan: Timetable,
        rates: Tensor | None = None,
    ) -> None:
        self.optimizer, self.groups, self.shares = optimizer, groups, shares
        self.shortcuts, self.plan, self.rates = shortcuts, plan, rates
        self._valid = optimizer.valid.cpu()

    def before_step(self, step: int, lr: float) -> None:
        """Set ``c`` so that the threshold arrives in time where it is to be, growing as equation (2) has it.

        A steered threshold first comes to where the first unit vanishes. From there on it goes from one look at the
        norms to the next, so that the FLOPs fall steadily. It would be simpler to aim at the target at once; but the
        norms of a trained network hardly differ within a layer, and hardly anything would vanish until, in the last
        few steps, nearly everything did.

        Args:
            step: Index of the step.
            lr: Not used.
        """
        plan = self.plan
        if not plan.first <= step < plan.end:
            return
        since, every = step - plan.first, max(1, (plan.end - plan.first) // POLLS)
        if plan.threshold is not None and since == 0:
            self._aim(plan.threshold, step, plan.end)
        elif plan.target is not None and since % every == 0:
            until = plan.lead if step < plan.lead else min(step + every, plan.end)
            ratios = self.optimizer.ratios().cpu()
            exit_ = self.shares.threshold(self._exits(ratios), plan.share(until))
            self._aim(self._level(exit_, ratios), step, until)

    def _aim(self, threshold: float, step: int, until: int) -> None:
        """Let the threshold arrive somewhere after so many steps of the training; it never falls."""
        missing = max(0.0, threshold - self.optimizer.threshold)
        self.optimizer.param_groups[0]["scale"] = missing / (self.plan.grown[until] - self.plan.grown[step])

    def _exits(self, ratios: Tensor) -> Tensor:
        """When each unit vanishes: at which threshold, or with which share of its group; ``[groups, widest]``."""
        return ratios if self.rates is None else places(ratios, self._valid, self.rates)

    def _level(self, exit_: float, ratios: Tensor) -> float:
        """Return the threshold of an exit; where that is a share, ``kappa`` is set so that one threshold does it.

        Groups differ in how their norms grow in training. One threshold would empty those that grow least.
        """
        if self.rates is None or exit_ == 0:
            return exit_
        own = thresholds_at(exit_, ratios, self._valid, self.rates)
        usual = max(self.optimizer.threshold, float(own.median()))
        self.optimizer.kappa.mul_((own / usual).clamp_min(LEAST).to(self.optimizer.kappa))
        return usual

    def after_step(self, step: int) -> None:
        """Fix the choice of units when a steered threshold has grown enough.

        Args:
            step: Index of the step.
        """
        if self.plan.target is not None and step == self.plan.end - 1:
            # Norms have moved since the last look: the choice is made anew, by all of them.
            ratios = self.optimizer.ratios().cpu()
            landing = self.shares.land(self._exits(ratios), self.plan.target)
            self.optimizer.settle(self._level(landing.threshold, ratios), landing.alive.to(self.optimizer.valid.device))
        if self.shortcuts is not None:
            self.shortcuts.close(self.optimizer.alive)

    def kept(self) -> dict[str, list[int]]:
        """List what is left of each group.

        Returns:
            Indices of the units that are not zero, ascending, by name of group.
        """
        alive = self.optimizer.alive.tolist()
        return {
            group.name: [unit for unit in range(group.channels) if row[unit]]
            for group, row in zip(self.groups, alive, strict=True)
        }

    def results(self) -> Record:
        """Return the numbers for ``Pruned.extra``.

        Returns:
            ``flops_share`` (if the units that are zero were cut now) and ``threshold``.
        """
        return {"flops_share": self.shares.of(self.optimizer.alive), "threshold": self.optimizer.threshold}

    def epoch_end(self) -> Record:
        """Return the state of the units.

        Returns:
            The results, and the share of units that are zero: ``zero_units`` of all, ``zero_units[GROUP]`` of
            each group.
        """
        left = {name: len(units) for name, units in self.kept().items()}
        gone = {f"zero_units[{group.name}]": 1 - left[group.name] / group.channels for group in self.groups}
        everything = sum(group.channels for group in self.groups)
        return self.results() | {"zero_units": 1 - sum(left.values()) / everything} | gone


class Settled(Hook):
    """The hook of the time after the cut: nothing changes any more.

    Args:
        record: What is reported in every epoch.
    """

    def __init__(self, record: Record) -> None:
        self.record = record

    def epoch_end(self) -> Record:
        """Return what was last known of the units.

        Returns:
            The record.
        """
        return dict(self.record)
