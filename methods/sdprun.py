"""sDprun: train by group dual averaging until whole channels are exactly zero, then take them away.

Stochastic gradient descent ends on the floor of a valley, where many directions are flat. Shrinking a channel
costs training loss only as far as it leads out of the flat directions. A dual-averaging optimiser that keeps the
unshrunk sum of the gradient steps and shows the network its group soft threshold, with a threshold that grows
more and more slowly, moves along the flat directions alone in the limit. What it brings to zero is removed, and
the network is as good as before: there is no fine-tuning.

Yinchuan Li, Xiaofeng Liu, Yunfeng Shao, Qing Wang, Yanhui Geng: "Structured Directional Pruning via Perturbation
Orthogonal Projection", 2021, arXiv 2107.05328; the optimiser from Shih-Kang Chao, Zhanyu Wang, Yue Xing, Guang
Cheng: "Directional Pruning of Deep Neural Networks", NeurIPS 2020, arXiv 2006.09358. Its three equations are in
``methods.dual_averaging``.

What differs from the papers:

* Groups are coupled channels, norms and biases included, because a batch norm undoes any shrinking of the
  filter before it, and a channel is dead only when its norm is. The elementwise paper shrinks norms number by
  number (``bn_mode="elementwise_bn"``).
* Training starts at the dense network, as for every method here; ``start="scratch"`` is the papers' way.
* Sparsity is an outcome in the papers. Here the growth of the threshold can be steered (``steer="flops"``): from
  the norms of all units follows at which threshold the wanted share of the FLOPs is left, and ``c`` is set anew
  every few steps so that the threshold arrives there when ``const_frac`` of the budget is used. From then on
  the choice of channels stands.
* Nobody reads a unit that is zero (``sticky``), also where an activation function or a shortcut would carry
  something on. In networks of batch norms and ReLU this changes nothing: a zero unit has zero gradients there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from methods.base import Method, Problem, Pruned, Record
from methods.channels import ChannelGroup, channel_groups, cut
from methods.cost import CostModel
from methods.dual_averaging import GroupDualAveraging, KappaMode, kappas, threshold_increment
from methods.one_shot import drawn_seed
from methods.recipe import Recipe, derived, learning_rate
from methods.scope import BnMode, ResidualMode, Shortcuts, prunable, shrunk_slots
from methods.steering import Shares
from methods.training import Trainer, evaluate
from methods.units import Units
from methods.valley import compared
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
    unknown,
)

POLLS = 40
"""How often the threshold is steered anew before it stands; each time waits for the device once."""


class SDPrun(Method):
    """Structured directional pruning of coupled channels.

    Attributes:
        steer: ``"flops"`` makes the threshold grow until ``target_flops`` is met; ``"off"`` lets it grow to
            ``g_end``, and the sparsity is what comes out.
        target_flops: Share of the dense FLOPs that is left.
        g_end: Threshold at the end of training, in units of ``kappa``; it stands for the papers' ``c``, which
            follows from it, ``mu``, the learning rates and the budget.
        mu: Exponent of the growth of the threshold.
        lr: Highest learning rate.
        lr_schedule: ``"const_then_linear"`` (constant, then linearly down to 1 % at nine tenths of the budget),
            ``"const"``, or ``"step"`` with the milestones of the recipe.
        const_frac: Share of the budget in which the learning rate is constant, and in which a steered threshold
            grows.
        kappa_mode: What a unit's threshold is proportional to: the median norm of its group at the start
            (``"init_norm"``), the root of its number of weights (``"sqrt_size"``) or nothing (``"one"``).
        kappa_by: Whether thresholds are multiplied by stage (``stage_mult``).
        stage_mult: Factor of the thresholds by stage; needed exactly when ``kappa_by`` is ``"stage"``.
        bn_mode: Which norm parameters are shrunk: all ``"in_group"`` with their channel, none
            (``"filter_only"``), the weights instead of the filters (``"gamma_only"``), or all, but number by
            number (``"elementwise_bn"``).
        residual_mode: Whether channels that shortcuts tie together are pruned (``"coupled"``) or left whole
            (``"inner_only"``).
        min_keep: How many units of each group stay in any case.
        prox_every: Units are shrunk anew every so many steps.
        threshold_warmup: Share of the budget with threshold 0 at the start; not in the papers.
        momentum: Momentum of the gradients; not in the papers.
        sticky: Whether a unit that became zero stays zero.
        start: Begin at the ``"dense"`` network or from ``"scratch"``, with fresh weights.
        valley_check: Whether to train a second time without pruning, and to measure the training loss on the
            way from there to the pruned network; doubles the time, uses none of the budget.
    """

    title: ClassVar[str] = "directional pruning by group dual averaging, no fine-tuning"
    source: ClassVar[str] = "Li, Liu, Shao, Wang, Geng, 2021, arXiv 2107.05328"

    steer: Literal["flops", "off"] = "flops"
    target_flops: float = Field(default=0.5, gt=0, le=1)
    g_end: float = Field(default=1.0, gt=0)
    mu: float = Field(default=0.51, gt=0, lt=1)
    lr: float = Field(default=0.1, gt=0)
    lr_schedule: Literal["const_then_linear", "const", "step"] = "const_then_linear"
    const_frac: float = Field(default=0.5, gt=0, le=0.9)
    kappa_mode: KappaMode = "init_norm"
    kappa_by: Literal["network", "stage"] = "network"
    stage_mult: dict[str, float] = Field(default_factory=dict)
    bn_mode: BnMode = "in_group"
    residual_mode: ResidualMode = "coupled"
    min_keep: int = Field(default=1, ge=1)
    prox_every: int = Field(default=1, ge=1)
    threshold_warmup: float = Field(default=0.0, ge=0, lt=1)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    sticky: bool = True
    start: Literal["dense", "scratch"] = "dense"
    valley_check: bool = False

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        """Check what one field alone cannot show.

        Returns:
            The method.

        Raises:
            ValueError: If fields contradict each other.
        """
        if self.threshold_warmup >= self.const_frac:
            raise ValueError(
                f"threshold_warmup = {self.threshold_warmup} must be below const_frac = {self.const_frac}"
            )
        if any(factor <= 0 for factor in self.stage_mult.values()):
            raise ValueError(f"stage_mult must be positive, got {self.stage_mult}")
        if bool(self.stage_mult) != (self.kappa_by == "stage"):
            raise ValueError(f"stage_mult goes with kappa_by 'stage', got {self.stage_mult} and {self.kappa_by!r}")
        return self

    @classmethod
    def space(cls, groups: Sequence[LayerGroup]) -> Space:
        """Return the search space.

        Steering takes the sparsity out of the search, so that points are spread over the front as asked;
        without it the threshold at the end is searched, which the sparsity follows steadily (``c`` would have
        to be searched jointly with ``mu``, ``lr`` and the budget).

        Args:
            groups: The prunable channel groups.

        Returns:
            The space.
        """
        stages = dict.fromkeys(group.stage for group in groups)
        own: dict[str, Parameter] = {
            "steer": Categorical(("flops", "off"), default="flops"),
            "target_flops": Real(0.05, 0.9, default=0.5),
            "g_end": LogReal(0.3, 4.0, default=1.0),
            "mu": Real(0.501, 0.9, default=0.51),
            "lr": LogReal(0.01, 0.3, default=0.1),
            "lr_schedule": Categorical(("const_then_linear", "const", "step"), default="const_then_linear"),
            "const_frac": Real(0.4, 0.8, default=0.5),
            "kappa_mode": Categorical(("init_norm", "sqrt_size", "one"), default="init_norm"),
            "prox_every": Integer(1, 20, log=True, default=1),
            "kappa_by": Categorical(("network", "stage"), default="network"),
        }
        own |= {f"stage_mult[{stage}]": LogReal(0.25, 4.0, default=1.0) for stage in stages}
        conditions = {
            "target_flops": Condition("steer", ("flops",)),
            "g_end": Condition("steer", ("off",)),
        }
        conditions |= {f"stage_mult[{stage}]": Condition("kappa_by", ("stage",)) for stage in stages}
        return Space(own, conditions)

    def prune(self, problem: Problem) -> Pruned:
        """Train until enough units are zero, and go on to the end of the budget; then take them away.

        Args:
            problem: The network, the data and the budget.

        Returns:
            The smaller network; ``extra`` holds ``flops_share``, ``threshold`` (its last value),
            ``accuracy_cut`` and, with ``valley_check``, what :func:`methods.valley.compared` measured.

        Raises:
            InputError: If there is no step to prune in, or the target cannot be reached.
        """
        if problem.steps == 0:
            raise InputError("sdprun prunes while it trains: it needs a budget of at least 1 step, not 0 steps")
        groups = channel_groups(problem.model, problem.example, problem.ignored)
        chosen = prunable(groups, problem.model, self.residual_mode)
        shares = Shares(chosen, CostModel(problem.model, problem.example, groups), self.min_keep)
        if self.steer == "flops" and shares.smallest > self.target_flops:
            raise InputError(
                f"target_flops = {self.target_flops} cannot be reached: {shares.smallest:.3f} of the FLOPs are left "
                f"with {self.min_keep} units in every group that may be pruned"
            )
        seed = drawn_seed(problem.generator)
        start = fresh(problem.model, derived(seed, 1)) if self.start == "scratch" else problem.model
        model, hook, history = self._trained(problem, start, chosen, shares, derived(seed, 0), problem.report)
        kept = {group.name: list(range(group.channels)) for group in groups} | hook.kept()
        smaller = cut(model, groups, kept)
        accuracy = evaluate(smaller, problem.validation, bf16=problem.recipe.bf16).accuracy
        extra = hook.results() | {"accuracy_cut": accuracy}
        if self.valley_check:
            plain = self.model_copy(update={"steer": "off", "g_end": None})
            twin, _, _ = plain._trained(problem, start, chosen, shares, derived(seed, 0), lambda record: None)
            extra |= compared(twin, model, problem.train, problem.recipe.batch_size, problem.steps, derived(seed, 2))
        return Pruned(smaller, kept, history, problem.steps, extra)
