"""Weight files: reading them without running code, and telling what does not fit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from search.store import weights as stored
from spaces import InputError

SUFFIXES = (".safetensors", ".pth", ".pt")
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Classifiers for training alone in files of GoogLeNet and Inception; networks here have none."""


def is_weight_file(weights: str) -> bool:
    """Tell a file from the name of a set of weights.

    Args:
        weights: What the user gave.

    Returns:
        Whether it ends as a weight file does.
    """
    return Path(weights).suffix in SUFFIXES


def load_weights(model: nn.Module, file: Path) -> None:
    """Load a state dictionary from a file into a network; every tensor must fit.

    A ``.pth`` or ``.pt`` file may hold the dictionary itself or a checkpoint with it under ``state_dict`` or
    ``model``, and names may begin with ``module.``, as ``DataParallel`` writes them.

    Args:
        model: The network, changed in place.
        file: A ``.safetensors``, ``.pth`` or ``.pt`` file.

    Raises:
        InputError: If the file cannot be read, or names or shapes differ from the network's.
    """
    given = _read(file)
    own = model.state_dict()
    # Counters of batch norms play no part in their output, and old files lack them.
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    given = {name: t for name, t in given.items() if name in own or not name.startswith(AUXILIARY)}
    surplus = [name for name in given if name not in own]
    shapes = [
        f"{name} {list(given[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in given and given[name].shape != tensor.shape
    ]
    problems = [
        f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in (("it lacks", missing), ("it has in addition", surplus), ("it has", shapes))
        if names
    ]
    if problems:
        raise InputError(
            f"the weights in {file} do not fit the model: {'; '.join(problems)}; "
            "give the file that belongs to this model and number of classes"
        )
    model.load_state_dict({**own, **given})


def _read(file: Path) -> Mapping[str, Tensor]:
    if not file.is_file():
        raise InputError(f"there is no weight file {file}")
    try:
        if file.suffix == ".safetensors":
            return stored.load_weights(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{file} holds more than tensors, or is damaged; save model.state_dict() instead of the model"
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise InputError(f"{file} cannot be read as weights: {error}") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{file} does not hold a state dictionary; save model.state_dict()")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
