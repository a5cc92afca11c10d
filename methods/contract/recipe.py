"""How a network is trained: optimiser, learning-rate schedule, loss and precision, as validated data."""

from __future__ import annotations

from hashlib import blake2b
from math import cos, pi
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from spaces.errors import InputError


class Recipe(BaseModel):
    """Settings of one training phase; its length in steps is given where it is run.

    Attributes:
        optimizer: ``"sgd"``, or ``"adamw"`` with decoupled weight decay.
        lr: Highest learning rate.
        momentum: Momentum of SGD; decay rate of the first moment of AdamW.
        nesterov: Nesterov's form of SGD's momentum.
        weight_decay: Weight decay of weights with two or more dimensions.
        decay_norm: Whether parameters with one dimension (norms, biases) decay as well.
        schedule: ``"cosine"`` to zero, ``"step"`` down at the milestones, or ``"constant"``.
        milestones: When the learning rate steps down, as ascending fractions of all steps.
        factor: What the learning rate is multiplied with at a milestone.
        span: What a schedule spans: each ``"phase"``, pruning (at a constant rate) and fine-tuning, or the ``"whole"``
            trial, so that the rate of fine-tuning begins where that of pruning ended.
        warmup: Fraction of all steps over which the learning rate rises linearly from zero.
        batch_size: Examples per optimiser step.
        accumulate: Into how many pieces a batch is split to save memory; the step and its gradient stay the
            same but for batch norms, which see the pieces.
        label_smoothing: Share of the target that is spread evenly over the classes.
        distill: Weight, 0 to 1, of the divergence from a teacher; the labels keep the rest.
        temperature: Softness of teacher and student in that divergence.
        distill_features: Weight of the distance between the attention maps of teacher and student, which is added
            to the loss; 0 for none. For networks on images.
        mixup: ``a`` of ``Beta(a, a)``, from which the share is drawn in which inputs are mixed; 0 for none.
        cutmix: The same for rectangles of images; with both, one of them is done to a batch.
        ema: Decay of a running average of the weights, which is what is evaluated and kept; 0 for none. Not while a
            method prunes, which acts on the weights themselves.
        keep: Whether the weights of the ``"last"`` epoch of fine-tuning are kept, or those of the ``"best"`` on
            validation; accuracies on validation are then those of a chosen epoch.
        clip_norm: Largest norm of the whole gradient; no limit if ``None``.
        bf16: Whether layers compute in bfloat16 (autocast); weights stay as they are.
        fp16: Whether layers compute in float16, for devices that have no bfloat16; the loss is scaled, and a step
            whose gradients overflow is left out.
        channels_last: Whether images and weights lie in memory with channels last while training.
        cuda_graph: Whether forward and backward passes are recorded once and replayed for every batch, on CUDA devices:
            small networks there mostly wait for their kernels to be launched. For networks that do the same in every
            step; elsewhere nothing changes.
        recalibrate: Batches from which batch-norm statistics are estimated again after a cut, and at the end of short
            training, in which they cannot follow the weights; 0 for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=5e-4, ge=0)
    decay_norm: bool = False
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = Field(default=0.1, gt=0, le=1)
    span: Literal["phase", "whole"] = "phase"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    batch_size: int = Field(default=128, ge=1)
    accumulate: int = Field(default=1, ge=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    distill: float = Field(default=0.0, ge=0, le=1)
    temperature: float = Field(default=4.0, gt=0)
    distill_features: float = Field(default=0.0, ge=0)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    keep: Literal["last", "best"] = "last"
    clip_norm: float | None = Field(default=None, gt=0)
    bf16: bool = False
    fp16: bool = False
    channels_last: bool = False
    # Left out of what is stored where it is not used: what was stored before there was such a field stays the same.
    cuda_graph: bool = Field(default=False, exclude_if=lambda used: not used)
    recalibrate: int = Field(default=20, ge=0)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Check what one field alone cannot show."""
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError(
                f"nesterov needs optimizer 'sgd' and momentum above 0, got {self.optimizer!r} and {self.momentum}"
            )
        ascending = list(self.milestones) == sorted(set(self.milestones))
        if not ascending or not all(0 < milestone < 1 for milestone in self.milestones):
            raise ValueError(f"milestones must be ascending fractions between 0 and 1, got {self.milestones}")
        if self.bf16 and self.fp16:
            raise ValueError("bf16 and fp16 exclude each other")
        if self.cuda_graph and (self.mixup > 0 or self.cutmix > 0):
            raise ValueError("cuda_graph excludes mixup and cutmix, whose shares change with every batch")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate = {self.accumulate} must be at most batch_size = {self.batch_size}")
        return self

    @property
    def has_teacher(self) -> bool:
        """Whether the dense network takes part in training."""
        return self.distill > 0 or self.distill_features > 0

    def with_changes(self, **changes: Any) -> Recipe:
        """Return the recipe with some fields changed, validated.

        Args:
            **changes: New values by field name.

        Returns:
            The changed recipe.
        """
        return Recipe.model_validate(self.model_dump() | changes)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate of one optimiser step.

    Args:
        recipe: Highest learning rate, schedule and warm-up.
        step: Index of the step, from 0.
        steps: Length of the phase in steps.

    Returns:
        The learning rate.

    Example:
        >>> recipe = Recipe(lr=1.0, schedule="cosine", warmup=0.2)
        >>> [round(learning_rate(recipe, step, 10), 3) for step in (0, 1, 2, 6, 9)]
        [0.5, 1.0, 1.0, 0.5, 0.038]
    """
    rising = round(recipe.warmup * steps)
    if step < rising:
        return recipe.lr * ((step + 1) / rising)
    if recipe.schedule == "cosine":
        return recipe.lr * (1 + cos(pi * (step - rising) / max(1, steps - rising))) / 2
    if recipe.schedule == "step":
        return recipe.lr * recipe.factor ** sum(step >= milestone * steps for milestone in recipe.milestones)
    return recipe.lr


LARGEST_SEED = 2**63 - 1
"""Generators, databases and JSON readers all take it."""


def check_seed(seed: int) -> int:
    """Check the seed of a whole computation.

    Args:
        seed: The seed.

    Returns:
        The same seed.

    Raises:
        InputError: If it is negative or above :data:`LARGEST_SEED`.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"seed = {seed} is not allowed: give a number from 0 to 2^63 - 1 ({LARGEST_SEED})")
    return seed


def derive_seed(seed: int, *path: int) -> int:
    """Derive the seed of one part of a computation from the seed of the whole.

    Args:
        seed: Seed of the whole.
        *path: Which part, such as the epoch.

    Returns:
        A seed in ``0 .. 2**63 - 1`` that differs unpredictably between parts.

    Example:
        >>> derive_seed(0, 1) == derive_seed(0, 1), derive_seed(0, 1) == derive_seed(0, 2)
        (True, False)
    """
    text = ",".join(str(number) for number in (seed, *path))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) >> 1
