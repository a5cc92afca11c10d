"""SPP: each channel has a probability of its own of being left out, and only what arrives at 1 is removed.

Every optimiser step trains another thinned network, newly drawn. The probabilities of weak channels rise from
update to update, those of strong ones fall, so that a channel that becomes important comes back, and the rest
of the network learns to do without the others long before they go. Then the network is cut and fine-tuned.

Huan Wang, Qiming Zhang, Yuehai Wang, Haoji Hu: "Structured Probabilistic Pruning for Convolutional Neural
Network Acceleration", BMVC 2018, arXiv 1709.06994. In a layer of which ``n`` units are still to be removed, with
``r`` the rank of a unit by L1 norm among the survivors, 0 the weakest::

    (2)  the network of a step has weights W_u g_u,  g_u ~ Bernoulli(1 - p_u)
    (3)  Delta(r) = A e^(-alpha r) for r <= N, else 2 u A - A e^(-alpha (2 N - r)),
         alpha = ln(2 / u) / n,  N = ln(1 / u) / alpha          (so Delta(0) = A, Delta(n) = 0)
    (4)  every t steps:  p_u <- min(max(p_u + Delta(r_u), 0), 1);  p_u = 1 is final

Equation 3 and the ranks are in ``methods.ranked.ranking``, equations 2 and 4 in ``methods.spp.probabilities``,
the thinned network in ``methods.network.thinning``. What differs from the paper and the authors' code:

* Units are coupled output channels (filters of every layer that produces them, their biases and norms, what
  reads them), so that the network really shrinks. ``granularity="column"`` is the paper's own.
* The paper sets ``t`` and trains until all layers are done. Here the budget is given and ``t`` follows from it
  (``prune_frac``), by the number of updates that a layer takes under a stable ranking, with a margin of
  :data:`MARGIN` for rankings that are not. Where even an update per step is too slow, ``A`` is raised. What is
  still missing when the time is over is removed by probability (``forced`` in the results).
* A unit that is left out stands still: no gradient, no momentum, no weight decay. In the authors' code its
  momentum is lost and it decays on, a drift towards removal.
* Gradients are those of the thinned network; the authors' code computes those of the inputs with all weights.
* Accuracies are those of the network without the removed units, never of a drawn one, and batch norm is
  estimated again before they are taken.
"""

from __future__ import annotations

import copy
import itertools
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import nn

from methods.contract.method import Method, Preview, Problem, Pruned, Record
from methods.contract.recipe import Recipe, derive_seed
from methods.network.scope import Shortcuts
from methods.network.thinning import Thinning
from methods.network.units import Scored
from methods.ranked.columns import Bundle, Columns
from methods.ranked.ranked import (
    Ranked,
    make_pruning_recipe,
    rank_channels,
    rank_columns,
    train_ranked,
)
from methods.ranked.ranking import Increment, average_ranks, exponential_increment, find_ceiling, updates_to_finish
from methods.spp.probabilities import Plan, Probabilities
from methods.training.evaluation import recalibrate
from methods.training.one_shot import draw_seed, preview_widths
from spaces import (
    Categorical,
    Condition,
    InputError,
    LayerGroup,
    LogReal,
    Parameter,
    Real,
    Space,
    Sparsity,
    Value,
    sparsity_space,
)

MARGIN = 1.7
"""How many times the updates under a stable ranking are planned for: real rankings near the cut are not stable."""


