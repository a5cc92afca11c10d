"""Expected hypervolume improvement where the costs are known and only the error is uncertain.

With ``f`` the staircase of the front (the least error of a member that saves at least so much in every cost), a
candidate that saves ``c`` with an uncertain error ``e`` improves the volume between the front and the reference by::

    E integral over s in [0, c] of max(0, f(s) - e) ds
        =  sum over levels f_k of |{s <= c : f(s) = f_k}| E max(0, f_k - e)

The costs being exact, the measures are exact too, and with a log-normal error the expectations have a closed form.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.special import ndtr

from search.study.samplers.slots import Floats
from search.study.samplers.surrogate import FLOOR

MOST_CELLS = 4096
"""Cells of the staircase that are listed; where several costs make more of them, every other edge is left out."""


def expected_improvement(
    mean: Floats, sd: Floats, savings: Floats, front_savings: Floats, front_errors: Floats, worst: float, most: Floats
) -> Floats:
    """Compute the expected gain in hypervolume of candidates.

    Args:
        mean: Mean of log(error + FLOOR), ``[candidates]``.
        sd: Its standard deviation, ``[candidates]``.
        savings: What candidates save in every cost, in octaves, ``[candidates, costs]``.
        front_savings: The same of the networks so far, ``[networks, costs]``; they may be dominated.
        front_errors: Their errors, ``[networks]``.
        worst: Errors from here on are worth nothing.
        most: Savings from here on count no more, ``[costs]``.

    Returns:
        The gain, ``[candidates]``, in error times octaves of each cost.

    Example:
        >>> gain = expected_improvement(
        ...     np.log([0.01 + FLOOR]), np.array([1e-9]), np.array([[2.0]]), np.empty((0, 1)), np.empty(0), 0.05,
        ...     np.array([4.0]),
        ... )
        >>> gain.round(6).tolist()
        [0.08]
    """
    savings = np.minimum(savings, most).clip(0)
    corners = np.minimum(front_savings, most).clip(0)
    lows, highs, levels = _cells(corners, np.minimum(front_errors, worst), worst, most)
    gain = np.zeros(len(mean))
    expected_error = np.exp(mean + sd**2 / 2)
    for level in np.unique(levels):
        here = levels == level
        # |[low, min(high, c)]|, a product over costs
        sides = (np.minimum(savings[:, None], highs[here][None]) - lows[here][None]).clip(0)
        measure = sides.prod(axis=2).sum(axis=1)
        # E max(0, K - exp(Z)) = K Phi(z) - E[exp(Z)] Phi(z - sd), with K = f_k + FLOOR, z = (log K - mean) / sd
        strike = max(level, 0.0) + FLOOR
        z = (np.log(strike) - mean) / sd
        gain += measure * np.maximum(strike * ndtr(z) - expected_error * ndtr(z - sd), 0.0)
    return gain


def _cells(corners: Floats, errors: Floats, worst: float, most: Floats) -> tuple[Floats, Floats, Floats]:
    """Divide the savings into boxes on which the staircase is constant.

    Args:
        corners: Savings of the networks, ``[networks, costs]``.
        errors: Their errors, at most ``worst``.
        worst: The staircase where no network saves so much.
        most: Upper ends, ``[costs]``.

    Returns:
        Lower and upper corners, ``[cells, costs]`` each, and the staircase's level, ``[cells]``.
    """
    useful = errors < worst
    corners, errors = _drop_dominated(corners[useful], errors[useful])
    edges = [np.unique(np.concatenate([[0.0], corners[:, cost], [top]])) for cost, top in enumerate(most)]
    while np.prod([len(each) - 1 for each in edges]) > MOST_CELLS:
        longest = max(range(len(edges)), key=lambda cost: len(edges[cost]))
        edges[longest] = np.concatenate([edges[longest][:-1:2], edges[longest][-1:]])  # a coarser staircase
    lows = np.array(list(itertools.product(*(each[:-1] for each in edges))))
    highs = np.array(list(itertools.product(*(each[1:] for each in edges))))
    middle = (lows + highs) / 2
    reached = (corners[None] >= middle[:, None]).all(axis=2)  # [cells, networks]
    levels = np.where(reached, errors[None], worst).min(axis=1, initial=worst)
    return lows, highs, levels


def _drop_dominated(corners: Floats, errors: Floats) -> tuple[Floats, Floats]:
    better = (corners[None] >= corners[:, None]).all(axis=2) & (errors[None] <= errors[:, None])
    strictly = (corners[None] > corners[:, None]).any(axis=2) | (errors[None] < errors[:, None])
    keep = ~(better & strictly).any(axis=1)
    return corners[keep], errors[keep]
