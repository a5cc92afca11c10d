"""IncReg: each unit has a penalty of its own that grows while the unit ranks among the weakest.

Weak units are squeezed gently towards zero while the others adapt; a unit that becomes important gets its penalty
taken back, one whose penalty reaches a ceiling is removed for good. Then the network is cut and fine-tuned.

Huan Wang, Qiming Zhang, Yuehai Wang, Lu Yu, Haoji Hu: "Structured Pruning for Efficient ConvNets via
Incremental Regularization", IJCNN 2019, arXiv 1804.09461; short version arXiv 1811.08390; smaller kernels from
their "Efficient Convolutional Neural Networks via Incremental Regularization", IEEE JSTSP 2020. In a layer of ``M``
survivors of which ``n`` are still to be removed, with ``r`` the rank of a unit by L1 norm, averaged over time, 0 the
weakest::

    E(W) = L(W) + weight_decay / 2 |W|^2 + sum over units u of penalty_u / 2 |W_u|^2
    Delta(r) = A - (A / n) r  for r <= n, else  -A (r - n) / (M - 1 - n)     (so Delta(0) = A, Delta(n) = 0)
    penalty_u <- max(penalty_u + Delta(r_u), 0);  penalty_u = penalty_max is final

The increments and ranks are in ``methods.ranked.ranking``, the penalties in ``methods.increg.penalties``. What
differs from the paper and the authors' code:

* Units are coupled output channels (the filters of every layer that produces them), so that the network really
  shrinks. Biases and batch norms can be penalised along (``bn_affine_reg``), because a batch norm undoes the
  shrinking of the filters before it. ``granularity="column"`` is the paper's own.
* The paper sets ``A`` and trains until all layers are done. Here the budget is given and ``A`` follows from it
  (``prune_frac``), by the exact number of updates that a layer takes under a stable ranking. Units that are still
  missing when the time is over, because ranks moved, are removed by their penalties (``forced`` in the results).
* Where the optimiser is not SGD, the penalty does not go through its gradient, which would be normalised
  away, but shrinks the weights after the step: ``w / (1 + lr penalty)``.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.contract.method import Method, Preview, Problem, Pruned, Record
from methods.contract.recipe import Recipe
from methods.increg.kernels import Window, cut_kernels, find_largest_area, find_nearest_window
from methods.increg.pacing import Pace, Plan
from methods.increg.penalties import Penalised, Penalties
from methods.network.scope import Shortcuts
from methods.ranked.columns import Columns
from methods.ranked.ranked import (
    Ranked,
    make_pruning_recipe,
    rank_channels,
    rank_columns,
    train_ranked,
)
from methods.ranked.ranking import (
    Increment,
    average_ranks,
    exponential_increment,
    jump_increment,
    linear_increment,
)
from methods.training.one_shot import cut_and_finetune, draw_seed, preview_widths
from spaces import (
    Categorical,
    Condition,
    InputError,
    Integer,
    LayerGroup,
    LogReal,
    Parameter,
    Real,
    Space,
    Sparsity,
    Value,
    sparsity_space,
)

Granularity = Literal["filter", "column", "in_channel", "spatial"]


class IncReg(Method):
    """Incremental regularisation.

    Attributes:
        sparsity: How many units of each group are kept.
        granularity: What a unit is: ``"filter"``, a coupled output channel; ``"column"``, a column of an unrolled
            convolution (the paper), or ``"in_channel"``, all columns of an input channel, both of which save time
            in theory only but for what nothing reads any more; ``"spatial"``, a position of a kernel in all its
            filters, of which a rectangle is left.
        penalty_max: Penalty at which a unit is removed (``lambda_max``), in units of weight decay.
        prune_frac: Share of the budget in which all removals happen; the step of the penalties follows.
        penalty_step: Largest change of a penalty per optimiser step (``A``), in units of weight decay; if
            given, the length of the pruning phase follows from it and ``prune_frac`` is not used.
        stabilize_frac: Share of the budget for training on after the last removal, before the cut.
        lr_prune_factor: Constant learning rate until the cut, in units of the recipe's.
        weight_decay_factor: Weight decay until the cut, in units of the recipe's; the authors have half of it.
        weight_decay: The same as a number; if given, the factor is not used.
        increment: How the change of a penalty falls with the rank: ``"linear"`` (the paper), ``"exp"`` (the
            authors' code) or ``"jump"`` (their second scheme).
        exp_flatness: Value at the centre of the exponential (``u``).
        rank_average: How ranks are averaged over updates: plain ``"mean"``, ``"ema"`` or ``"none"``.
        rank_ema: Decay of that exponential average.
        update_interval: Optimiser steps between updates of the penalties; shortened, as little as possible, where
            the budget has no room for it and ``penalty_step`` is not given.
        rates: Whether penalties of all layers change equally fast (``"network"``) or as ``layer_rates`` has it.
        layer_rates: By name of channel group or layer, what its changes are multiplied with; 1 where not named.
        bn_affine_reg: Whether the unit's biases and norm parameters are penalised like its filters.
        round_to: Widths are multiples of this; kernels have none.
    """

    title: ClassVar[str] = "a penalty for each channel that grows while it is weak"
    source: ClassVar[str] = "Wang, Zhang, Wang, Yu, Hu, 2019, arXiv 1804.09461"
    flops_parameter: ClassVar[str | None] = "sparsity.flops"
    rounds_widths: ClassVar[bool] = True
    by_damage: ClassVar[Mapping[str, Value]] = {"sparsity.mode": "damage"}
    removes_blocks: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Value]]] = {
        "paper": {
            "granularity": "column",
            "increment": "linear",
            "rank_average": "mean",
            "update_interval": 1,
            "penalty_max": 2.5,
            "lr_prune_factor": 0.05,
            "weight_decay_factor": 0.5,
        },
    }
    fixed_by_default: ClassVar[frozenset[str]] = frozenset({"granularity"})

    sparsity: Sparsity
    granularity: Granularity = "filter"
    penalty_max: float = Field(default=2.5, gt=0)
    prune_frac: float = Field(default=0.5, gt=0, lt=1)
    penalty_step: float | None = Field(default=None, gt=0)
    stabilize_frac: float = Field(default=0.05, ge=0, lt=1)
    lr_prune_factor: float = Field(default=1.0, gt=0)
    weight_decay_factor: float = Field(default=0.5, ge=0)
    weight_decay: float | None = Field(default=None, ge=0)
    increment: Literal["linear", "exp", "jump"] = "linear"
    exp_flatness: float = Field(default=0.25, gt=0, lt=1)
    rank_average: Literal["mean", "ema", "none"] = "mean"
    rank_ema: float = Field(default=0.99, ge=0, lt=1)
    update_interval: int = Field(default=1, ge=1)
    rates: Literal["network", "layer"] = "network"
    layer_rates: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    bn_affine_reg: bool = True
    round_to: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Check what one field alone cannot show.

        Returns:
            The method.

        Raises:
            ValueError: If the phases do not fit into the budget, or rates are given for layers but not used.
        """
        if self.prune_frac + self.stabilize_frac > 1:
            raise ValueError(
                f"prune_frac + stabilize_frac must be at most 1, got {self.prune_frac} + {self.stabilize_frac}"
            )
        if bool(self.layer_rates) != (self.rates == "layer"):
            raise ValueError(f"layer_rates go with rates 'layer', got {self.layer_rates} and {self.rates!r}")
        return self

    @classmethod
    def space(cls, groups: Sequence[LayerGroup]) -> Space:
        """Return the search space.

        Only two combinations of ceiling, step and learning rate matter: ``penalty_max / penalty_step`` (the
        duration, hence ``prune_frac``, and no parameter for the step) and ``penalty_max`` times the learning rate
        (what is left of a unit when it goes). A study normally fixes the granularity.

        Args:
            groups: The prunable channel groups.

        Returns:
            The space.
        """
        layer_rates = [f"layer_rates[{group.name}]" for group in groups]
        own: dict[str, Parameter] = {
            "granularity": Categorical(("filter", "column", "in_channel", "spatial"), default="filter"),
            "penalty_max": LogReal(0.1, 10.0, default=2.5),
            "prune_frac": Real(0.2, 0.8, default=0.5),
            "rates": Categorical(("network", "layer"), default="network"),
            **dict.fromkeys(layer_rates, LogReal(0.25, 4.0, default=1.0)),
            "increment": Categorical(("linear", "exp", "jump"), default="linear"),
            "exp_flatness": Real(0.1, 0.75, default=0.25),
            "rank_average": Categorical(("mean", "ema", "none"), default="mean"),
            "rank_ema": Real(0.9, 0.999, default=0.99),
            "update_interval": Integer(1, 20, log=True, default=1),
            "stabilize_frac": Real(0.0, 0.2, default=0.05),  # with prune_frac at most the whole budget
            "lr_prune_factor": LogReal(0.05, 1.0, default=1.0),
            "weight_decay_factor": LogReal(0.02, 4.0, default=0.5),
            "bn_affine_reg": Categorical((False, True), default=True),
        }
        conditions = {
            "exp_flatness": Condition("increment", ("exp",)),
            "rank_ema": Condition("rank_average", ("ema",)),
            "bn_affine_reg": Condition("granularity", ("filter",)),
        }
        conditions |= dict.fromkeys(layer_rates, Condition("rates", ("layer",)))
        return sparsity_space(groups, energy=True, damage=True) | Space(own, conditions)

    def preview(self, problem: Problem) -> Preview | None:
        """Say what the chosen widths cost.

        Args:
            problem: The network.

        Returns:
            The exact cost; ``None`` for units other than channels, whose ranks decide what can be cut.
        """
        if self.granularity != "filter":
            return None
        return preview_widths(problem, self.sparsity, self.round_to)

    def prune(self, problem: Problem) -> Pruned:
        """Penalise until the share is removed, then cut and fine-tune.

        Args:
            problem: The network, the data and the budget.

        Returns:
            The smaller network; ``extra`` holds ``forced``, the number of units removed because the time was
            over, ``residual``, the mean share of a unit's L1 norm that was left when it was removed, and what
            followed from the budget: ``penalty_step`` and ``update_interval``. For columns and input channels also
            ``flops_without_columns``, the theoretical FLOPs; for kernels ``offsets_lost`` and
            ``offsets_regained``, the numbers of positions by which rectangles differ from what was chosen.
        """
        model = copy.deepcopy(problem.model)
        ranked, penalised = self._list_penalised(problem, model)
        if not any(ranked.to_remove):
            return ranked.finetune()
        hook, history = self._train(problem, model, ranked, penalised)
        return ranked.finish(history, hook.standing.removed, hook.results())

    def check(self, problem: Problem) -> None:
        """Refuse a budget in which the units cannot be removed; warn of penalties under which SGD is unstable.

        Args:
            problem: The network, the data and the budget.
        """
        ranked, _ = self._list_penalised(problem, copy.deepcopy(problem.model))
        if any(ranked.to_remove):
            self.plan(problem.steps, ranked.layers, ranked.to_remove, ranked.rates)
            self._warn_if_unstable(self._recipe(problem.recipe))

    def _list_penalised(self, problem: Problem, model: nn.Module) -> tuple[Ranked, Penalised]:
        """Say what of the model is penalised, and how much of it goes."""
        match self.granularity:
            case "filter":
                return self._channels(problem, model)
            case "spatial":
                return self._kernels(problem, model)
            case bundle:
                columns = Columns(model, problem.example, problem.groups, bundle)
                ranked = rank_columns(problem, model, columns, self.sparsity, self.round_to, self.layer_rates)
                return ranked, _penalise_columns(columns, ranked)

    def _channels(self, problem: Problem, model: nn.Module) -> tuple[Ranked, Penalised]:
        """Penalise coupled channels."""
        units, ranked = rank_channels(problem, model, self.sparsity, self.round_to, self.layer_rates)
        return ranked, Penalised(
            units,
            [layer.name for layer in ranked.layers],
            ranked.to_remove,
            ranked.rates,
            [*units.producers, *(units.affine if self.bn_affine_reg else ())],
            # Consumers are silenced too, for an activation may carry something into a channel that nothing produces.
            [*units.producers, *units.affine, *units.consumers],
            Shortcuts(model, ranked.groups, units.valid).close,
            ranked.measure,
        )

    def _kernels(self, problem: Problem, model: nn.Module) -> tuple[Ranked, Penalised]:
        """Penalise the positions of kernels, of which rectangles are to be left."""
        groups = problem.groups
        columns = Columns(model, problem.example, groups, "offset")

        def cost(kept: Mapping[str, int]) -> int:
            shapes = {name: columns.weights[name].shape for name in kept}
            return columns.flops({
                name: find_largest_area(shapes[name][2], shapes[name][3], positions) for name, positions in kept.items()
            })

        def measure(removed: Tensor) -> Record:
            return {"flops_if_cut": float(cost(columns.counts(removed)))}

        def finish(history: Sequence[Record], removed: Tensor, extra: Mapping[str, float]) -> Pruned:
            windows = _windows(columns, removed)
            inside = [(window.mask(*chosen.shape), chosen) for window, chosen in windows.values()]
            differences = {
                "offsets_lost": float(sum(int((chosen & ~mask).sum()) for mask, chosen in inside)),
                "offsets_regained": float(sum(int((mask & ~chosen).sum()) for mask, chosen in inside)),
            }
            smaller = cut_kernels(model, {name: window for name, (window, _) in windows.items()})
            kept = {group.name: list(range(group.channels)) for group in groups}
            found = {**extra, **differences}
            return cut_and_finetune(problem, groups, kept, model=smaller, history=history, extra=found)

        ranked = rank_columns(problem, model, columns, self.sparsity, 1, self.layer_rates, cost)
        ranked = replace(ranked, measure=measure, finish=finish)
        return ranked, _penalise_columns(columns, ranked)

    def _train(
        self, problem: Problem, model: nn.Module, ranked: Ranked, penalised: Penalised
    ) -> tuple[Penalties, list[Record]]:
        """Train with penalties until all units that are to go have gone."""
        plan = self.plan(problem.steps, ranked.layers, ranked.to_remove, ranked.rates)
        recipe = self._recipe(problem.recipe)
        self._warn_if_unstable(recipe)
        hook = self.hook(penalised, plan, coupled=recipe.optimizer == "sgd")
        steps, seed = plan.prune_steps + plan.stabilize_steps, draw_seed(problem.generator)
        return hook, train_ranked(problem, model, recipe, steps, seed, hook, "penalise")

    def hook(self, penalised: Penalised, plan: Plan, coupled: bool) -> Penalties:
        """Make the hook that penalises.

        Args:
            penalised: What is penalised.
            plan: When to remove, and how fast penalties change.
            coupled: Whether penalties go through the gradient.

        Returns:
            The hook.
        """
        average = partial(average_ranks, how=self.rank_average, decay=self.rank_ema)
        return Penalties(penalised, plan, self.penalty_max, self.increment_by_rank(), average, coupled)

    def plan(
        self, steps: int, layers: Sequence[LayerGroup], to_remove: Sequence[int], rates: Sequence[float] = ()
    ) -> Plan:
        """Divide the budget and derive the step of the penalties from it.

        Args:
            steps: The budget in optimiser steps.
            layers: What is pruned.
            to_remove: Units to be removed from each layer; not all zero.
            rates: What the step is multiplied with in each layer; by default 1.

        Returns:
            The plan.

        Raises:
            InputError: If the budget is too short, which says which would do and how far this one goes.
        """
        pace = Pace(self.penalty_max, self.increment_by_rank(), layers, to_remove, rates or [1.0] * len(layers))
        stabilize, interval = int(self.stabilize_frac * steps), self.update_interval
        step = pace.fastest if self.penalty_step is None else self.penalty_step * interval
        least, room = pace.updates(step), self._room(steps)
        if least > room:
            enough = next(more for more in itertools.count(steps) if self._room(more) >= least)
            reached, number, layer = pace.measure_shortfall(step, room)
            raise InputError(
                f"increg cannot remove {number} of {layer.channels} units of {layer.name!r} within {steps} steps; it "
                f"needs at least {enough}, and {steps} reach a ratio of {reached / layer.channels:.3f} "
                f"({reached} of {layer.channels})"
            )
        if self.penalty_step is not None:
            return Plan(step, interval, interval * least, stabilize)
        interval = min(interval, (room - 1) // (least - 1)) if least > 1 else interval
        return Plan(pace.step_for(ceil(room / interval)), interval, room, stabilize)

    def _room(self, steps: int) -> int:
        """How many updates a budget has room for; as close to each other as possible, if ``A`` is not given."""
        if self.penalty_step is None:
            return int(self.prune_frac * steps)
        return (steps - int(self.stabilize_frac * steps)) // self.update_interval

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
        return make_pruning_recipe(recipe, self.lr_prune_factor, self.weight_decay_factor, self.weight_decay)

    def _warn_if_unstable(self, recipe: Recipe) -> None:
        """Warn of a penalty under which SGD with momentum oscillates without bound."""
        # Heavy ball: lr h < 2 (1 + mu); Nesterov's form: lr h < 2 (1 + mu) / (1 + 2 mu).
        limit = 2 * (1 + recipe.momentum) / (1 + 2 * recipe.momentum * recipe.nesterov)
        if recipe.optimizer == "sgd" and recipe.lr * self.penalty_max >= limit:
            warnings.warn(
                f"increg: learning rate * penalty_max = {recipe.lr:.4g} * {self.penalty_max:.4g} makes SGD with "
                f"momentum {recipe.momentum} unstable; it should be below {limit:.3g} (lower lr_prune_factor or "
                "penalty_max)",
                stacklevel=2,
            )


def _penalise_columns(columns: Columns, ranked: Ranked) -> Penalised:
    """Penalise and silence columns themselves."""
    slices = columns.list_slices()
    names, measure = columns.names, ranked.measure
    return Penalised(columns, names, ranked.to_remove, ranked.rates, slices, slices, measure=measure)


def _windows(columns: Columns, removed: Tensor) -> dict[str, tuple[Window, Tensor]]:
    """Choose the rectangles that are left of kernels, and say which positions were chosen; waits for the device."""
    kept, norms = (columns.valid & ~removed).cpu(), columns.l1().cpu()
    windows = {}
    for row, (name, weight) in enumerate(columns.weights.items()):
        shape = weight.shape[2:]
        chosen, l1 = (table[row, : shape.numel()].view(shape) for table in (kept, norms))
        windows[name] = find_nearest_window(chosen, l1), chosen
    return windows