class SPP(Method):
    """Structured probabilistic pruning of coupled channels.

    Attributes:
        sparsity: How many units of each group are kept.
        probability_step: Largest change of a probability per update (``A``); raised, as little as possible,
            where the budget is too short for it and ``update_interval`` is not given.
        flatness: Value at the centre of the increment function (``u``): how much of the largest change the
            ranks in the middle of those to be removed get.
        prune_frac: Share of the budget in which all removals happen.
        update_interval: Optimiser steps between updates of the probabilities (``t``); by default as many as
            the budget has room for.
        rank_average: How ranks are averaged over updates: ``"none"`` (the paper), ``"ema"`` or plain ``"mean"``.
        rank_ema: Decay of that exponential average.
        rates: Whether probabilities of all layers change equally fast (``"network"``) or as ``layer_rates`` has it.
        layer_rates: By name of channel group or layer, what its changes are multiplied with; 1 where not named.
        lr_prune_factor: Constant learning rate until the cut, in units of the recipe's.
        weight_decay_factor: Weight decay until the cut, in units of the recipe's; the authors have half of it.
        weight_decay: The same as a number; if given, the factor is not used.
        granularity: What a unit is: ``"filter"``, a coupled output channel; ``"column"``, a column of an unrolled
            convolution (the paper); or ``"in_channel"``, all columns of one input channel. The latter two save time in
            theory only, but for channels that nothing reads any more; a FLOPs target counts them as saved.
        round_to: Widths are multiples of this.
    """

    title: ClassVar[str] = "units dropped at random, the weak ever more often, until for good"
    source: ClassVar[str] = "Wang, Zhang, Wang, Hu, 2018, arXiv 1709.06994"
    flops_parameter: ClassVar[str | None] = "sparsity.flops"
    rounds_widths: ClassVar[bool] = True
    by_damage: ClassVar[Mapping[str, Value]] = {"sparsity.mode": "damage"}
    removes_blocks: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Value]]] = {
        "paper": {
            "granularity": "column",
            "probability_step": 0.05,
            "flatness": 0.25,
            "rank_average": "none",
            "lr_prune_factor": 0.05,
            "weight_decay_factor": 0.5,
        },
    }
    fixed_by_default: ClassVar[frozenset[str]] = frozenset({"granularity"})

    sparsity: Sparsity
    probability_step: float = Field(default=0.05, gt=0, le=1)
    flatness: float = Field(default=0.25, gt=0, lt=1)
    prune_frac: float = Field(default=0.5, gt=0, lt=1)
    update_interval: int | None = Field(default=None, ge=1)
    rank_average: Literal["none", "ema", "mean"] = "none"
    rank_ema: float = Field(default=0.9, ge=0, lt=1)
    rates: Literal["network", "layer"] = "network"
    layer_rates: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    lr_prune_factor: float = Field(default=1.0, gt=0)
    weight_decay_factor: float = Field(default=0.5, ge=0)
    weight_decay: float | None = Field(default=None, ge=0)
    granularity: Literal["filter", "column", "in_channel"] = "filter"
    round_to: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Check what one field alone cannot show.

        Returns:
            The method.

        Raises:
            ValueError: If fields contradict each other.
        """
        if bool(self.layer_rates) != (self.rates == "layer"):
            raise ValueError(f"layer_rates go with rates 'layer', got {self.layer_rates} and {self.rates!r}")
        return self

    @classmethod
    def space(cls, groups: Sequence[LayerGroup]) -> Space:
        """Return the search space: sparsity, shape of the increments, length and learning rate of pruning.

        The time between updates follows from ``prune_frac`` and the budget and is no parameter.

        Args:
            groups: The prunable channel groups.

        Returns:
            The space.
        """
        layer_rates = [f"layer_rates[{group.name}]" for group in groups]
        own: dict[str, Parameter] = {
            "granularity": Categorical(("filter", "column", "in_channel"), default="filter"),
            "probability_step": LogReal(0.02, 0.5, default=0.05),
            "rates": Categorical(("network", "layer"), default="network"),
            **dict.fromkeys(layer_rates, LogReal(0.25, 4.0, default=1.0)),
            "flatness": Real(0.1, 0.75, default=0.25),
            "prune_frac": Real(0.1, 0.8, default=0.5),
            "rank_average": Categorical(("none", "ema", "mean"), default="none"),
            "rank_ema": Real(0.5, 0.99, default=0.9),
            "lr_prune_factor": LogReal(0.1, 3.0, default=1.0),
            "weight_decay_factor": LogReal(0.02, 4.0, default=0.5),
        }
        conditions = {"rank_ema": Condition("rank_average", ("ema",))}
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
        """Thin out at random until the share is removed, then cut and fine-tune.

        Args:
            problem: The network, the data and the budget.

        Returns:
            The smaller network; ``extra`` holds ``forced``, the number of units removed because the time was
            over, and what followed from the budget: ``update_interval`` and ``probability_step``. For columns
            also ``flops_without_columns``, the theoretical FLOPs.
        """
        model = copy.deepcopy(problem.model)
        table, ranked, thinning = self._list_thinned(problem, model)
        if not any(ranked.to_remove):
            return ranked.finetune()
        hook, history = self._train(problem, model, table, ranked, thinning)
        return ranked.finish(history, hook.standing.removed, hook.results())

    def check(self, problem: Problem) -> None:
        """Refuse a budget in which the units cannot be removed.

        Args:
            problem: The network, the data and the budget.
        """
        _, ranked, _ = self._list_thinned(problem, copy.deepcopy(problem.model))
        if any(ranked.to_remove):
            self.plan(problem.steps, ranked.layers, ranked.to_remove, ranked.rates)

    def _list_thinned(self, problem: Problem, model: nn.Module) -> tuple[Scored, Ranked, Thinning]:
        """Say what of the model is thinned out, and how much of it goes."""
        if self.granularity == "filter":
            units, ranked = rank_channels(problem, model, self.sparsity, self.round_to, self.layer_rates)
            own, lanes = [*units.producers, *units.affine], Shortcuts(model, ranked.groups, units.valid)
            return units, ranked, Thinning(own, units.consumers, units.valid.numel(), lanes.close)
        bundle: Bundle = "in_channel" if self.granularity == "in_channel" else "column"
        columns = Columns(model, problem.example, problem.groups, bundle)
        ranked = rank_columns(problem, model, columns, self.sparsity, self.round_to, self.layer_rates)
        return columns, ranked, Thinning([], columns.list_slices(), columns.valid.numel())

    def _train(
        self, problem: Problem, model: nn.Module, table: Scored, ranked: Ranked, thinning: Thinning
    ) -> tuple[Probabilities, list[Record]]:
        """Train thinned networks until all units that are to go have gone."""
        plan = self.plan(problem.steps, ranked.layers, ranked.to_remove, ranked.rates)
        recipe, seed = self._recipe(problem.recipe), draw_seed(problem.generator)
        hook = Probabilities(
            table,
            [layer.name for layer in ranked.layers],
            ranked.to_remove,
            plan,
            thinning,
            self.increment(),
            partial(average_ranks, how=self.rank_average, decay=self.rank_ema),
            derive_seed(seed, 0),
            ranked.rates,
            ranked.measure,
            lambda step: recalibrate(
                model, problem.train, recipe.recalibrate, recipe.batch_size, derive_seed(seed, 1, step)
            ),
        )
        if recipe.clip_norm is not None:
            thinning.mask_gradients()
        history = train_ranked(problem, model, recipe, plan.prune_steps, derive_seed(seed, 2), hook, "thin")
        return hook, history

    def plan(
        self, steps: int, layers: Sequence[LayerGroup], to_remove: Sequence[int], rates: Sequence[float] = ()
    ) -> Plan:
        """Derive the time between updates from the budget.

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
        increment, prune_steps = self.increment(), int(self.prune_frac * steps)
        rated = list(zip(rates or [1.0] * len(layers), to_remove, layers, strict=True))
        # Time depends on the number to be removed and the rate: of each rate one layer is the slowest.
        slow = {rate: (n, layer) for rate, n, layer in sorted(rated, key=lambda entry: entry[1])}

        def count_needed_updates(step: float) -> int:
            return max(_updates(step * rate, n, increment) for rate, (n, _) in slow.items())

        step, interval = self.probability_step, self.update_interval
        if interval is None:
            interval = int(prune_steps / (MARGIN * count_needed_updates(step)))
            if interval == 0:
                interval, room = 1, int(prune_steps / MARGIN)
                fits = max(1 / (rate * find_ceiling(room, n, 2 * n, increment)) for rate, (n, _) in slow.items() if n)
                step = min(1.0, max(step, fits))
        updates = prune_steps // interval
        if count_needed_updates(step) > updates:
            least = count_needed_updates(step) * interval
            enough = next(s for s in itertools.count(least) if int(self.prune_frac * s) >= least)
            rate, (n, layer) = max(slow.items(), key=lambda item: _updates(step * item[0], item[1][0], increment))
            reached = bisect_right(range(1, n), updates, key=lambda fewer: _updates(step * rate, fewer, increment))
            raise InputError(
                f"spp cannot remove {n} of {layer.channels} units of {layer.name!r} within {steps} steps; it needs at "
                f"least {enough}, and {steps} reach a ratio of {reached / layer.channels:.3f} "
                f"({reached} of {layer.channels})"
            )
        return Plan(step, interval, prune_steps)

    def increment(self) -> Increment:
        """Return how the change of a probability falls with the rank (equation 3).

        Returns:
            The increment function, in units of ``probability_step``.
        """
        return partial(exponential_increment, flatness=self.flatness)

    def _recipe(self, recipe: Recipe) -> Recipe:
        """Return the recipe of the pruning phase: survivors must be able to learn as long as units go."""
        return make_pruning_recipe(recipe, self.lr_prune_factor, self.weight_decay_factor, self.weight_decay)


def _updates(step: float, to_remove: int, increment: Increment) -> int:
    """Count the updates that a layer takes under a stable ranking; its width does not matter."""
    return updates_to_finish(1 / step, to_remove, 2 * to_remove, increment)
