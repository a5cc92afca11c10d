"""Under which conditions latency is measured; decided before anything is trained. Needs no torch until asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spaces import InputError, unknown_name

if TYPE_CHECKING:
    from search.study.config import StudyConfig

TARGETS = ("cpu", "cpu-compiled", "cuda", "cuda-eager", "onnxruntime")
"""Where and how networks can be timed: see ``search.speed.targets``."""

CHANNEL_STEPS = {"cuda": 8, "cuda-eager": 8}
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


def checked_targets(names: Sequence[str]) -> tuple[str, ...]:
    """Check names of targets.

    Args:
        names: What the user wrote.

    Returns:
        The same names.

    Raises:
        InputError: If one is unknown or given twice, or none is given.
    """
    for name in names:
        if name not in TARGETS:
            raise InputError(unknown_name("latency target", name, TARGETS))
    if len(set(names)) != len(names):
        raise InputError(f"latency targets are named twice: {', '.join(names)}")
    if not names:
        raise InputError(f"latency.targets names no target; leave it out or choose from {', '.join(TARGETS)}")
    return tuple(names)


def conditions(config: StudyConfig, device: str) -> Conditions | None:
    """Decide whether and how the trials of a study are timed.

    Args:
        config: The configuration.
        device: Where trials compute, ``"cpu"`` or ``"cuda"``.

    Returns:
        The conditions; ``None`` if latency is neither an objective nor asked for by ``latency.targets``.

    Raises:
        InputError: If a target's device is not there, or more threads are asked for than a trial owns.
    """
    wanted, resources = config.latency, config.resources
    if wanted.targets is None and "latency" not in config.objectives:
        return None
    targets = wanted.targets or ("cuda" if device == "cuda" else "cpu",)
    check_devices(targets)
    if device == "cpu" and resources.executor == "ray" and any(name.startswith("cuda") for name in targets):
        raise InputError(
            f"latency targets {', '.join(targets)}: trials without a GPU cannot be timed on one; set "
            "resources.gpus_per_trial to 1, or leave out the targets that begin with cuda"
        )
    threads = wanted.threads or resources.cpus_per_trial
    alone = resources.executor == "inline" or resources.max_concurrent == 1
    if threads > resources.cpus_per_trial and not alone:
        raise InputError(
            f"latency.threads = {threads} is more than the {resources.cpus_per_trial} core(s) of a trial: trials "
            "beside it would disturb every measurement; raise resources.cpus_per_trial or set "
            "resources.max_concurrent = 1"
        )
    return Conditions(targets, wanted.batch_size, threads, wanted.channels_last, wanted.seconds)


def check_devices(targets: Sequence[str]) -> None:
    """Check that the devices of targets are there.

    Args:
        targets: Names of targets.

    Raises:
        InputError: If there is no CUDA device and a target needs one.
    """
    on_gpu = [name for name in targets if name.startswith("cuda")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        others = ", ".join(name for name in TARGETS if not name.startswith("cuda"))
        raise InputError(
            f"latency target {on_gpu[0]!r} needs a CUDA device, and torch finds none on this machine; "
            f"choose another target ({others})"
        )


def channel_step(config: StudyConfig, timed: Conditions | None) -> int:
    """Decide what kept widths are multiples of.

    Args:
        config: The configuration.
        timed: How trials are timed.

    Returns:
        ``round_to`` of the configuration; for ``"auto"`` 1, unless latency is an objective: then what the first
        target rewards.
    """
    if config.round_to != "auto":
        return config.round_to
    if timed is None or "latency" not in config.objectives:
        return 1
    return CHANNEL_STEPS.get(timed.targets[0], CPU_CHANNEL_STEP)
