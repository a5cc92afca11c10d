"""Which texts name a file of weights; without torch, for the configuration."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


def is_weight_file(weights: str) -> bool:
    """Tell a file from the name of a set of weights.

    Args:
        weights: What the user gave.

    Returns:
        Whether it ends as a weight file does.
    """
    return Path(weights).suffix in SUFFIXES
