"""Weights on disk: safetensors only, so that loading never runs code. The only import of safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from search.store.files import replace_file
from spaces import InputError


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dictionary, atomically.

    Args:
        weights: Tensors by name.
        path: The file.
    """
    # Tied tensors share memory, which the format refuses: each name gets a copy of its own.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    with replace_file(path) as fresh:
        save_file(copies, fresh)


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


def check_weights(path: Path) -> None:
    """Check that a file holds as many bytes as its header promises; the tensors are not read.

    Args:
        path: The file.

    Raises:
        InputError: If it is missing, cut short, or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt"):
            return
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {error}") from error
