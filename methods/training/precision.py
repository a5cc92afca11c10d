"""In what precision layers compute while a network is trained: float32, or half of it where that is asked for."""

from __future__ import annotations

import torch

from methods.contract.recipe import Recipe


def choose_half_type(recipe: Recipe) -> torch.dtype | None:
    """Return in what type layers compute.

    Args:
        recipe: How the network is trained.

    Returns:
        ``torch.bfloat16`` or ``torch.float16`` for autocast; ``None`` for the type of the weights.
    """
    if recipe.bf16:
        return torch.bfloat16
    return torch.float16 if recipe.fp16 else None


def loss_scaler(recipe: Recipe, device: torch.device) -> torch.amp.GradScaler | None:
    """Make what keeps small gradients from vanishing in float16 (Micikevicius et al., 2018, arXiv 1710.03740).

    Args:
        recipe: How the network is trained.
        device: Where.

    Returns:
        A scaler of the loss, which leaves out a step whose gradients overflow; ``None`` where none is needed, for
        bfloat16 has the range of float32.
    """
    return torch.amp.GradScaler(device.type) if recipe.fp16 else None
