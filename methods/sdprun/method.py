"""sDprun: train by group dual averaging until whole channels are exactly zero, then take them away.

Stochastic gradient descent ends on the floor of a valley, where many directions are flat. Shrinking a channel
costs training loss only as far as it leads out of the flat directions. A dual-averaging optimiser that keeps the
unshrunk sum of the gradient steps and shows the network its group soft threshold, with a threshold that grows
more and more slowly, moves along the flat directions alone in the limit. What it brings to zero is removed, and
the network is as good as before: there is no fine-tuning.

Yinchuan Li, Xiaofeng Liu, Yunfeng Shao, Qing Wang, Yanhui Geng: "Structured Directional Pruning via Perturbation
Orthogonal Projection", 2021, arXiv 2107.05328; the optimiser from Shih-Kang Chao, Zhanyu Wang, Yue Xing, Guang
Cheng: "Directional Pruning of Deep Neural Networks", NeurIPS 2020, arXiv 2006.09358. Its equations (1) to (3) are
in ``methods.sdprun.dual_averaging``.

What differs from the papers:

* A group is what scales a coupled channel: weights and biases of its norms, or its filters and biases where it has
  no norm. A batch norm undoes any shrinking of the filter before it, while gradients grow as the filter shrinks.
  Filters can be in the group with the norms (``bn_mode="in_group"``), or norms be shrunk number by number, as the
  elementwise paper has it (``"elementwise_bn"``).
* Thresholds are weighted (``adapt``): the norms of a trained layer hardly differ, and what takes the smaller half of
  the units would otherwise leave little of the larger one.
* ``steer="off"`` is the published recursion, with ``mu`` and ``c`` (or the threshold at the end), to the last step,
  and no fine-tuning after it; the preset ``"paper"`` also starts from scratch, with the papers' groups and single
  threshold. The default is another algorithm, which keeps the optimiser, starts at the dense network, gives up the law
  (2), and trains the smaller network for the rest of the budget (``finish``).
* Sparsity is an outcome in the papers. In the default the growth of the threshold is steered (``steer="flops"``): from
  the norms of all units follows at which threshold a share of the FLOPs is left, and ``c`` is set again every few
  steps so that the FLOPs fall steadily, to the wanted share when ``const_frac`` of the budget is used. From then
  on the choice of channels stands.
* The steered threshold is by default one of every group, at every step the quantile of the norms at which all groups
  have lost the same share of their units (``thresholds="even"``); with the papers' single one, the deep layers of a
  strongly pruned network end up empty.
* The learning rate follows from the recipe (``lr_factor``): without momentum it takes a larger one to move as far.
* Nothing reads a unit that is zero (``sticky``), also where an activation function or a shortcut would carry
  something on. In networks of batch norms and ReLU this changes nothing: a zero unit has zero gradients there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import ClassVar, Literal, Self, get_args

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.contract.loop import require_batches
from methods.contract.method import Method, Preview, Problem, Pruned, Record, ignore_record
from methods.contract.recipe import Recipe, derive_seed, learning_rate
from methods.network.channels import ChannelGroup, cut
from methods.network.compaction import expand, groups_after, positions
from methods.network.initial import reinitialise
from methods.network.scope import BnMode, ResidualMode, Shortcuts, choose_prunable, choose_shrunk_slots
from methods.network.units import Units
from methods.sdprun.carry_over import carry_over
from methods.sdprun.dual_averaging import (
    GroupDualAveraging,
    KappaMode,
    UnitNorms,
    adaptive_weights,
    kappas,
    threshold_increment,
)
from methods.sdprun.growth import Growth, Settled
from methods.sdprun.raising import LEAST, Planned, Raising, Shared, Timetable, ToValue
from methods.sdprun.steering import Shares, places
from methods.training.damage import keep_by_damage
from methods.training.one_shot import cut_and_finetune, draw_seed
from methods.training.paths import paths_between
from methods.training.trainer import Hook, Trainer, recalibrate
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
    Value,
    explain_unknown_name,
    round_up_width,
)

USUAL_LR = 0.1
"""The papers' learning rate."""


