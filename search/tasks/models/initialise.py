"""Weights at the start of training: He initialisation, from a seed, leaving global random state alone."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def seed_defaults(seed: int) -> Generator[None]:
    """Draw every default random number in the block from a seed, and restore the global state afterwards.

    Args:
        seed: The seed, ``>= 0``.

    Yields:
        Nothing.
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would reseed the accelerators as well.
        torch.default_generator.manual_seed(seed)
        yield


def initialise_he_normal(model: nn.Module) -> None:
    """Initialise convolutions and linear layers as He et al. (2015, arXiv 1502.01852, eq. 10).

    Biases become 0; batch norms keep torch's start, scale 1 and shift 0.

    Args:
        model: The network; its weights are drawn again.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
