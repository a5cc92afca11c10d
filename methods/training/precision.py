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


def measure_half(half: torch.dtype) -> float:
    """Time a small convolution and its gradients on the CPU in half precision beside float32.

    A processor may have no instructions for a type: results are right, and come much later. On one core of an EPYC
    without AVX-512 a training step of ResNet-20 takes 7.6 s in bfloat16 and 0.74 s in float32.

    Args:
        half: ``torch.bfloat16`` or ``torch.float16``.

    Returns:
        The time in half precision, as a multiple of that in float32.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 32, 16, 16, generator=generator)
    filters = torch.randn(32, 32, 3, 3, generator=generator).requires_grad_()

    def seconds(halved: bool) -> float:
        start = time.perf_counter()
        with torch.autocast("cpu", half, enabled=halved):
            answer = F.conv2d(images, filters, padding=1)
        answer.float().sum().backward()
        return time.perf_counter() - start

    times = [(seconds(True), seconds(False)) for _ in range(1 + REPEATS)][1:]  # the first ones also prepare
    return min(pair[0] for pair in times) / min(pair[1] for pair in times)