class SDPrun(Method):
    """Structured directional pruning of coupled channels.

    Attributes:
        steer: ``"flops"`` makes the threshold grow until ``target_flops`` is met; ``"off"`` lets it grow to
            ``g_end``, and the sparsity is what comes out.
        target_flops: Share of the dense FLOPs that is left.
        g_end: Threshold at the end of training, where 1 would take half of the units of the network as it is at
            the start; it stands for the papers' ``c``, which follows from it, ``mu``, the learning rates and the
            budget.
        c: The papers' constant itself, in place of ``g_end``, for thresholds that do not depend on the budget.
        thresholds: With a steered threshold, whether all groups have the same one, in units of ``kappa``
            (``"shared"``), or each its own, so that all lose the same share of their units (``"even"``), or end at the
            widths of least measured damage (``"damage"``).
        mu: Exponent of the growth of the threshold; only where it is not steered (a steered threshold goes from one
            look at the norms to the next in equal steps, as long as the learning rate is constant).
        lr_factor: Highest learning rate, in units of that with which SGD without momentum moves as fast as the
            recipe: ``lr / (1 - momentum)``. For another optimiser the unit is 0.1, the papers' learning rate.
        lr_schedule: ``"const_then_linear"`` (constant, then linearly down to 1 % at nine tenths of the budget),
            ``"const"``, or ``"step"`` with the milestones of the recipe.
        const_frac: Share of the budget in which the learning rate is constant (``"const_then_linear"``), and in
            which a steered threshold grows.
        kappa_mode: What a unit's threshold is proportional to: the median norm of its group at the start
            (``"init_norm"``), the root of its number of weights (``"sqrt_size"``) or nothing (``"one"``).
        adapt: Exponent ``a`` of adaptive weights: ``kappa`` is multiplied by ``(median norm of the group / norm)^a`` at
            the start, so that those that will stay are shrunk less.
        kappa_by: Whether thresholds are multiplied by stage.
        stage_mult: Factor of the thresholds by stage (of the shares of units, where these are to be even); needed
            exactly when ``kappa_by`` is ``"stage"``.
        bn_mode: Which norm parameters are shrunk: all ``"in_group"`` with their channel, all and the filters before
            them not (``"affine_only"``), their weights and the filters not (``"gamma_only"``), none
            (``"filter_only"``), or all, but number by number (``"elementwise_bn"``).
        residual_mode: Whether channels that shortcuts tie together are pruned (``"coupled"``) or left whole
            (``"inner_only"``).
        min_keep: How many units of each group stay in any case,
        min_share: and which share of them, rounded down.
        prox_every: Units are shrunk again every so many steps.
        threshold_warmup: Share of the budget with threshold 0 at the start; not in the papers.
        momentum: Momentum of the gradients; not in the papers. The learning rate is so much smaller.
        sticky: Whether a unit that became zero stays zero.
        round_to: Widths are multiples of this; where the threshold is not steered, units that are zero stay to fill up.
        start: Begin at the ``"dense"`` network or from ``"scratch"``, with fresh weights.
        finish: Who trains the smaller network when a steered threshold has grown enough: the ``"recursion"`` goes on,
            or the ``"recipe"`` takes over, with its optimiser and its schedule over what is left of the budget.
        valley_check: Whether to train a second time without pruning, and to measure the training loss on the
            way from there to the pruned network; takes more than twice the time.
    """

    title: ClassVar[str] = "group dual averaging with a threshold that is steered (published: one that grows by a law)"
    source: ClassVar[str] = "Li, Liu, Shao, Wang, Geng, 2021, arXiv 2107.05328"
    presets: ClassVar[Mapping[str, Mapping[str, Value]]] = {
        "paper": {
            "steer": "off",
            "start": "scratch",
            "bn_mode": "in_group",
            "kappa_mode": "sqrt_size",
            "adapt": 0.0,
            "min_share": 0.0,
            "sticky": False,
            "momentum": 0.0,
            "const_frac": 0.5,
            "lr_schedule": "const_then_linear",
        }
    }
    flops_parameter: ClassVar[str | None] = "target_flops"
    rounds_widths: ClassVar[bool] = True
    by_damage: ClassVar[Mapping[str, Value]] = {"thresholds": "damage"}
    exact_with: ClassVar[Mapping[str, Value]] = {"thresholds": "even"}
    fixed_by_default: ClassVar[frozenset[str]] = frozenset({
        "bn_mode",
        "residual_mode",
        "min_keep",
        "min_share",
        "momentum",
        "threshold_warmup",
    })

    steer: Literal["flops", "off"] = "flops"
    target_flops: float = Field(default=0.5, gt=0, le=1)
    thresholds: Literal["even", "damage", "shared"] = "even"
    g_end: float = Field(default=1.0, gt=0)
    c: float | None = Field(default=None, gt=0)
    mu: float = Field(default=0.51, gt=0, lt=1)
    lr_factor: float = Field(default=1.0, gt=0)
    lr_schedule: Literal["const_then_linear", "const", "step"] = "const_then_linear"
    const_frac: float = Field(default=0.5, gt=0, le=0.9)
    kappa_mode: KappaMode = "init_norm"
    adapt: float = Field(default=2.0, ge=0, le=4)
    kappa_by: Literal["network", "stage"] = "network"
    stage_mult: dict[str, float] = Field(default_factory=dict)
    bn_mode: BnMode = "affine_only"
    residual_mode: ResidualMode = "coupled"
    min_keep: int = Field(default=1, ge=1)
    min_share: float = Field(default=0.125, ge=0, le=1)
    prox_every: int = Field(default=1, ge=1)
    threshold_warmup: float = Field(default=0.0, ge=0, lt=1)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    sticky: bool = True
    round_to: int = Field(default=1, ge=1)
    start: Literal["dense", "scratch"] = "dense"
    finish: Literal["recursion", "recipe"] = "recursion"
    valley_check: bool = False

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Check what one field alone cannot show.

        Returns:
            The method.

        Raises:
            ValueError: If fields contradict each other.
        """
        if self.threshold_warmup >= self.const_frac:
            raise ValueError(
                f"threshold_warmup must be below const_frac, got {self.threshold_warmup} and {self.const_frac}"
            )
        if any(factor <= 0 for factor in self.stage_mult.values()):
            raise ValueError(f"stage_mult must be positive, got {self.stage_mult}")
        if bool(self.stage_mult) != (self.kappa_by == "stage"):
            raise ValueError(f"stage_mult goes with kappa_by 'stage', got {self.stage_mult} and {self.kappa_by!r}")
        idle = {"flops": ("mu", "g_end", "c"), "off": ("target_flops", "thresholds", "finish")}[self.steer]
        for name in idle:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} = {getattr(self, name)!r} has no effect with steer {self.steer!r}")
        if self.c is not None and self.g_end != type(self).model_fields["g_end"].default:
            raise ValueError(f"give either c or g_end, not both, got {self.c} and {self.g_end}")
        return self

    @classmethod
    def space(cls, groups: Sequence[LayerGroup]) -> Space:
        """Return the search space.

        Steering takes the sparsity out of the search, so that points spread over the front as asked. Without
        it the threshold at the end is searched, with which the sparsity grows steadily; ``c`` would have to be
        searched together with ``mu``, ``lr_factor`` and the budget.

        Args:
            groups: The prunable channel groups.

        Returns:
            The space.
        """
        stages = dict.fromkeys(f"stage_mult[{group.stage}]" for group in groups)
        own: dict[str, Parameter] = {
            "steer": Categorical(("flops", "off"), default="flops"),
            "target_flops": LogReal(0.05, 0.9, default=0.5),
            "thresholds": Categorical(("even", "shared"), default="even"),
            "g_end": LogReal(0.3, 4.0, default=1.0),
            "mu": Real(0.501, 0.9, default=0.51),
            "lr_factor": LogReal(0.1, 2.0, default=1.0),
            "lr_schedule": Categorical(("const_then_linear", "const", "step"), default="const_then_linear"),
            "const_frac": Real(0.1, 0.8, default=0.5),
            "kappa_mode": Categorical(("init_norm", "sqrt_size", "one"), default="init_norm"),
            "prox_every": Integer(1, 20, log=True, default=1),
            "adapt": Real(0.0, 4.0, default=2.0),
            "bn_mode": Categorical(get_args(BnMode), default="affine_only"),
            "residual_mode": Categorical(get_args(ResidualMode), default="coupled"),
            "min_keep": Integer(1, 16, log=True, default=1),
            "min_share": Real(0.0, 0.25, default=0.125),
            "momentum": Real(0.0, 0.9, default=0.0),
            "threshold_warmup": Real(0.0, 0.09, default=0.0),
            "kappa_by": Categorical(("network", "stage"), default="network"),
            **dict.fromkeys(stages, LogReal(0.25, 4.0, default=1.0)),
            "finish": Categorical(("recursion", "recipe"), default="recursion"),
        }
        conditions = dict.fromkeys(("target_flops", "thresholds", "finish"), Condition("steer", ("flops",)))
        conditions |= dict.fromkeys(("g_end", "mu"), Condition("steer", ("off",)))
        return Space(own, conditions | dict.fromkeys(stages, Condition("kappa_by", ("stage",))))

    def check(self, problem: Problem) -> None:
        """Refuse a budget without steps, a share of the FLOPs that cannot be reached, and factors of unknown stages.

        Args:
            problem: The network, the data and the budget.
        """
        require_batches(problem.task, "sdprun", "for an optimiser of its own")
        _, chosen, _ = self._find_reachable(problem)
        self._multipliers(chosen)

    def preview(self, problem: Problem) -> Preview | None:
        """Say what the network will cost where steering decides how many units each group loses.

        Args:
            problem: The network and the budget.

        Returns:
            The exact cost where groups lose as planned. ``None`` without steering, and with one
            threshold for all groups: there the norms decide in training which group loses how much.
        """
        if self.steer == "off" or self.thresholds == "shared":
            return None
        _, chosen, shares = self._find_reachable(problem)
        sizes = torch.tensor([[group.channels] for group in chosen])
        valid = torch.arange(int(sizes.max())) < sizes
        # Ranks alone decide how many units of a group go: any order of them will do.
        anything = torch.arange(valid.shape[1], dtype=torch.double).expand(valid.shape)
        landing = shares.land(places(anything, valid, self.find_rates(problem, chosen)), self.target_flops)
        left = (landing.alive & valid).sum(1).tolist()
        return problem.preview({
            group.name: round_up_width(count, group.channels, self.round_to)
            for group, count in zip(chosen, left, strict=True)
        })

    def prune(self, problem: Problem) -> Pruned:
        """Train until enough units are zero, take them away, and train on to the end of the budget.

        Without steering, units go on vanishing; they are taken away, and batch norm is estimated again, at the end.

        Args:
            problem: The network, the data and the budget.

        Returns:
            The smaller network; ``extra`` holds ``flops_share``, ``threshold`` and ``cut_step`` (the step after
            which zeros were taken away), and, if asked for, the numbers of :class:`methods.training.paths.Paths`, whose
            losses are in ``profiles``.
        """
        groups, chosen, shares = self._find_reachable(problem)
        seed = draw_seed(problem.generator)
        start = problem.model if self.start == "dense" else reinitialise(problem.model, derive_seed(seed, 0))
        model = copy.deepcopy(start)
        optimizer = self.optimizer(model, chosen)
        lanes = Shortcuts(model, chosen, optimizer.valid) if self.sticky else None
        plan = self.timetable(problem)
        raising = self.choose_raising(optimizer, shares, plan, self.find_rates(problem, chosen))
        growth = Growth(optimizer, chosen, shares, lanes, plan, raising)
        history = self._train(problem, model, optimizer, growth, derive_seed(seed, 1), "grow", plan.end)
        kept = {group.name: list(range(group.channels)) for group in groups} | growth.list_kept(self.round_to)
        smaller, places = cut(model, groups, kept), positions(model, groups, kept)
        extra = growth.results() | {"cut_step": float(plan.end)}
        if plan.end < problem.steps and self.finish == "recipe":
            # What goes on is the network as it was shown, for which the gradients were taken.
            record = growth.epoch_end()
            tuned = cut_and_finetune(
                problem, groups, kept, model=model, history=history, extra=extra, hook=lambda _: Settled(record)
            )
            smaller, history, extra = tuned.model, list(tuned.history), dict(tuned.extra)
        elif plan.end < problem.steps:
            # The same recursion on the smaller tensors, bit for bit as far as sums of fewer numbers allow.
            going_on = self.optimizer(smaller, groups_after(chosen, kept))
            carry_over(optimizer, going_on, places, [kept[group.name] for group in chosen])
            settled = Settled(growth.epoch_end())
            history = self._train(
                problem, smaller, going_on, settled, derive_seed(seed, 2), "settle", problem.steps, history
            )
        else:
            # The threshold has grown to the last step, and running statistics lag behind weights that shrink.
            recipe = problem.recipe
            recalibrate(smaller, problem.train, recipe.recalibrate, recipe.batch_size, derive_seed(seed, 4))
        paths = None
        if self.valley_check:
            plain = copy.deepcopy(start)
            unseen = replace(problem, report=ignore_record)
            self._train(unseen, plain, self.optimizer(plain, chosen), None, derive_seed(seed, 1), "without pruning")
            pruned = expand(smaller, model, places)
            paths = paths_between(
                plain,
                pruned,
                problem.train,
                problem.recipe,
                problem.steps // 2,
                derive_seed(seed, 3),
                task=problem.task,
            )
        found = (extra, {}) if paths is None else (extra | paths.numbers, paths.profiles)
        return Pruned(smaller, kept, history, problem.steps, *found)

    def optimizer(self, model: nn.Module, groups: Sequence[ChannelGroup]) -> GroupDualAveraging:
        """Build the optimiser; its threshold does not grow by itself (``scale`` is 0).

        Args:
            model: The network as it is at the start.
            groups: The groups that may lose units.

        Returns:
            The optimiser.
        """
        units = Units(model, groups)
        slots, elementwise = choose_shrunk_slots(model, units, self.bn_mode)
        norms = UnitNorms(slots, units.valid.shape)
        with torch.no_grad():
            lengths, sizes = norms.sum_squares([slot.parameter for slot in slots]).sqrt(), norms.sizes()
            kappa = kappas(lengths, sizes, units.valid, self.kappa_mode) * self._multipliers(groups).to(lengths)
            kappa *= adaptive_weights(lengths, units.valid, self.adapt)
            # One number of a norm counts like one weight of a usual unit.
            usual = float((lengths / sizes.sqrt())[units.valid].median())
        return GroupDualAveraging(
            model.parameters(),
            slots,
            kappa,
            units.valid,
            lr=USUAL_LR,  # until the trainer sets another
            mu=self.exponent,
            momentum=self.momentum,
            prox_every=self.prox_every,
            min_keep=self.count_least(groups),
            sticky=self.sticky,
            consumers=units.consumers,
            elementwise=[(parameter, usual) for parameter in elementwise],
        )

    @property
    def exponent(self) -> float:
        """Exponent of the growth of the threshold; 1, where it is steered: the looks at the norms say how far."""
        return self.mu if self.steer == "off" else 1.0

    def count_least(self, groups: Sequence[ChannelGroup]) -> list[int]:
        """Return how many units stay in any case.

        Args:
            groups: The groups that may lose units.

        Returns:
            A number for each group.
        """
        least = [max(self.min_keep, int(self.min_share * group.channels)) for group in groups]
        return [round_up_width(n, group.channels, self.round_to) for n, group in zip(least, groups, strict=True)]

    def timetable(self, problem: Problem) -> Timetable:
        """Decide when the threshold grows, and how far.

        Args:
            problem: The budget, and the length of an epoch.

        Returns:
            The timetable. A steered growth ends with an epoch, if there is time for a whole one.
        """
        steps, per_epoch = problem.steps, problem.train.steps(problem.recipe.batch_size)
        first = int(self.threshold_warmup * steps)
        increments = [threshold_increment(lr, n, self.exponent) for n, lr in enumerate(self.rates(problem), 1)]
        grown = [0.0, *accumulate(increments)]
        if self.steer == "off":
            # (2) summed up, from the first step with a threshold on
            end = self.g_end if self.c is None else self.c * (grown[steps] - grown[first])
            return Timetable(first, steps, grown, threshold=end)
        end = max(first + 1, int(self.const_frac * steps))
        whole = end // per_epoch * per_epoch
        return Timetable(first, whole if whole > first else end, grown, target=self.target_flops)

    def rates(self, problem: Problem) -> list[float]:
        """Return the learning rate of every step.

        Args:
            problem: The budget and the recipe.

        Returns:
            ``[steps]``.
        """
        return [self._rate(problem.recipe, step, problem.steps) for step in range(problem.steps)]

    def _rate(self, recipe: Recipe, step: int, steps: int) -> float:
        reach = recipe.lr / (1 - recipe.momentum) if recipe.optimizer == "sgd" else USUAL_LR
        lr = self.lr_factor * reach * (1 - self.momentum)
        match self.lr_schedule:
            case "const":
                return lr
            case "step":
                return learning_rate(recipe.with_changes(lr=lr, schedule="step", warmup=0.0), step, steps)
            case "const_then_linear":
                done = (step / steps - self.const_frac) / max(0.9 - self.const_frac, 1e-9)
                return lr * (1 - 0.99 * min(max(done, 0.0), 1.0))

    def _train(
        self,
        problem: Problem,
        model: nn.Module,
        optimizer: GroupDualAveraging,
        hook: Hook | None,
        seed: int,
        phase: str,
        until: int | None = None,
        history: Sequence[Record] = (),
    ) -> list[Record]:
        """Train in place up to a step of the budget, and return the longer history."""
        epochs, used = (int(history[-1]["epoch"]), int(history[-1]["step"])) if history else (0, 0)
        trainer = Trainer(
            model,
            problem.train,
            problem.recipe,
            (problem.steps if until is None else until) - used,
            seed,
            validation=problem.validation,
            hook=hook,
            teacher=problem.model,
            optimizer=optimizer,
            rate=self.rates(problem)[used:].__getitem__,
            report=problem.report,
            epochs_before=epochs,
            steps_before=used,
            task=problem.task,
            comparable=phase == "settle",
        )
        return [*history, *problem.session.train(phase, trainer)]

    def choose_raising(self, optimizer: GroupDualAveraging, shares: Shares, plan: Timetable, rates: Tensor) -> Raising:
        """Say how the threshold is raised.

        Args:
            optimizer: Whose threshold.
            shares: Shares of the FLOPs by choice of units.
            plan: When, and how far.
            rates: How fast each group is to lose units, ``[groups, 1]``.

        Returns:
            To a value, to a share of the FLOPs, or so that groups lose as planned.
        """
        if self.steer == "off":
            return ToValue(optimizer, plan)
        if self.thresholds == "shared":
            return Shared(optimizer, shares, plan)
        return Planned(optimizer, shares, plan, rates)

    def find_rates(self, problem: Problem, groups: Sequence[ChannelGroup]) -> Tensor:
        """Say how fast each group is to lose units beside the others: alike, or as far as it loses them by damage.

        Args:
            problem: The network and the data.
            groups: The groups that may lose units.

        Returns:
            ``[groups, 1]``, in double precision.
        """
        rates = self._multipliers(groups).double()
        if self.thresholds != "damage":
            return rates
        kept = keep_by_damage(problem, ByDamage(flops=self.target_flops), groups, self.round_to)
        lost = [[1 - kept[group.name] / group.channels] for group in groups]
        return rates * torch.tensor(lost, dtype=torch.double).clamp_min(LEAST)

    def _multipliers(self, groups: Sequence[ChannelGroup]) -> Tensor:
        """Return the factor of the threshold of each group, ``[groups, 1]``.

        Args:
            groups: The groups that may lose units.

        Returns:
            Ones, unless there are factors by stage.

        Raises:
            InputError: If a stage has no factor, or a factor no stage.
        """
        if self.kappa_by == "network":
            return torch.ones(len(groups), 1)
        stages = {group.stage for group in groups}
        for stage in self.stage_mult:
            if stage not in stages:
                raise InputError(explain_unknown_name("stage", stage, stages))
        for stage in stages:
            if stage not in self.stage_mult:
                raise InputError(f"no stage_mult for stage {stage!r}; give one for every stage (1 changes nothing)")
        return torch.tensor([[self.stage_mult[group.stage]] for group in groups])

    def _find_reachable(self, problem: Problem) -> tuple[list[ChannelGroup], list[ChannelGroup], Shares]:
        """Find the groups and those that may lose units, and what shares of the FLOPs can be reached.

        Args:
            problem: The network and the budget.

        Returns:
            All groups, those that may lose units, and shares of the FLOPs by choice of units.

        Raises:
            InputError: If there is no step to prune in, or the target cannot be reached.
        """
        if problem.steps == 0:
            raise InputError("sdprun prunes while it trains: it needs a budget of at least 1 step, got 0 steps")
        groups = problem.groups
        chosen = choose_prunable(groups, problem.model, self.residual_mode)
        # What damage plans is exact: nothing else goes in its place.
        shares = Shares(
            chosen, problem.cost, self.count_least(chosen), self.round_to, swaps=self.thresholds != "damage"
        )
        if self.steer == "flops" and shares.smallest > self.target_flops:
            raise InputError(
                f"target_flops = {self.target_flops} cannot be reached; the smallest share, with min_keep = "
                f"{self.min_keep} and min_share = {self.min_share} of the units of every group that may be pruned, is "
                f"{shares.smallest:.3f}"
            )
        return groups, chosen, shares
