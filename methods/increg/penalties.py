"""The hook of IncReg: every unit has a penalty of its own, and is removed when that reaches the ceiling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from methods.contract.method import Record
from methods.increg.pacing import Plan
from methods.network.thinning import Sliced
from methods.network.units import Scored, Spread
from methods.ranked.ranking import Increment, Standing, force_removals, update_penalties
from methods.training.trainer import Hook


@dataclass(frozen=True)
class Penalised:
    """What is penalised in a network, as a table with a row for each layer or channel group.

    Attributes:
        table: The units.
        names: Name of each row.
        to_remove: Units to be removed from each row.
        rates: What the plan's step is multiplied with in each row.
        weights: Slices that are penalised.
        silenced: Slices that are zero once their unit is removed.
        close: Closes what carries units without a weight, given those that are kept.
        measure: Removed units to numbers for the record of an epoch; may wait for the device.
    """

    table: Scored
    names: Sequence[str]
    to_remove: Sequence[int]
    rates: Sequence[float]
    weights: Sequence[Sliced]
    silenced: Sequence[Sliced]
    close: Callable[[Tensor], None] = lambda kept: None
    measure: Callable[[Tensor], Record] = lambda removed: {}


class Penalties(Hook):
    """Keeps the standing of all units and applies their penalties.

    Args:
        units: What is penalised.
        plan: When to remove, and how fast penalties change.
        penalty_max: Penalty at which a unit is removed, in units of weight decay.
        increment: Change of a penalty by rank, in units of the plan's step.
        average: ``(average so far, present ranks, number of updates)`` to averaged ranks.
        coupled: Whether penalties go through the gradient (SGD) or shrink weights after the step.
    """

    def __init__(
        self,
        units: Penalised,
        plan: Plan,
        penalty_max: float,
        increment: Increment,
        average: Callable[[Tensor, Tensor, int], Tensor],
        coupled: bool,
    ) -> None:
        self.units, self.plan, self.penalty_max, self.coupled = units, plan, penalty_max, coupled
        self._increment, self._average = increment, average
        valid = units.table.valid
        self.to_remove = torch.tensor(units.to_remove, device=valid.device)[:, None]
        # Per slice of each tensor: the penalty, or what it leaves of the weight; and 0 once it is removed.
        weights = [slot for slot in units.weights if slot.parameter.requires_grad]
        self._penalty = Spread(weights, default=0.0 if coupled else 1.0)
        self._alive = Spread(units.silenced, default=1.0)
        self._first_l1 = units.table.l1()
        # Thousands of equal steps are added up: in float32 their rounding errors would too.
        exact = torch.float32 if valid.device.type == "mps" else torch.float64
        table = torch.zeros_like(self._first_l1, dtype=exact)
        self._steps_of_rows = plan.penalty_step * torch.tensor(units.rates, dtype=exact, device=valid.device)[:, None]
        self._largest_step = plan.penalty_step * max(units.rates)
        self.standing = Standing(table, table.clone(), torch.zeros_like(valid))
        self.updates = 0
        self._lr = 0.0  # of the last update
        self._residual = table.new_zeros(())
        self._forced = torch.zeros((), dtype=torch.long, device=table.device)

    @torch.no_grad()
    def before_step(self, step: int, lr: float) -> None:
        """Update the standing when it is time, and add the penalties to the gradients.

        Args:
            step: Index of the step.
            lr: Learning rate of the step.
        """
        if step >= self.plan.prune_steps:
            return
        if step % self.plan.update_interval == 0:
            self._lr = lr
            self._update()
        if self.coupled:  # gradient of penalty / 2 |w|^2
            gradients = [parameter.grad for parameter in self._penalty.parameters]
            torch._foreach_addcmul_(gradients, self._penalty.parameters, self._penalty.factors)  # type: ignore[arg-type]

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Shrink weights where penalties are decoupled; keep removed units at zero.

        Args:
            step: Index of the step.
        """
        if step < self.plan.prune_steps and not self.coupled:
            torch._foreach_mul_(self._penalty.parameters, self._penalty.factors)
        if step == self.plan.prune_steps - 1:
            self._force()
        if self._may_have_removed or step >= self.plan.prune_steps - 1:
            torch._foreach_mul_(self._alive.parameters, self._alive.factors)

    @property
    def _may_have_removed(self) -> bool:
        """Whether a penalty can have reached the ceiling, without asking the device."""
        return (self.updates + 1) * self._largest_step >= self.penalty_max

    def _update(self) -> None:
        self.updates += 1
        before = self.standing
        self.standing = update_penalties(
            before,
            self.units.table.importance(),
            self.units.table.valid,
            self.to_remove,
            penalty_step=self._steps_of_rows,
            penalty_max=self.penalty_max,
            increment=self._increment,
            average=lambda history, rank: self._average(history, rank, self.updates),
        )
        if self._may_have_removed:
            self._note(before)
        self._refresh()

    def _force(self) -> None:
        before = self.standing
        self.standing = force_removals(before, self.units.table.valid, self.to_remove)
        self._forced += (self.standing.removed & ~before.removed).sum()
        self._note(before)
        self._refresh()
        self.units.close(~self.standing.removed)

    def _refresh(self) -> None:
        penalty, kept = self.standing.penalty, ~self.standing.removed
        self._penalty.refresh(penalty if self.coupled else 1 / (1 + self._lr * penalty))
        self._alive.refresh(kept)
        if self._may_have_removed:
            self.units.close(kept)

    def _note(self, before: Standing) -> None:
        """Note what is removed now, and how much of it is left."""
        left = (self.units.table.l1() / self._first_l1).nan_to_num(0.0, 0.0, 0.0)
        self._residual += left.masked_fill(before.removed | ~self.standing.removed, 0.0).sum()

    def results(self) -> Record:
        """Return the numbers for ``Pruned.extra``.

        Returns:
            ``forced``, the number of units removed because the time was over; ``residual``, the mean share of a
            unit's L1 norm that was left when it was removed; and what followed from the budget: ``penalty_step``
            and ``update_interval``.
        """
        return {
            "forced": float(self._forced),
            "residual": float(self._residual / self.standing.removed.sum().clamp_min(1)),
            "penalty_step": self.plan.penalty_step,
            "update_interval": float(self.plan.update_interval),
        }

    def epoch_end(self) -> Record:
        """Return the state of the removals.

        Returns:
            ``removed``, the share of the removals that is done, and ``removed[NAME]``, the share of a row's units
            that is gone; ``penalty_mean`` and ``penalty_max`` over the units that are left; and the measurements.
        """
        standing, valid = self.standing, self.units.table.valid
        gone = standing.removed.sum(1)
        done = gone.sum() / self.to_remove.sum().clamp_min(1)
        mean = standing.penalty.sum() / (valid & ~standing.removed).sum()
        numbers = torch.stack([done, mean, standing.penalty.max(), *(gone / valid.sum(1))]).tolist()
        return {
            "removed": numbers[0],
            "penalty_mean": numbers[1],
            "penalty_max": numbers[2],
            **{f"removed[{name}]": share for name, share in zip(self.units.names, numbers[3:], strict=True)},
            **self.units.measure(standing.removed),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to continue.

        Returns:
            Tensors and counts.
        """
        return {
            "penalty": self.standing.penalty,
            "rank": self.standing.rank,
            "removed": self.standing.removed,
            "updates": self.updates,
            "first_l1": self._first_l1,
            "residual": self._residual,
            "forced": self._forced,
            "lr": self._lr,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state.

        Args:
            state: What :meth:`state_dict` returned.
        """
        self.standing = Standing(state["penalty"], state["rank"], state["removed"])
        self.updates, self._first_l1 = state["updates"], state["first_l1"]
        self._residual, self._forced, self._lr = state["residual"], state["forced"], state["lr"]
        self._refresh()
