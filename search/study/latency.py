"""How a study times its networks, and which widths are worth keeping: read off its configuration.

No torch here, unless a target of somebody else's is named.
"""

from __future__ import annotations

from methods.contract.named import is_reference
from search.speed.conditions import CHANNEL_STEPS, CPU_CHANNEL_STEP, ON_GPU, Conditions, check_devices
from search.study.config import StudyConfig
from spaces import InputError


def conditions(config: StudyConfig, device: str) -> Conditions | None:
    """Decide whether and how the trials of a study are timed.

    Args:
        config: The configuration.
        device: Where trials compute, ``"cpu"`` or ``"cuda"``.

    Returns:
        The conditions; ``None`` if latency is neither an objective nor asked for by ``latency.targets``.

    Raises:
        InputError: If a target's device is not there, a target that is named as ``package.module:NAME`` is not one, or
            more threads are asked for than a trial owns.
    """
    wanted, resources = config.latency, config.resources
    if wanted.targets is None and "latency" not in config.objectives:
        return None
    targets = wanted.targets or ("cuda" if device == "cuda" else "cpu",)
    check_devices(targets)
    for name in filter(is_reference, targets):
        from search.speed.targets import load_target

        load_target(name)  # what it cannot time is said later, when there is a network
    if device == "cpu" and resources.executor == "ray" and any(name in ON_GPU for name in targets):
        raise InputError(
            f"latency targets {', '.join(targets)}: trials without a GPU cannot be timed on one; set "
            "resources.gpus_per_trial to 1, or leave these targets out"
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
