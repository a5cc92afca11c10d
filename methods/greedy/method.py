"""Greedy forward selection: begin each layer empty and add, one by one, the channel that helps the network most.

Mao Ye, Chengyue Gong, Lizhen Nie, Denny Zhou, Adam Klivans, Qiang Liu: "Good Subnetworks Provably Exist: Pruning via
Greedy Forward Selection", ICML 2020, arXiv 2003.01794. With ``u_n`` the mean of what ``n`` chosen neurons compute::

    S_n = S_(n-1) + argmin_i L(((n - 1) u_(n-1) + phi_i) / n)

so that chosen channels share the weight ``1 / n``: each is read ``D / n`` times as strongly as in the layer of ``D``
channels. The steps are in ``methods.greedy.forward_selection``, objectives in ``methods.greedy.selection`` and
``methods.greedy.imitation``, masks in ``methods.greedy.readers``, the layer-by-layer procedure of the paper in
``methods.greedy.layerwise``. What differs from the paper and the authors' code, which covers MobileNetV2 only:

* ``procedure="independent"`` (default) selects every layer within the dense network. A run to the last channel is
  an ordering of which every width is a prefix, so that one analysis serves all trials of a sweep, and widths are an
  input. ``"sequential"`` is the paper's: each layer in the network that the layers before have left.
* Units are those of the framework. A mask lies where its channels are read: for the expansion of an inverted
  residual behind the depthwise stage (the authors' first mask). Block outputs that an addition ties together are
  one unit of the whole stage (their second mask; the union over the blocks is then the set itself).
  The factor is therefore always folded exactly into weights; shortcuts without weights pass a channel on unscaled.
* The authors draw 50 candidates and 128 images per step, and look at 1 of 200 images of ImageNet to stop; of small
  data sets we look at more. A glance at one batch before the rest is the same, but not at the batch chosen on.
* Losses are never taken in less than float32; if none is finite, that is an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.contract.analyses import Tensors
from methods.contract.loop import require_batches
from methods.contract.method import Method, Preview, Problem, Pruned, Record
from methods.greedy.forward_selection import RULES
from methods.greedy.layerwise import Accurate, Enough, Partial, Tuning, Width, select_units, tune
from methods.greedy.masked_network import Replay
from methods.greedy.orderings import Ordered, order_layers
from methods.greedy.readers import find_unreadable, readers_without_covariance
from methods.greedy.selection import OBJECTIVES, BatchMode, Judge, Layer, ObjectiveName, RuleName, Search, layers_of
from methods.network.channels import ChannelGroup
from methods.network.cost import CostModel
from methods.network.initial import reinitialise
from methods.network.scope import choose_prunable
from methods.training.damage import keep_by_damage
from methods.training.one_shot import cut_metrics, draw_seed
from methods.training.trainer import Trainer, derive_seed, recalibrate
from spaces import (
    ByDamage,
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
    explain_unknown_name,
    round_up_width,
    sparsity_space,
)
from spaces.sparsity import PerLayer, PerStage

MOST_TUNING = 0.5
"""Share of the budget that tuning between layers may take."""


class Greedy(Method):
    """Greedy forward selection of coupled channels.

    Attributes:
        stop_rule: ``"count"``: ``sparsity`` says how many units are kept; ``"tol"``: as many as it takes, and the
            sparsity is what comes out.
        sparsity: How many units of each group are kept; needed exactly with ``"count"``.
        top1_tol: By which share the accuracy of a layer's subset may be below that of the whole layer (``"tol"``).
        tol_scale: What the tolerance is multiplied with, by stage; 1 where not named.
        step_rule: How chosen units are weighted, and whether one may be chosen again.
        objective: What candidates are judged by: the loss of the network (``"global_ce"``), the same for those
            that its derivative favours, the imitation of the layer's output (``"local_gram"``), or of both
            orderings, layer by layer, the better one.
        screen_top: Share of the candidates that is evaluated after screening.
        procedure: ``"independent"``: every layer within the dense network, once per sweep; ``"sequential"``: one
            after the other, each within what the others have left, with tuning in between.
        num_candidates: Units tried per step.
        sel_batch: Images per step.
        sel_batch_fixed: When other images are drawn: ``"fresh_per_step"``, or the same for a layer or for all.
        eval_stride: One of so many training images serves to measure the task's first metric (at least 512 where there
            are).
        skip_eval_margin: By which share the accuracy may be below that of the whole layer at first glance for
            the subset to be looked at (sequential).
        layer_order: Which layers come first (sequential): ``"forward"``, ``"backward"``, or those whose FLOPs are
            largest (``"by_macs"``).
        prune_outputs: Whether channels that additions tie together (outputs of residual blocks) are pruned too.
        mid_ft_epochs: Epochs of tuning after each layer (sequential); all of it together takes at most half of
            the budget.
        mid_ft_lr: Its constant learning rate.
        rounds: How many times the network is gone through (sequential), selecting among what is left.
        keep_scale: Whether the factors ``D / n`` stay constants in front of the weights while fine-tuning, rather
            than becoming part of them; the network that comes out has them in its weights in any case.
        init_after_prune: Whether the small network goes on with its weights (``"inherit"``) or with new ones.
        select_from: Whether units are selected from the ``"trained"`` network or from one with ``"random"``
            weights, which the small network then inherits.
        seed: Decides images and candidates of the analysis (independent).
        round_to: Widths are multiples of this.
    """

    title: ClassVar[str] = "channels added one by one, the most useful first"
    source: ClassVar[str] = "Ye, Gong, Nie, Zhou, Klivans, Liu, 2020, arXiv 2003.01794"
    flops_parameter: ClassVar[str | None] = "sparsity.flops"
    rounds_widths: ClassVar[bool] = True
    by_damage: ClassVar[Mapping[str, Value]] = {"sparsity.mode": "damage"}
    presets: ClassVar[Mapping[str, Mapping[str, Value]]] = {
        "paper": {
            "procedure": "sequential",
            "step_rule": "uniform_norepeat",
            "objective": "global_ce",
        },
    }
    fixed_by_default: ClassVar[frozenset[str]] = frozenset({
        "procedure"
    })  # the other one is no analysis that trials share

    stop_rule: Literal["count", "tol"] = "count"
    sparsity: Sparsity | None = None
    top1_tol: float = Field(default=0.02, ge=0, le=1)
    tol_scale: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    step_rule: RuleName = "norepeat_noscale"
    objective: ObjectiveName = "local_gram"
    screen_top: float = Field(default=0.25, gt=0, le=1)
    procedure: Literal["independent", "sequential"] = "independent"
    num_candidates: int = Field(default=50, ge=1)
    sel_batch: int = Field(default=128, ge=1)
    sel_batch_fixed: BatchMode = "fresh_per_step"
    eval_stride: int = Field(default=200, ge=1)
    skip_eval_margin: float = Field(default=0.05, ge=0, le=1)
    layer_order: Literal["forward", "backward", "by_macs"] = "forward"
    prune_outputs: bool = True
    mid_ft_epochs: float = Field(default=0.1, ge=0, le=1)
    mid_ft_lr: float = Field(default=2.5e-3, gt=0)
    rounds: int = Field(default=1, ge=1)
    keep_scale: bool = True
    init_after_prune: Literal["inherit", "reinit"] = "inherit"
    select_from: Literal["trained", "random"] = "trained"
    seed: int = Field(default=0, ge=0)
    round_to: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Check what one field alone cannot show.

        Returns:
            The method.

        Raises:
            ValueError: If fields contradict each other.
        """
        if (self.stop_rule == "count") != (self.sparsity is not None):
            raise ValueError(f"sparsity goes with stop_rule 'count', got {self.sparsity!r} and {self.stop_rule!r}")
        if self.rounds > 1 and self.procedure != "sequential":
            raise ValueError(f"rounds = {self.rounds} needs procedure 'sequential', got {self.procedure!r}")
        return self

    @classmethod
    def space(cls, groups: Sequence[LayerGroup]) -> Space:
        """Return the search space.

        What decides the orderings of the independent procedure is searched with the sequential one only, but for
        the step rule and the objective: every other value would need an analysis of its own.

        Args:
            groups: The prunable channel groups.

        Returns:
            The space.
        """
        sparsity = sparsity_space(groups, damage=True)
        stages = dict.fromkeys(f"tol_scale[{group.stage}]" for group in groups)
        widest = max(8, *(group.channels for group in groups))
        one_by_one: dict[str, Parameter] = {
            "num_candidates": Integer(8, max(50, widest), log=True, default=50),
            "sel_batch": Integer(32, 1024, log=True, default=128),
            "sel_batch_fixed": Categorical(
                ("fresh_per_step", "fixed_per_layer", "fixed_global"), default="fresh_per_step"
            ),
            "eval_stride": Integer(20, 1000, log=True, default=200),
            "skip_eval_margin": Real(0.0, 0.2, default=0.05),
            "layer_order": Categorical(("forward", "backward", "by_macs"), default="forward"),
            "mid_ft_epochs": Real(0.0, 1.0, default=0.1),
            "mid_ft_lr": LogReal(1e-4, 1e-2, default=2.5e-3),
            "rounds": Integer(1, 4, default=1),
        }
        parameters: dict[str, Parameter] = {
            "stop_rule": Categorical(("count", "tol"), default="count"),
            **sparsity,
            "top1_tol": LogReal(0.002, 0.1, default=0.02),
            **dict.fromkeys(stages, LogReal(0.25, 4.0, default=1.0)),
            "step_rule": Categorical(tuple(RULES), default="norepeat_noscale"),
            "objective": Categorical(tuple(OBJECTIVES), default="local_gram"),
            "screen_top": Real(0.1, 1.0, default=0.25),
            "prune_outputs": Categorical((True, False), default=True),
            "procedure": Categorical(("independent", "sequential"), default="independent"),
            **one_by_one,
            "keep_scale": Categorical((True, False), default=True),
            "init_after_prune": Categorical(("inherit", "reinit"), default="inherit"),
        }
        conditions = {name: condition for name in sparsity if (condition := sparsity.condition(name)) is not None}
        conditions |= {
            "sparsity.mode": Condition("stop_rule", ("count",)),
            "top1_tol": Condition("stop_rule", ("tol",)),
            "screen_top": Condition("objective", ("global_taylor_screen",)),
            **dict.fromkeys(stages, Condition("stop_rule", ("tol",))),
            **dict.fromkeys(one_by_one, Condition("procedure", ("sequential",))),
        }
        return Space(parameters, conditions)

    def check(self, problem: Problem) -> None:
        """Refuse a network that nothing can be selected in, and widths that cannot be had.

        Args:
            problem: The network, the data and the budget.
        """
        require_batches(problem.task, "greedy", "for what units are chosen by")
        _, chosen, _ = self._task(problem)
        if not isinstance(self.sparsity, ByDamage):  # the damages to come are those of the trained network
            self._widths(problem, chosen)

    def preview(self, problem: Problem) -> Preview | None:
        """Say what the chosen widths cost.

        Args:
            problem: The network.

        Returns:
            The exact cost; ``None`` where accuracy decides the widths.
        """
        _, chosen, _ = self._task(problem)
        widths = self._widths(problem, chosen)
        return None if widths is None else problem.preview(widths)

    def prune(self, problem: Problem) -> Pruned:
        """Select, cut and fine-tune.

        Args:
            problem: The network, the data and the budget.

        Returns:
            The smaller network; ``extra`` holds ``flops_share``, ``layers_whole`` (groups that kept every unit),
            ``accuracy_cut`` (before fine-tuning), and a 1 for each group that is left whole because a module reads
            it in a way that has no mask, or that the objective does not know (``unreadable[GROUP]``), or that was not
            run by replay (``whole_network[GROUP]``).
        """
        groups, chosen, extra = self._task(problem)
        cost = problem.cost
        widths = self._widths(problem, chosen)
        seed = draw_seed(problem.generator)
        history: list[Record] = []
        if self.procedure == "independent":
            partial = self._independent(problem, groups, chosen, widths, extra)
        else:
            partial, history = self._sequential(problem, groups, chosen, widths, cost, derive_seed(seed, 0), extra)
        kept = {name: len(units) for name, units in partial.kept.items()}
        extra["flops_share"] = cost.flops(kept) / cost.dense
        extra["layers_whole"] = float(sum(kept[group.name] == group.channels for group in groups))
        return self._finetune(problem, partial, history, extra, derive_seed(seed, 1))

    def _task(self, problem: Problem) -> tuple[Sequence[ChannelGroup], list[ChannelGroup], dict[str, float]]:
        """List all groups, those that may lose units, and remarks on the others."""
        groups = problem.groups
        chosen, extra = self._choose_groups(problem.model, groups)
        for stage in self.tol_scale:
            if stage not in (stages := {group.stage for group in chosen}):
                raise InputError(explain_unknown_name("stage in tol_scale:", stage, stages))
        return groups, chosen, extra

    def _choose_groups(
        self, model: nn.Module, groups: Sequence[ChannelGroup]
    ) -> tuple[list[ChannelGroup], dict[str, float]]:
        """Choose the groups that may lose units, and name those that cannot for the way they are read."""
        try:
            allowed = choose_prunable(groups, model, "coupled" if self.prune_outputs else "inner_only")
        except InputError as error:
            raise InputError(
                f"nothing to prune in {type(model).__name__} with prune_outputs = False: additions tie all channel "
                "groups together; True prunes them"
            ) from error
        foreign = {group.name: find_unreadable(model, group) for group in allowed}
        foreign |= {
            group.name: readers_without_covariance(model, group)
            for group in allowed
            if not self._choose_judges(model, group)
        }
        chosen = [group for group in allowed if not foreign[group.name]]
        if not chosen:
            listed = sorted({name for names in foreign.values() for name in names})
            raise InputError(
                f"nothing to prune in {type(model).__name__} by greedy selection: no mask is defined for what reads "
                f"the channels ({', '.join(listed[:5])})"
            )
        return chosen, {f"unreadable[{name}]": 1.0 for name, names in foreign.items() if names}

    def _choose_judges(self, model: nn.Module, group: ChannelGroup) -> tuple[Judge, ...]:
        """Leave out the imitation where the inputs of a consumer have no covariance."""
        foreign = bool(readers_without_covariance(model, group))
        return tuple(judge for judge in OBJECTIVES[self.objective] if not (foreign and judge == "local_gram"))

    def _widths(self, problem: Problem, chosen: Sequence[ChannelGroup]) -> dict[str, int] | None:
        """Share the sparsity out over the chosen groups; ratios given by name may name the others too."""
        if self.sparsity is None:
            return None
        if isinstance(self.sparsity, ByDamage):
            return keep_by_damage(problem, self.sparsity, chosen, self.round_to)
        named = isinstance(self.sparsity, PerLayer | PerStage)
        layers = [group.layer for group in (problem.groups if named else chosen)]
        keep = self.sparsity.keep(layers, problem.cost.flops, self.round_to)
        return {group.name: keep[group.name] for group in chosen}

    def _search(self) -> Search:
        return Search(
            self.step_rule,
            self.num_candidates,
            self.screen_top,
            self.sel_batch,
            self.sel_batch_fixed,
            self.eval_stride,
        )

    def _start(self, problem: Problem, seed: int) -> nn.Module:
        """Return the network that units are selected from."""
        if self.select_from == "trained":
            return problem.model
        model = reinitialise(problem.model, derive_seed(seed, 3)).eval()
        recipe = problem.recipe
        recalibrate(model, problem.train, recipe.recalibrate, recipe.batch_size, derive_seed(seed, 4))
        return model

    # --- every layer within the dense network ------------------------------------------------------------------

    def _independent(
        self,
        problem: Problem,
        groups: Sequence[ChannelGroup],
        chosen: Sequence[ChannelGroup],
        widths: Mapping[str, int] | None,
        extra: dict[str, float],
    ) -> Partial:
        model, search = self._start(problem, self.seed), self._search()
        recipe = problem.recipe
        start = "dense" if self.select_from == "trained" else f"random, {recipe.recalibrate} x {recipe.batch_size}"
        found = [
            order_layers(problem, model, judged, judge, search, self.seed, start)
            for judge in OBJECTIVES[self.objective]
            if (judged := [group for group in chosen if judge in self._choose_judges(model, group)])
        ]
        masks: dict[str, Tensor] = {}
        for group in chosen:
            here = [each[group.name] for each in found if group.name in each]
            if not here[0].replayed:
                extra[f"whole_network[{group.name}]"] = 1.0
            wanted = [self._find_width(o, group) if widths is None else widths[group.name] for o in here]
            fewest = min(wanted)
            rivals = [each.ordering for each, width in zip(here, wanted, strict=True) if width == fewest]
            if fewest == group.channels:
                continue
            if len(rivals) > 1:
                (layer,) = layers_of(model, [group], problem.train, search, self.seed, problem.task)
                losses = [layer.loss(ordering.mask(fewest)) for ordering in rivals]
                rivals = [rivals[losses.index(min(losses))]]
            masks[group.name] = rivals[0].mask(fewest)
        return Partial.from_model(model, groups).fold_and_cut(masks)

    def _find_width(self, ordered: Ordered, group: ChannelGroup) -> int:
        """Find the smallest width that is accurate enough; the last one is the whole layer."""
        qualities = ordered.qualities.double()
        wanted = float(qualities[-1]) - self._tolerance(group) * abs(float(qualities[-1])) - 1e-12
        first = int((qualities >= wanted).nonzero()[0]) + 1
        return round_up_width(first, group.channels, self.round_to)

    def _tolerance(self, group: ChannelGroup) -> float:
        return min(1.0, self.top1_tol * self.tol_scale.get(group.stage, 1.0))

    # --- one layer after the other, as in the paper ------------------------------------------------------------

    def _sequential(
        self,
        problem: Problem,
        groups: Sequence[ChannelGroup],
        chosen: Sequence[ChannelGroup],
        widths: Mapping[str, int] | None,
        cost: CostModel,
        seed: int,
        extra: dict[str, float],
    ) -> tuple[Partial, list[Record]]:
        partial = Partial.from_model(self._start(problem, seed), groups)
        names, whole = self._order_groups(chosen, cost), {group.name: group.channels for group in chosen}
        tuning = Tuning(self._steps_between(problem, len(names)), self.mid_ft_lr, self.keep_scale)
        history: list[Record] = []
        for turn in range(self.rounds):
            for position, name in enumerate(names):
                here = derive_seed(seed, 5, turn, position)
                what = f"channels of {name} (round {turn + 1} of {self.rounds}), by layer"
                problem.progress(what, turn * len(names) + position, self.rounds * len(names))
                units = partial.group(name).channels
                width = None if widths is None else self._width_in_round(widths[name], whole[name], units, turn)
                found = problem.session.compute_once(
                    f"select {name} in round {turn}",
                    lambda: self._select(problem, partial, name, width, here),  # noqa: B023  # called at once
                )
                if "replayed" not in found:
                    extra[f"whole_network[{name}]"] = 1.0
                if "mask" not in found:
                    continue  # to stay whole, or never enough
                partial = partial.fold_and_cut({name: found["mask"]})
                partial, history = tune(partial, problem, tuning, history, derive_seed(here, 1))
        return partial, history

    def _select(self, problem: Problem, partial: Partial, name: str, width: int | None, seed: int) -> Tensors:
        """Select units of one layer.

        Args:
            problem: The data.
            partial: The network so far.
            name: The layer's group.
            width: How many units are wanted; ``None`` for as many as are accurate enough.
            seed: Decides the examples that are looked at.

        Returns:
            ``mask``, ``[units]``, unless the layer stays whole; ``replayed`` if the layer was run by itself.
        """
        group = partial.group(name)
        (layer,) = layers_of(partial.model, [group], problem.train, self._search(), seed, problem.task)
        found: Tensors = {"replayed": torch.ones(())} if isinstance(layer.network, Replay) else {}
        if width == group.channels:
            return found
        judges = self._choose_judges(partial.model, group)
        mask = select_units(layer, judges, self._search(), self._define_enough(layer, width), self.round_to)
        return found if mask is None else found | {"mask": mask}

    def _order_groups(self, chosen: Sequence[ChannelGroup], cost: CostModel) -> list[str]:
        names = [group.name for group in chosen]
        orders = {
            "forward": names,
            "backward": list(reversed(names)),
            "by_macs": sorted(names, key=lambda name: cost.flops({name: 1})),  # those that save most first
        }
        return orders[self.layer_order]

    def _steps_between(self, problem: Problem, layers: int) -> int:
        asked = round(self.mid_ft_epochs * problem.train.steps(problem.recipe.batch_size))
        return min(asked, int(MOST_TUNING * problem.steps) // (layers * self.rounds))

    def _width_in_round(self, keep: int, whole: int, present: int, turn: int) -> int:
        """Share the way to the final width out evenly, by ratio, over the rounds."""
        if turn == self.rounds - 1:
            return min(keep, present)
        share = (turn + 1) / self.rounds
        return min(present, max(keep, round(math.exp((1 - share) * math.log(whole) + share * math.log(keep)))))

    def _define_enough(self, layer: Layer, width: int | None) -> Enough:
        """Say when a layer has enough units."""
        if width is not None:
            return Width(width)
        tolerance = self._tolerance(layer.group)
        whole = float(layer.qualities(torch.ones(1, layer.group.channels)))
        return Accurate(
            wanted=whole - tolerance * abs(whole) - 1e-12,
            glance=whole - max(tolerance, self.skip_eval_margin) * abs(whole) - 1e-12,
        )

    # --- and then ------------------------------------------------------------------------------------------------

    def _finetune(
        self, problem: Problem, partial: Partial, history: Sequence[Record], extra: Mapping[str, float], seed: int
    ) -> Pruned:
        """Fine-tune with what is left of the budget, or train again."""
        recipe, keep_scale = problem.recipe, self.keep_scale
        if self.init_after_prune == "reinit":
            new = reinitialise(partial.model, derive_seed(seed, 2)).eval()
            partial, keep_scale = Partial(new, partial.groups, partial.kept, partial.masks), False
        recalibrate(partial.model, problem.train, recipe.recalibrate, recipe.batch_size, derive_seed(seed, 0))
        before = cut_metrics(partial.model, problem)
        epochs, used = (int(history[-1]["epoch"]), int(history[-1]["step"])) if history else (0, 0)
        with partial.trainable(keep_scale) as model:
            trainer = Trainer(
                model,
                problem.train,
                recipe,
                problem.steps - used,
                derive_seed(seed, 1),
                validation=problem.validation,
                teacher=problem.model,
                report=problem.report,
                epochs_before=epochs,
                steps_before=used,
                task=problem.task,
                comparable=True,
            )
            records = problem.session.train("finetune", trainer)
        return Pruned(
            model=partial.model,
            kept=partial.kept,
            history=[*history, *records],
            steps=problem.steps,
            extra={**extra, **before},
        )
