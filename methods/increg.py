"""IncReg: each channel has a penalty of its own that grows while the channel ranks among the weakest.

Weak channels are squeezed gently towards zero while the others adapt; a channel that becomes important gets
its penalty taken back, one whose penalty reaches a ceiling is removed for good. Then the network is cut and
fine-tuned.

Huan Wang, Qiming Zhang, Yuehai Wang, Lu Yu, Haoji Hu: "Structured Pruning for Efficient ConvNets via
Incremental Regularization", IJCNN 2019, arXiv 1804.09461; short version arXiv 1811.08390. Objective::

    E(W) = L(W) + weight_decay / 2 |W|^2 + sum over units u of penalty_u / 2 |W_u|^2

What differs from the paper and the authors' code:

* Units are coupled output channels (the filters of every layer that produces them), not the columns of
  unrolled convolutions, so that the network really shrinks. Biases and batch norms can be penalised along
  (``bn_affine_reg``), because a batch norm undoes the shrinking of the filters before it.
* The paper sets the largest change of a penalty (``A``) and trains until all layers are done. Here the budget
  is given and ``A`` follows from it (``prune_frac``), by the exact number of updates that a layer takes under
  a stable ranking. Units that are still missing when the time is over, because ranks moved, are removed by
  their penalties (``forced`` in the results).
* Where the optimiser is not SGD, the penalty does not go through its gradient, which would be normalised
  away, but shrinks the weights after the step: ``w / (1 + lr penalty)``.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from methods.base import Method, Problem, Pruned, Record
from methods.channels import ChannelGroup
from methods.one_shot import allotted, cut_and_finetune, drawn_seed
from methods.ranking import (
    Increment,
    Standing,
    averaged,
    ceiling_for,
    exponential_increment,
    forced,
    jump_increment,
    linear_increment,
    updated,
    updates_to_finish,
)
from methods.recipe import Recipe
from methods.training import Trainer
from methods.units import Spread, Units
from spaces import InputError, LayerGroup, LogReal, Parameter, Real, Space, Sparsity, sparsity_space


class IncReg(Method):
    """Incremental regularisation of coupled channels.

    Attributes:
        sparsity: How many channel units of each group are kept.
        penalty_max: Penalty at which a unit is removed (``lambda_max``), in units of weight decay.
        prune_frac: Share of the budget in which all removals happen; the step of the penalties follows.
        penalty_step: Largest change of a penalty per optimiser step (``A``), in units of weight decay; if
            given, the length of the pruning phase follows from it and ``prune_frac`` is not used.
        stabilize_frac: Share of the budget for training on after the last removal, before the cut.
        lr_prune: Constant learning rate until the cut.
        weight_decay: Weight decay until the cut; by default half of the recipe's, as the authors have it.
        increment: How the change of a penalty falls with the rank: ``"linear"`` (the paper), ``"exp"`` (the
            authors' code) or ``"jump"`` (their second scheme).
        exp_flatness: Value at the centre of the exponential (``u``).
        rank_average: How ranks are averaged over updates: plain ``"mean"``, ``"ema"`` or ``"none"``.
        rank_ema: Decay of that exponential average.
        update_interval: Optimiser steps between updates of the penalties.
        bn_affine_reg: Whether the unit's biases and norm parameters are penalised like its filters.
        round_to: Widths are multiples of this.
    """

    title: ClassVar[str] = "incremental regularisation of coupled channels"
    source: ClassVar[str] = "Wang, Zhang, Wang, Yu, Hu, 2019, arXiv 1804.09461"

    sparsity: Sparsity
    penalty_max: float = Field(default=2.5, gt=0)
    prune_frac: float = Field(default=0.5, gt=0, lt=1)
    penalty_step: float | None = Field(default=None, gt=0)
    stabilize_frac: float = Field(default=0.05, ge=0, lt=1)
    lr_prune: float = Field(default=2e-2, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    increment: Literal["linear", "exp", "jump"] = "linear"
    exp_flatness: float = Field(default=0.25, gt=0, lt=1)
    rank_average: Literal["mean", "ema", "none"] = "mean"
    rank_ema: float = Field(default=0.99, ge=0, lt=1)
    update_interval: int = Field(default=1, ge=1)
    bn_affine_reg: bool = True
    round_to: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _leaves_time(self) -> Self:
        """Check that the phases fit into the budget.

        Returns:
            The method.

        Raises:
            ValueError: If they do not.
        """
        if self.prune_frac + self.stabilize_frac > 1:
            raise ValueError(
                f"prune_frac + stabilize_frac must be at most 1, got {self.prune_frac} + {self.stabilize_frac}"
            )
        return self

    @classmethod
    def space(cls, groups: Sequence[LayerGroup]) -> Space:
        """Return the search space: sparsity, ceiling of the penalties, length and learning rate of pruning.

        Only two combinations of ceiling, step and learning rate matter: ``penalty_max / penalty_step`` (the
        duration, hence ``prune_frac``) and ``penalty_max * lr_prune`` (what is left of a unit when it goes).

        Args:
            groups: The prunable channel groups.

        Returns:
            The space.
        """
        own: dict[str, Parameter] = {
            "penalty_max": LogReal(0.1, 10.0, default=2.5),
            "prune_frac": Real(0.2, 0.8, default=0.5),
            "lr_prune": LogReal(1e-3, 3e-2, default=2e-2),
        }
        return sparsity_space(groups) | Space(own)

    def prune(self, problem: Problem) -> Pruned:
        """Penalise until the share is removed, then cut and fine-tune.

        Args:
            problem: The network, the data and the budget.

        Returns:
            The smaller network; ``extra`` holds ``forced``, the number of units removed because the time was
            over, and ``residual``, the mean share of a unit's L1 norm that was left when it was removed.
        """
        groups, keep = allotted(problem, self.sparsity, self.round_to)
        to_remove = {group.name: group.channels - keep[group.name] for group in groups}
        seed = drawn_seed(problem.generator)
        if not any(to_remove.values()):
            return cut_and_finetune(problem, groups, {g.name: list(range(g.channels)) for g in groups})
        self._check_stable(problem.recipe)
        plan = self.plan(problem.steps, groups, to_remove)
        model = copy.deepcopy(problem.model)
        hook = Penalties(self, plan, Units(model, groups), to_remove, problem.recipe.optimizer == "sgd")
        trainer = Trainer(
            model,
            problem.train,
            self._recipe(problem.recipe),
            plan.prune_steps + plan.stabilize_steps,
            seed,
            validation=problem.validation,
            hook=hook,
            teacher=problem.model,
            report=problem.report,
        )
        history = trainer.run()
        return cut_and_finetune(problem, groups, hook.kept(), model=model, history=history, extra=hook.results())

    def plan(self, steps: int, groups: Sequence[ChannelGroup], to_remove: Mapping[str, int]) -> Plan:
        """Divide the budget and derive the step of the penalties from it.

        Args:
            steps: The budget in optimiser steps.
            groups: The channel groups.
            to_remove: Units to be removed by name of group; not all zero.

        Returns:
            The plan.

        Raises:
            InputError: If the budget is too short; says which would do.
        """
        slowest = max(groups, key=lambda group: to_remove[group.name])
        count, units = to_remove[slowest.name], slowest.channels
        interval, increment = self.update_interval, self.increment_by_rank()
        stabilize = int(self.stabilize_frac * steps)
        if self.penalty_step is not None:
            step = self.penalty_step * interval
            needed = interval * updates_to_finish(self.penalty_max / step, count, units, increment)
            enough = next(s for s in itertools.count(needed) if needed + int(self.stabilize_frac * s) <= s)
            if needed + stabilize <= steps:
                return Plan(step, needed, stabilize)
        else:
            prune = int(self.prune_frac * steps)
            updates = ceil(prune / interval)
            least = updates_to_finish(1.0, count, units, increment)
            enough = ceil(((least - 1) * interval + 1) / self.prune_frac)
            if updates >= least:
                return Plan(self.penalty_max / ceiling_for(updates, count, units, increment), prune, stabilize)
        raise InputError(
            f"increg cannot remove {count} of {units} units of {slowest.name!r} within {steps} steps; it needs "
            f"at least {enough}"
        )

    def increment_by_rank(self) -> Increment:
        """Return how the change of a penalty falls with the rank.

        Returns:
            The increment function.
        """
        shapes: dict[str, Increment] = {
            "linear": linear_increment,
            "exp": partial(exponential_increment, flatness=self.exp_flatness),
            "jump": jump_increment,
        }
        return shapes[self.increment]

    def _recipe(self, recipe: Recipe) -> Recipe:
        """Return the recipe of the pruning phase: constant learning rate, or removals would be abrupt."""
        decay = recipe.weight_decay / 2 if self.weight_decay is None else self.weight_decay
        return recipe.replaced(lr=self.lr_prune, schedule="constant", warmup=0, weight_decay=decay)

    def _check_stable(self, recipe: Recipe) -> None:
        """Refuse a penalty under which SGD with momentum would oscillate without bound.

        Args:
            recipe: The optimiser.

        Raises:
            InputError: If the largest penalty is too large for the learning rate.
        """
        # Heavy ball: lr h < 2 (1 + mu); Nesterov's form: lr h < 2 (1 + mu) / (1 + 2 mu).
        limit = 2 * (1 + recipe.momentum) / (1 + 2 * recipe.momentum * recipe.nesterov)
        if recipe.optimizer == "sgd" and self.lr_prune * self.penalty_max >= limit:
            raise InputError(
                f"lr_prune * penalty_max = {self.lr_prune} * {self.penalty_max} makes SGD with momentum "
                f"{recipe.momentum} unstable; it must be below {limit:.3g}"
            )


@dataclass(frozen=True)
class Plan:
    """How the time before the cut is used.

    Attributes:
        penalty_step: Largest change of a penalty per update, in units of weight decay.
        prune_steps: Optimiser steps in which removals happen.
        stabilize_steps: Optimiser steps after them.
    """

    penalty_step: float
    prune_steps: int
    stabilize_steps: int


class Penalties:
    """The hook: keeps the standing of all units and applies their penalties.

    Args:
        method: The settings.
        plan: When to remove, and how fast penalties change.
        units: The channel units of the network that is trained.
        to_remove: Units to be removed by name of group.
        coupled: Whether penalties go through the gradient (SGD) or shrink weights after the step.
    """

    def __init__(self, method: IncReg, plan: Plan, units: Units, to_remove: Mapping[str, int], coupled: bool) -> None:
        self.units, self.plan, self.coupled = units, plan, coupled
        self.interval, self.penalty_max = method.update_interval, method.penalty_max
        self._increment = method.increment_by_rank()
        self._average = partial(averaged, how=method.rank_average, decay=method.rank_ema)
        counts = [[to_remove[group.name]] for group in units.groups]
        self.to_remove = torch.tensor(counts, device=units.valid.device)
        penalised = [*units.producers, *(units.affine if method.bn_affine_reg else ())]
        penalised = [slot for slot in penalised if slot.parameter.requires_grad]
        # Per slice of each tensor: the penalty, or what it leaves of the weight; and 0 once it is removed.
        # Consumers are silenced too, for a shortcut may carry something into a channel that nobody produces.
        self._penalty = Spread(penalised, default=0.0 if coupled else 1.0)
        self._alive = Spread([*units.producers, *units.affine, *units.consumers], default=1.0)
        self._first_l1 = units.l1()
        # Thousands of equal steps are added up: in float32 their rounding errors would too.
        exact = torch.float32 if units.valid.device.type == "mps" else torch.float64
        table = torch.zeros_like(self._first_l1, dtype=exact)
        self.standing = Standing(table, table.clone(), torch.zeros_like(units.valid))
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
        if step % self.interval == 0:
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
        # No penalty can have reached the ceiling yet: nothing is removed, and nobody has to ask the device.
        if (self.updates + 1) * self.plan.penalty_step >= self.penalty_max or step >= self.plan.prune_steps - 1:
            torch._foreach_mul_(self._alive.parameters, self._alive.factors)

    def _update(self) -> None:
        self.updates += 1
        score = self.units.l1()
        before = self.standing
        self.standing = updated(
            before,
            score,
            self.units.valid,
            self.to_remove,
            penalty_step=self.plan.penalty_step,
            penalty_max=self.penalty_max,
            increment=self._increment,
            average=partial(self._average, count=self.updates),
        )
        self._note(before, score)
        self._refresh()

    def _force(self) -> None:
        before = self.standing
        self.standing = forced(before, self.units.valid, self.to_remove)
        self._forced += (self.standing.removed & ~before.removed).sum()
        self._note(before, self.units.l1())
        self._refresh()

    def _refresh(self) -> None:
        penalty = self.standing.penalty
        self._penalty.refresh(penalty if self.coupled else 1 / (1 + self._lr * penalty))
        self._alive.refresh(~self.standing.removed)

    def _note(self, before: Standing, score: Tensor) -> None:
        """Note what is removed now, and how much of it is left."""
        left = (score / self._first_l1).nan_to_num(0.0, 0.0, 0.0)
        self._residual += left.masked_fill(before.removed | ~self.standing.removed, 0.0).sum()

    def kept(self) -> dict[str, list[int]]:
        """List what is left of each group.

        Returns:
            Indices of the kept units, ascending, by name of group.
        """
        return self.units.kept(self.standing.removed)

    def results(self) -> Record:
        """Return the numbers for ``Pruned.extra``.

        Returns:
            ``forced`` and ``residual``.
        """
        return {
            "forced": float(self._forced),
            "residual": float(self._residual / self.standing.removed.sum().clamp_min(1)),
        }

    def epoch_end(self) -> Record:
        """Return the state of the removals.

        Returns:
            ``penalty_mean`` over all units, and ``removed``, the share of the removals that is done.
        """
        done = self.standing.removed.sum() / self.to_remove.sum().clamp_min(1)
        mean = self.standing.penalty.sum() / self.units.valid.sum()
        removed, penalty = torch.stack([done, mean]).tolist()
        return {"penalty_mean": penalty, "removed": removed}

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
