"""In what precision layers compute while a network is trained: float32, or half of it where that is asked for."""

from __future__ import annotations

import time

import torch
from torch.nn import functional as F

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


REPEATS = 5
"""How often a convolution is timed; what counts is the shortest time, which other programs disturb least."""


def measure_half(half: torch.dtype, device: torch.device) -> float:
    """Time a small convolution and its gradients in half precision beside float32.

    A processor may have no instructions for a type: results are right, and come much later. An EPYC without AVX-512
    takes 9 to 12 times as long in bfloat16.

    Args:
        half: ``torch.bfloat16`` or ``torch.float16``.
        device: Where.

    Returns:
        The time in half precision, as a multiple of that in float32.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 16, 16, 16, generator=generator).to(device)
    filters = torch.randn(16, 16, 3, 3, generator=generator).to(device).requires_grad_()

    def seconds(halved: bool) -> float:
        start = time.perf_counter()
        with torch.autocast(device.type, half, enabled=halved):
            answer = F.conv2d(images, filters, padding=1)
        answer.float().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    seconds(False), seconds(True)  # the first ones also prepare
    pairs = [(seconds(True), seconds(False)) for _ in range(REPEATS)]
    return min(pair[0] for pair in pairs) / min(pair[1] for pair in pairs)
