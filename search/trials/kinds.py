"""What kind of failure ended a trial, and whether a network came out of it that can be used."""

from __future__ import annotations

import torch
from torch import nn

from methods.training.trainer import Diverged
from search.records.outcome import State
from spaces import InputError

_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")


class NotFinite(RuntimeError):
    """A network came out of a trial whose weights are not all numbers."""


def failure_kind(error: BaseException) -> State:
    """Say how an exception ends a trial.

    Args:
        error: What the method, or the measurement after it, raised.

    Returns:
        ``"out_of_memory"``, ``"diverged"``, ``"infeasible"`` for a point that cannot be carried out, else ``"failed"``.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "out_of_memory"
    # Allocators of the CPU, and libraries on the GPU, raise what everything else raises, too.
    if isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MEMORY):
        return "out_of_memory"
    if isinstance(error, Diverged | NotFinite | FloatingPointError):
        return "diverged"
    return "infeasible" if isinstance(error, InputError) else "failed"


def require_finite(model: nn.Module) -> None:
    """Refuse a network whose weights are not all numbers.

    Args:
        model: The pruned network.

    Raises:
        NotFinite: If a parameter or buffer holds NaN or infinity; the first one is named.
    """
    tensors = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    bad = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise NotFinite(f"{len(bad)} of {len(tensors)} tensors of the network are not finite, the first is {bad[0]}")
