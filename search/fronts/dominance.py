"""The mathematics of fronts on plain arrays: dominance, hypervolume, knee."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def non_dominated(points: ArrayLike, maximise: Sequence[bool]) -> NDArray[np.bool_]:
    """Find the points that no other point beats.

    A point dominates another one if it is at least as good in every objective and better in one. Of exact
    duplicates only the first counts as non-dominated.

    Args:
        points: One row per point, ``[points, objectives]``, finite.
        maximise: For each objective, whether larger is better.

    Returns:
        Mask of the non-dominated points, ``[points]``.

    Example:
        >>> non_dominated([[0.9, 40.0], [0.8, 50.0], [0.7, 10.0]], maximise=[True, False]).tolist()
        [True, False, True]
    """
    losses = _losses(points, maximise)
    mask = np.zeros(len(losses), dtype=np.bool_)
    # In lexicographic order nothing is dominated by what comes later, and the stable sort keeps duplicates in
    # their order: the first of what remains is always on the front.
    rest = np.lexsort(losses.T[::-1])
    while rest.size:
        first, others = rest[0], rest[1:]
        mask[first] = True
        rest = others[(losses[others] < losses[first]).any(axis=1)]
    return mask


def hypervolume(points: ArrayLike, reference: Sequence[float], maximise: Sequence[bool]) -> float:
    """Measure exactly the volume that is dominated by the points and dominates the reference.

    Points that are not better than the reference in every objective add nothing. Two objectives take one sort
    and sweep; more are sliced along the last one, recursively.

    Args:
        points: One row per point, ``[points, objectives]``, finite; may be dominated or repeated.
        reference: The worst acceptable value of each objective, ``[objectives]``.
        maximise: For each objective, whether larger is better.

    Returns:
        The volume, ``>= 0``, in the product of the objectives' units.

    Example:
        >>> hypervolume([[0.75, 0.5], [0.5, 0.25]], reference=[0.0, 1.0], maximise=[True, False])
        0.5
    """
    losses = _losses(points, maximise)
    worst = _losses([reference], maximise)[0]
    return _volume(losses[(losses < worst).all(axis=1)], worst)


def knee(points: ArrayLike, maximise: Sequence[bool]) -> int:
    """Find the point where the front bends most.

    Each objective is scaled to gains in 0..1 over the given points (1 is the best of them). The extremes of
    a two-objective front then lie at ``(1, 0)`` and ``(0, 1)``, and the knee is the point farthest from the
    chord between them on the side of the ideal point ``(1, 1)``; with more objectives, from the plane through
    the extremes. That is the point with the largest sum of gains. Ties go to the first point; hence of two
    points, or of a front that nowhere bulges towards the ideal, the first extreme is returned.

    Args:
        points: The points of a front, ``[points, objectives]``, finite, at least one.
        maximise: For each objective, whether larger is better.

    Returns:
        Index of the knee.

    Raises:
        ValueError: If there is no point.

    Example:
        >>> knee([[0.5, 5.0], [0.96, 20.0], [0.98, 90.0]], maximise=[True, False])
        1
    """
    losses = _losses(points, maximise)
    if not len(losses):
        raise ValueError("a front without points has no knee")
    best = losses.min(axis=0)
    span = losses.max(axis=0) - best
    # An objective in which all points are equal decides nothing.
    scaled = np.divide(losses - best, span, out=np.zeros_like(losses), where=span > 0)
    return int(np.argmin(scaled.sum(axis=1)))


def _losses(points: ArrayLike, maximise: Sequence[bool]) -> Array:
    # Smaller is better everywhere, [points, objectives].
    losses = np.asarray(points, dtype=np.float64).reshape(-1, len(maximise))
    if not np.isfinite(losses).all():
        raise ValueError("points of a front must be finite numbers")
    return np.where(np.asarray(maximise, dtype=np.bool_), -losses, losses)


def _volume(losses: Array, worst: Array) -> float:
    """Return the volume between losses, all of them below ``worst``, and ``worst``."""
    if not len(losses):
        return 0.0
    if losses.shape[1] == 1:
        return float(worst[0] - losses.min())
    if losses.shape[1] == 2:
        return _area(losses, worst)
    ordered = losses[np.argsort(losses[:, -1], kind="stable")]
    heights = np.diff(ordered[:, -1], append=worst[-1])
    volume = 0.0
    for index in np.flatnonzero(heights > 0):
        layer = ordered[: index + 1, :-1]
        front = layer[non_dominated(layer, [False] * layer.shape[1])]
        volume += float(heights[index]) * _volume(front, worst[:-1])
    return volume


def _area(losses: Array, worst: Array) -> float:
    """Return the sum of the strips by which each point, from left to right, lowers the staircase."""
    ordered = losses[np.lexsort((losses[:, 1], losses[:, 0]))]
    lowest = np.minimum.accumulate(ordered[:, 1])
    drops = -np.diff(lowest, prepend=worst[1])
    return float(np.sum((worst[0] - ordered[:, 0]) * drops))
