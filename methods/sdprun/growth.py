"""The hooks of sDprun: how the threshold grows, and what is known of the units at every epoch."""

from __future__ import annotations

from collections.abc import Sequence

from methods.contract.method import Record
from methods.network.channels import ChannelGroup
from methods.network.scope import Shortcuts
from methods.sdprun.dual_averaging import GroupDualAveraging
from methods.sdprun.raising import Raising, Timetable
from methods.sdprun.steering import Shares
from methods.training.trainer import Hook
from spaces import round_up_width


class Growth(Hook):
    """Lets the threshold grow, and says who is gone. Its state is the optimiser's.

    Args:
        optimizer: Holds threshold and units.
        groups: The groups that may lose units, in the order of the rows of all tables.
        shares: Shares of the FLOPs by choice of units.
        shortcuts: The parameter-free shortcuts to be closed around zero units; None leaves them open.
        plan: When to grow, and how far.
        raising: How.
    """

    def __init__(
        self,
        optimizer: GroupDualAveraging,
        groups: Sequence[ChannelGroup],
        shares: Shares,
        shortcuts: Shortcuts | None,
        plan: Timetable,
        raising: Raising,
    ) -> None:
        self.optimizer, self.groups, self.shares = optimizer, groups, shares
        self.shortcuts, self.plan, self.raising = shortcuts, plan, raising

    def before_step(self, step: int, lr: float) -> None:
        """Set how the threshold grows.

        Args:
            step: Index of the step.
            lr: Not used.
        """
        if self.plan.first <= step < self.plan.end:
            self.raising.before_step(step)

    def after_step(self, step: int) -> None:
        """Fix the choice of units when the threshold has grown enough.

        Args:
            step: Index of the step.
        """
        if step == self.plan.end - 1:
            self.raising.land()
        if self.shortcuts is not None:
            self.shortcuts.close(self.optimizer.alive)

    def list_kept(self, round_to: int = 1) -> dict[str, list[int]]:
        """List what is left of each group.

        Args:
            round_to: What widths are multiples of; units that are zero fill up, those of the largest norms first.

        Returns:
            Indices of the units that are not zero, ascending, by name of group.
        """
        optimizer = self.optimizer
        first = (optimizer.ratios() / (1 + optimizer.ratios()) + optimizer.alive.to(optimizer.kappa)).tolist()
        alive = optimizer.alive.sum(1).tolist()
        kept = {}
        for group, row, count in zip(self.groups, first, alive, strict=True):
            ranked = sorted(range(group.channels), key=row.__getitem__, reverse=True)
            kept[group.name] = sorted(ranked[: round_up_width(count, group.channels, round_to)])
        return kept

    def results(self) -> Record:
        """Return the numbers for ``Pruned.extra``.

        Returns:
            ``flops_share`` (if the units that are zero were cut now) and ``threshold``.
        """
        return {"flops_share": self.shares.compute_share(self.optimizer.alive), "threshold": self.raising.threshold()}

    def epoch_end(self) -> Record:
        """Return the state of the units.

        Returns:
            The results, and the share of units that are zero: ``zero_units`` of all, ``zero_units[GROUP]`` of
            each group.
        """
        left = {name: len(units) for name, units in self.list_kept().items()}
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
