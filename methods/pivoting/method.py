"""Matrix pivoting: rows and columns of each layer are put into an order in which what is kept forms dense blocks.

The order of the channels between layers is arbitrary. A search finds orders that bring the important coefficients
of every layer into a few blocks, everything outside is removed, and the blocks run as dense kernels (grouped
convolutions, batched matrix products): time falls nearly as the number of coefficients does. That removes no channel;
each loses most of its inputs. The orders are folded into the neighbouring layers.

Ranko Sredojevic, Shaoyi Cheng, Lazar Supic, Rawan Naous, Vladimir Stojanovic: "Structured Deep Neural Network
Pruning via Matrix Pivoting", 2017, arXiv 1712.01084.

Of the paper we had only the abstract: pivoting by exchange of rows and columns, local and global optimisation of
how the result runs, a speed-up close to linear. The algorithms are our own: alternating exact assignments
(``methods.pivoting.pivots``), joint orders of channel spaces (``methods.pivoting.pivoted_network``), training that
moves weight into the blocks (``methods.pivoting.concentration``). ``mode="random_mask"`` is the follow-up by the same
group, MPDCompress (Supic et al., 2018, arXiv 1805.12085).

One pass:

1. Channels do a part of the reduction first (``channel_share``), by the L1 norms of their filters, with widths by
   measured damage where ``sparsity`` says so; fewer go where blocks, which come in few sizes, save more than was left
   for them. Where blocks cannot do the rest, they may be narrower (``least_side``), and where that is not enough
   either more channels go, as few as will do. What they have done is reported (``channel_share``), and warned of
   where it is most of the reduction.
2. The number of blocks of each layer follows from the target, by what the layer would lose per operation saved.
3. Pivots are searched for all layers together, at once or again and again while training (``mode``).
4. The network is rewritten: only the blocks are stored and trained from then on.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import fsum, log
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.contract.method import Method, Preview, Problem, Pruned, Record
from methods.contract.recipe import derive_seed
from methods.network.channels import ChannelGroup, Kept, cut
from methods.network.cost import count
from methods.network.importance import l1_importance
from methods.pivoting.block_budget import (
    Candidates,
    Damage,
    energy_damage,
    loss_damage,
    tilt_damages,
)
from methods.pivoting.block_matrices import Booleans, Pivots, Structure
from methods.pivoting.blocking import DENSE, Choice, allocate, choose_nearest
from methods.pivoting.blocks import PivotedConv2d, PivotedLinear, count_moved_bytes
from methods.pivoting.concentration import Concentration, Score, Scores, noise, share_retained, survivors
from methods.pivoting.division import Division, Split, Target
from methods.pivoting.pivoted_network import (
    Coupling,
    Plan,
    apply_masks,
    compact,
    count_separate_gathers,
    plan_for,
    repair_mixing,
)
from methods.pivoting.pivots import sample_pivots, search
from methods.training.one_shot import cut_and_finetune, draw_seed, keep_top
from methods.training.precision import choose_half_type
from methods.training.trainer import Trainer, evaluate, recalibrate
from spaces import (
    ByDamage,
    Categorical,
    Condition,
    FlopsTarget,
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

CHOICE_SEED = 0
"""Decides the images by which a share of the FLOPs is given out."""

GRADIENT_BATCHES = 8
"""Batches from which gradients for scores, and losses for sensitivities, are taken."""


@dataclass(frozen=True)
class _Blocked:
    """What was decided before any pivot is searched.

    Attributes:
        model: The network without the channels that were removed.
        kept: Kept units of each channel group.
        chosen: How each layer is blocked.
        layers: The layers that could have been.
    """

    model: nn.Module
    kept: Kept
    chosen: Mapping[str, Choice]
    layers: Candidates

    def count(self) -> Preview:
        """Count the operations and weights that are left, wherever the blocks will lie."""
        flops, params = self.layers.rest, sum(parameter.numel() for parameter in self.model.parameters())
        for shape in self.layers.shapes:
            weight = self.model.get_submodule(shape.name).weight
            assert isinstance(weight, Tensor)
            flops += self.chosen[shape.name].count_left(shape.flops)
            params -= weight.numel() - self.chosen[shape.name].count_left(weight.numel())
        return Preview(flops, params)


class Pivoting(Method):
    """Dense blocks by pivoting.

    Attributes:
        sparsity: How much is removed. A FLOPs target is shared out over the layers; a ratio ``r`` of a group
            leaves the layers that make it ``(1 - r)^2`` of their coefficients, as removing the share ``r`` of
            all channels would.
        mode: ``"one_shot"``: pivot the trained network and cut; ``"gradual"``: shrink what lies outside the blocks
            while training, and move the blocks; ``"from_unstructured"``: pivot what magnitude pruning of single
            weights would leave; ``"random_mask"``: random blocks.
        coupling: ``"folded"``: orders are shared by neighbouring layers, by ``"perfect_shuffle"`` or
            ``"shared_order"``, whichever fits the structure; ``"free"``: every layer gathers its inputs.
        structure: ``"block_diag"``: each cluster of rows reads one cluster of columns of its own;
            ``"block_sparse"``: each reads ``degree`` of them; ``"bsr"``: the best blocks anywhere.
        degree: Clusters of columns that a cluster of rows reads (not with ``"block_diag"``).
        block_side: Side of square blocks (not with ``"block_diag"``); by default it follows from density and
            degree.
        score: What pivots maximise inside the blocks.
        restarts: Random starts of the search besides the spectral one.
        channel_share: Least share of the reduction (of the logarithm of FLOPs) that is done by removing channels, by
            measured damage where ``sparsity`` says so; with a FLOPs target more, as little as will do, where blocks do
            not reach it, and less where they save more than they are to.
        channel_tilt: Where channels are removed for a FLOPs target: ``sparsity.tilt`` if None; negative: in early
            layers, whose large images make narrow blocks slow, so that blocks are left to the deep ones.
        sensitivity: What a layer loses by blocks: ``"energy"``, the share of its scores outside them, or
            ``"loss"``, the rise of the training loss when it alone is masked.
        min_side: Blocks are at least so high and wide; narrower ones save operations but hardly any time.
        least_side: Where blocks of ``min_side`` do not reach a FLOPs target, they may be so narrow before channels go.
        ramp: Share of the budget in which weights are moved into the blocks (``"gradual"``).
        pivot_interval: Optimiser steps between searches (``"gradual"``).
        decay: How much a weight outside the blocks shrinks per step at the end of the ramp (``"gradual"``).
        round_to: Widths are multiples of this where channels are removed.
    """

    title: ClassVar[str] = "rows and columns permuted into dense blocks"
    source: ClassVar[str] = "Sredojevic, Cheng, Supic, Naous, Stojanovic, 2017, arXiv 1712.01084"
    flops_parameter: ClassVar[str | None] = "sparsity.flops"
    rounds_widths: ClassVar[bool] = True
    by_damage: ClassVar[Mapping[str, Value]] = {"sparsity.mode": "damage"}
    presets: ClassVar[Mapping[str, Mapping[str, Value]]] = {"paper": {"mode": "one_shot", "channel_share": 0.0}}
    layers: ClassVar[tuple[type[nn.Module], ...]] = (PivotedConv2d, PivotedLinear)

    sparsity: Sparsity
    mode: Literal["one_shot", "gradual", "from_unstructured", "random_mask"] = "gradual"
    coupling: Literal["folded", "free", "perfect_shuffle", "shared_order"] = "folded"
    structure: Structure = "block_diag"
    degree: int = Field(default=2, ge=1)
    block_side: int | None = Field(default=None, ge=1)
    score: Score = "energy"
    restarts: int = Field(default=3, ge=0)
    channel_share: float = Field(default=0.5, ge=0, le=1)
    channel_tilt: float | None = Field(default=None, ge=-1, le=1)
    sensitivity: Literal["energy", "loss"] = "energy"
    min_side: int = Field(default=8, ge=1)
    least_side: int = Field(default=4, ge=1)
    ramp: float = Field(default=0.3, gt=0, lt=1)
    pivot_interval: int = Field(default=50, ge=1)
    decay: float = Field(default=1e-2, gt=0, le=1)
    round_to: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Check what one field alone cannot show."""
        wrong = "shared_order" if self.structure == "block_diag" else "perfect_shuffle"
        if self.coupling == wrong:
            raise ValueError(
                f"coupling {wrong!r} does not go with structure {self.structure!r}; use 'folded' or 'free'"
            )
        if isinstance(self.sparsity, ByDamage) and self.sparsity.blocks:
            raise ValueError("this method keeps every residual block: leave sparsity.blocks out")
        if self.tied == "shared_order" and self.degree < 2:
            raise ValueError("degree must be at least 2 with a shared order: layers that read one slab never mix")
        return self

    @property
    def tied(self) -> Coupling:
        """What ties the columns of layers to the orders of channels."""
        if self.coupling != "folded":
            return self.coupling
        return "perfect_shuffle" if self.structure == "block_diag" else "shared_order"

    @classmethod
    def space(cls, groups: Sequence[LayerGroup]) -> Space:
        """Return the search space: sparsity, structure, coupling, mode and what belongs to them.

        Args:
            groups: The prunable channel groups.

        Returns:
            The space.
        """
        own: dict[str, Parameter] = {
            "channel_share": Real(0.0, 1.0, default=0.5),
            "mode": Categorical(("one_shot", "gradual", "from_unstructured", "random_mask"), default="gradual"),
            "ramp": Real(0.1, 0.5, default=0.3),
            "pivot_interval": Integer(10, 2000, log=True, default=50),
            "decay": LogReal(1e-3, 5e-2, default=1e-2),
            "coupling": Categorical(("folded", "free"), default="folded"),
            "structure": Categorical(("block_diag", "block_sparse", "bsr"), default="block_diag"),
            "degree": Integer(2, 4, default=2),
            "score": Categorical(("energy", "l1", "taylor", "fisher"), default="energy"),
            "sensitivity": Categorical(("energy", "loss"), default="energy"),
        }
        gradual = Condition("mode", ("gradual",))
        conditions = dict.fromkeys(("ramp", "pivot_interval", "decay"), gradual)
        conditions["degree"] = Condition("structure", ("block_sparse", "bsr"))
        return sparsity_space(groups, damage=True) | Space(own, conditions)

    @property
    def has_costly_preview(self) -> bool:
        """A share of the FLOPs is given out by what blocks cost the trained layers."""
        return isinstance(self.sparsity, Target)

    def preview(self, problem: Problem) -> Preview:
        """Say what the network will cost: how dense each layer stays is known before its pivots are.

        Args:
            problem: The network; trained, where a share of the FLOPs is to be given out.

        Returns:
            The exact cost, however the pivots are found.
        """
        groups = problem.groups
        if isinstance(self.sparsity, Target):
            return self._block_by_target(problem, groups, self.sparsity)[0].count()
        widths, densities = self._shares(problem)
        narrow = cut(problem.model, groups, {name: list(range(width)) for name, width in widths.items()})
        layers, fits = self.divide(problem).list_candidates(narrow, self.min_side)
        return _Blocked(narrow, {}, choose_nearest(layers.shapes, layers.options, densities, fits), layers).count()

    def prune(self, problem: Problem) -> Pruned:
        """Remove channels where asked for, pivot, rewrite, and fine-tune.

        Args:
            problem: The network, the data and the budget.

        Returns:
            The network of blocks. ``extra`` holds ``retained`` (mean share of the scores inside the blocks when
            they were cut out) with ``retained[LAYER]`` and ``density[LAYER]``; ``blocks[LAYER]`` (1 for layers
            that stay dense); ``gathers`` (orders of channels that are still made when the network runs),
            ``gathers_alone`` (how many that would be if every layer were looked at by itself, and none folded into
            its neighbours) and ``moved_bytes`` (what is copied to bring inputs into blocks, for one input);
            ``flops_share`` and
            ``flops_share_channels`` (what the removal of channels alone left), and ``channel_share``, the share of the
            reduction (of the logarithm of FLOPs) that this is: 1 if no layer could be blocked, and the result is that
            of L1 norms; ``blocked`` (layers of blocks) and ``side`` (the least side they may have); ``unmixed``
            (layers at which parts of the network do not know of each other); ``untraceable`` (1 if the graph could
            not be followed, so that no order could be folded).
        """
        seed = draw_seed(problem.generator)
        groups = problem.groups
        side = self.min_side
        if isinstance(self.sparsity, Target):
            blocked, side = self._block_by_target(problem, groups, self.sparsity)
        else:
            blocked = self._block_by_ratio(problem, groups, derive_seed(seed, 0))
        plan = plan_for(blocked.layers.spaces, blocked.chosen, self.structure, self.tied)
        small, history, extra = blocked.model, list[Record](), {"unmixed": 0.0, "gathers_alone": 0.0}
        if plan.names:
            plan, pivots, history, extra = self._find_pivots(problem, blocked, plan, derive_seed(seed, 1))
            small = compact(blocked.model, plan, pivots)
        extra |= _costs(problem, blocked, small) | {"side": float(side)}
        whole = {group.name: list(range(group.channels)) for group in groups}  # what had to go is gone
        pruned = cut_and_finetune(problem, groups, whole, model=small, history=history, extra=extra)
        return replace(pruned, kept=blocked.kept)

    def _find_pivots(
        self, problem: Problem, blocked: _Blocked, plan: Plan, seed: int
    ) -> tuple[Plan, Pivots, list[Record], dict[str, float]]:
        """Find the pivots, at once or while training."""
        model, names = blocked.model, plan.names
        scores = Scores(model, names, self.score, problem.task)
        scores.look(problem.train, GRADIENT_BATCHES, problem.recipe.batch_size, derive_seed(seed, 0))
        entries = scores.entries()
        if self.mode == "from_unstructured":
            densities = {name: blocked.chosen[name].density for name in names}
            entries = survivors(entries, scores.weights, densities)
        if self.mode == "random_mask":
            entries = noise(entries, derive_seed(seed, 1))
            pivots = sample_pivots(plan.fill_scores(entries), plan.slots, derive_seed(seed, 2), plan.still)
        else:
            start = derive_seed(seed, 3)
            pivots = search(plan.fill_scores(entries), plan.slots, restarts=self.restarts, seed=start, still=plan.still)
        plan, pivots, failing = repair_mixing(plan, pivots, entries, derive_seed(seed, 4))
        history: list[Record] = []
        steps = int(self.ramp * problem.steps) if self.mode == "gradual" else 0
        if steps:
            hook, history = self._ramp(problem, model, scores, plan, pivots, steps, derive_seed(seed, 5))
            plan, pivots, failing = repair_mixing(plan, hook.pivots, scores.entries(), derive_seed(seed, 6))
        inside = share_retained(scores.entries(), plan.masks(pivots))
        extra = {f"retained[{name}]": share for name, share in inside.items()}
        extra |= {"retained": fsum(inside.values()) / len(inside), "unmixed": float(len(failing))}
        extra |= {"gathers_alone": float(count_separate_gathers(plan, pivots))}
        return plan, pivots, history, extra

    def _ramp(
        self, problem: Problem, model: nn.Module, scores: Scores, plan: Plan, pivots: Pivots, steps: int, seed: int
    ) -> tuple[Concentration, list[Record]]:
        """Train the network while its weight moves into the blocks."""

        def measure(masks: Mapping[str, Booleans]) -> Record:
            return _measure_blocks(model, masks, problem, derive_seed(seed, 0))

        hook = Concentration(scores, plan, pivots, steps, self.pivot_interval, self.decay, measure)
        trainer = Trainer(
            model,
            problem.train,
            problem.recipe.with_changes(schedule="constant", warmup=0),
            steps,
            derive_seed(seed, 1),
            hook=hook,
            teacher=problem.model,
            report=problem.report,
            task=problem.task,
        )
        return hook, list(problem.session.train("concentrate", trainer))

    # --- channels, and blocks per layer ---

    def check(self, problem: Problem) -> None:
        """Refuse a FLOPs target that cannot be reached; warn where channels, not blocks, would do most of it.

        Args:
            problem: The network and the budget.
        """
        if not isinstance(self.sparsity, Target):
            return
        # Nothing is measured yet: where damage will decide, with equal shares of all groups.
        target = self.sparsity if isinstance(self.sparsity, FlopsTarget) else FlopsTarget(flops=self.sparsity.flops)
        split = next(self.divide(problem).yield_splits(target))
        if split.share > max(self.channel_share, 0.5):
            warnings.warn(
                f"pivoting: blocks of at least {min(self.min_side, self.least_side)} channels a side do not reach "
                f"{self.sparsity.flops:.3g} of the FLOPs of this network; removing channels by L1 norms does "
                f"{split.share:.0%} of the reduction",
                stacklevel=2,
            )

    def divide(self, problem: Problem) -> Division:
        """Say what divides the reduction of a network between channels and blocks.

        Args:
            problem: The network.

        Returns:
            The division, with this method's settings.
        """
        return Division(
            problem=problem,
            structure=self.structure,
            coupling=self.tied,
            degree=max(2, self.degree) if self.tied == "shared_order" else self.degree,
            block_side=self.block_side,
            sides=tuple(dict.fromkeys((self.min_side, min(self.min_side, self.least_side)))),
            channel_share=self.channel_share,
            channel_tilt=self.channel_tilt,
            round_to=self.round_to,
        )

    def _block_by_target(self, problem: Problem, groups: list[ChannelGroup], target: Target) -> tuple[_Blocked, int]:
        """Reach a FLOPs target by blocks, and by channels as far as blocks do not suffice or it is asked for."""
        division = self.divide(problem)
        for split in division.yield_splits(target):
            blocked = self._block_split(problem, groups, division, split, target)
            if blocked is None:  # the greedy way may end short of the target where the one in Division did not
                continue
            while (wider := division.widen(split, blocked.count().flops, target)) is not None:
                other = self._block_split(problem, groups, division, wider, target)
                if other is None or other.count().flops <= blocked.count().flops:
                    break
                split, blocked = wider, other
            return blocked, split.side
        raise division.explain_out_of_reach(target)

    def _block_split(
        self, problem: Problem, groups: list[ChannelGroup], division: Division, split: Split, target: Target
    ) -> _Blocked | None:
        """Remove the channels of a division, and block where that costs trained layers least; None where that fails."""
        tilt = target.tilt if isinstance(target, FlopsTarget) else 0.0
        # Every trial looks at the same images, so that what comes out is known before.
        model, kept = self._remove_channels(problem, groups, split.widths, CHOICE_SEED)
        layers, fits = division.list_candidates(model, split.side)
        damage = tilt_damages(self._damage(problem, model, layers, CHOICE_SEED), layers.shapes, tilt)
        most = target.flops * problem.cost.dense
        chosen = allocate(layers.shapes, layers.options, damage, layers.rest, most, fits)
        return None if chosen is None else _Blocked(model, kept, chosen, layers)

    def _block_by_ratio(self, problem: Problem, groups: list[ChannelGroup], seed: int) -> _Blocked:
        """Give each layer the density that its group's ratio stands for."""
        widths, densities = self._shares(problem)
        model, kept = self._remove_channels(problem, groups, widths, seed)
        layers, fits = self.divide(problem).list_candidates(model, self.min_side)
        return _Blocked(model, kept, choose_nearest(layers.shapes, layers.options, densities, fits), layers)

    def _shares(self, problem: Problem) -> tuple[dict[str, int], dict[str, float]]:
        """Divide every group's ratio: the width that channels leave, and the density that blocks are to have."""
        groups = problem.groups
        left = self.sparsity.keep([group.layer for group in groups], len, 1)
        shares = {group.name: left[group.name] / group.channels for group in groups}
        widths = {}
        for group in groups:
            width = round(group.channels * shares[group.name] ** self.channel_share)
            widths[group.name] = min(group.channels, max(1, -(-width // self.round_to)) * self.round_to)
        densities = {
            member.module: shares[group.name] ** (2 * (1 - self.channel_share))
            for group in groups
            for member in group.producers(problem.model)
        }
        return widths, densities

    def _remove_channels(
        self, problem: Problem, groups: list[ChannelGroup], widths: Mapping[str, int], seed: int
    ) -> tuple[nn.Module, dict[str, list[int]]]:
        """Remove channels by the L1 norms of their filters."""
        kept = {group.name: keep_top(l1_importance(problem.model, group), widths[group.name]) for group in groups}
        model = cut(problem.model, groups, kept)
        if any(group.channels > widths[group.name] for group in groups):
            recipe = problem.recipe
            recalibrate(model, problem.train, recipe.recalibrate, recipe.batch_size, seed)
        return model, kept

    def _damage(self, problem: Problem, model: nn.Module, layers: Candidates, seed: int) -> Damage:
        """Measure what blocks cost each layer."""
        scores = Scores(model, [shape.name for shape in layers.shapes], self.score, problem.task)
        size = problem.recipe.batch_size
        scores.look(problem.train, GRADIENT_BATCHES, size, derive_seed(seed, 0))
        if self.sensitivity == "energy":
            return energy_damage(scores.entries(), self.structure)
        batches = list(islice(problem.train.epoch(size, derive_seed(seed, 1)), GRADIENT_BATCHES))
        return loss_damage(model, batches, scores.entries(), self.structure, problem.task)


def _measure_blocks(model: nn.Module, masks: Mapping[str, Booleans], problem: Problem, seed: int) -> Record:
    """Evaluate what the network would be if everything outside the blocks were cut now."""
    recipe = problem.recipe
    blocks = copy.deepcopy(model)
    apply_masks(blocks, masks)
    recalibrate(blocks, problem.train, recipe.recalibrate, recipe.batch_size, seed)
    found = evaluate(blocks, problem.validation, autocast=choose_half_type(recipe), task=problem.task)
    return {**found.metrics, "val_loss": found.loss}


def _costs(problem: Problem, blocked: _Blocked, small: nn.Module) -> dict[str, float]:
    """Report sizes: shares of FLOPs, blocks by layer, and what is moved when the network runs."""
    dense = count(problem.model, problem.example).flops
    layers = [m for m in small.modules() if isinstance(m, PivotedConv2d | PivotedLinear)]
    chosen = blocked.chosen.items()
    left, by_channels = (count(model, problem.example).flops / dense for model in (small, blocked.model))
    return {
        "flops_share": left,
        "flops_share_channels": by_channels,
        "channel_share": log(by_channels) / log(left) if left < 1 else 0.0,
        "blocked": float(sum(choice != DENSE for _, choice in chosen)),
        "gathers": float(sum(layer.arrangement.gathers for layer in layers)),
        "moved_bytes": float(count_moved_bytes(small, problem.example)),
        "untraceable": float(bool(blocked.layers.spaces.untraceable)),
        **{f"blocks[{name}]": float(choice.blocks) for name, choice in chosen},
        **{f"density[{name}]": choice.density for name, choice in chosen if choice != DENSE},
    }
