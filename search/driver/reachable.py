"""Whether a limit on latency can be kept at all: asked before any trial, by timing the narrowest network."""

from __future__ import annotations

from methods.network.channels import cut
from search.objectives.units import write_latency
from search.speed.measure import measure_pair
from search.trials.trial import Setting, problem_of
from spaces import InputError
from spaces.layers import HIGHEST_RATIO, round_down_width


def require_reachable(setting: Setting) -> None:
    """Refuse a limit on latency that not even the narrowest network keeps to.

    Args:
        setting: What all trials share, with the limit as ``max_latency``.

    Raises:
        InputError: If the narrowest network that pruning channels can leave is slower, or cannot be timed.
    """
    if setting.max_latency is None or setting.timed is None or setting.dense_latency is None:
        return
    problem = problem_of(setting, 0)
    narrowest = {
        group.name: range(round_down_width(group.channels * (1 - HIGHEST_RATIO), group.channels, setting.round_to))
        for group in problem.groups
    }
    target = setting.timed.targets[0]
    timings, reasons = measure_pair(
        setting.timed, setting.model, cut(setting.model, problem.groups, narrowest), setting.example
    )
    if target not in timings:
        raise InputError(f"max-latency cannot be kept where networks cannot be timed: {reasons[target]}")
    share = timings[target].share
    if setting.dense_latency * share > setting.max_latency:
        raise InputError(
            f"max-latency = {write_latency(setting.max_latency)} cannot be reached on {target}: the narrowest network "
            f"that pruning channels can leave takes {write_latency(setting.dense_latency * share)} "
            f"({100 * share:.3g}% of the dense network's {write_latency(setting.dense_latency)})"
        )
