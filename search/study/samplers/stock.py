"""Optuna's own samplers, made so that they search as well as they can in the few dozen trials of a sweep."""

from __future__ import annotations

import optuna

GENERATIONS = 6
"""Into how many generations NSGA-II divides a sweep; with its usual 50 trials in each, short sweeps would end in the
first one, which is random."""


def make_stock_sampler(name: str, seed: int, trials: int) -> optuna.samplers.BaseSampler:
    """Make one of Optuna's samplers.

    Args:
        name: Which one, never ``"auto"``.
        seed: Its seed.
        trials: How many trials the study was begun with.

    Returns:
        The sampler.

    Raises:
        ValueError: If Optuna has no such sampler.
    """
    match name:
        case "gp":
            return optuna.samplers.GPSampler(seed=seed)
        case "nsga2":
            population = min(50, max(4, trials // GENERATIONS))
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=population)
        case "random" | "defaults":  # with "defaults" there is nothing to ask: all points were given
            return optuna.samplers.RandomSampler(seed=seed)
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        case _:
            raise ValueError(f"Optuna has no sampler {name!r}")
