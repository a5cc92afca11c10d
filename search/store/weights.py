"""Weights on disk: safetensors only, so that loading never runs code. The only import of safetensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from spaces import InputError


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dictionary, atomically.

    Args:
        weights: Tensors by name.
        path: The file.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    # Tied tensors share memory, which the format refuses: each name gets a copy of its own.
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}, fresh)
    os.replace(fresh, path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dictionary.

    Args:
        path: The file.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        InputError: If the file cannot be read as safetensors.
    """
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {error}") from error
