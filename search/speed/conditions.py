"""Under which conditions latency is measured; decided before anything is trained. Needs no torch until asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from methods.contract.named import is_reference, list_known_names
from spaces import InputError, explain_unknown_name

TARGETS = ("cpu", "cpu-compiled", "cuda", "cuda-eager", "onnxruntime", "openvino", "tensorrt", "executorch")
"""Where and how networks can be timed: see ``search.speed.targets``."""

ON_GPU = ("cuda", "cuda-eager", "tensorrt")
"""Those of them that need a GPU."""

GROUP = "paretoprune.targets"
"""The entry-point group in which other packages list targets."""

CHANNEL_STEPS = {"cuda": 8, "cuda-eager": 8, "tensorrt": 8}
CPU_CHANNEL_STEP = 8
"""Widths that are multiples of this are what a cut is worth something in; ``benchmarks/channel_steps.py``."""


@dataclass(frozen=True)
class Conditions:
    """What is timed where.

    Attributes:
        targets: Names in :data:`TARGETS`; the first one gives the objective ``latency``.
        batch_size: Inputs in one forward pass.
        threads: Threads of the targets on the CPU.
        channels_last: Whether images and weights lie in memory with channels last (not for ONNX Runtime, which
            chooses its own layout).
        seconds: About how long one attempt at a measurement may take.
    """

    targets: tuple[str, ...]
    batch_size: int = 1
    threads: int = 1
    channels_last: bool = False
    seconds: float = 2.0


def validate_targets(names: Sequence[str]) -> tuple[str, ...]:
    """Check names of targets.

    Args:
        names: What the user wrote.

    Returns:
        The same names.

    Raises:
        InputError: If one is unknown or given twice, or none is given.
    """
    known = list_known_names(dict.fromkeys(TARGETS, ""), GROUP)
    for name in names:  # a reference is followed when networks are timed: an older study opens without its module
        if name not in known and not is_reference(name):
            raise InputError(explain_unknown_name("latency target", name, [*known, "package.module:NAME"]))
    if len(set(names)) != len(names):
        raise InputError(f"latency targets are named twice: {', '.join(names)}")
    if not names:
        raise InputError(f"latency.targets names no target; leave it out or choose from {', '.join(TARGETS)}")
    return tuple(names)


def check_devices(targets: Sequence[str]) -> None:
    """Check that the devices of targets are there.

    Args:
        targets: Names of targets.

    Raises:
        InputError: If there is no CUDA device and a target needs one.
    """
    on_gpu = [name for name in targets if name in ON_GPU]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        others = ", ".join(name for name in TARGETS if name not in ON_GPU)
        raise InputError(
            f"latency target {on_gpu[0]!r} needs a CUDA device, and torch finds none on this machine; "
            f"choose another target ({others})"
        )
