"""The mathematics of fronts on plain arrays: dominance, hypervolume, knee. The only import of moocore."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def find_non_dominated(points: ArrayLike, maximise: Sequence[bool]) -> NDArray[np.bool_]:
    """Find the points that no other point beats.

    A point dominates another one if it is at least as good in every objective and better in one. Of exact
    duplicates only the first counts as non-dominated.

    Args:
        points: One row per point, ``[points, objectives]``, finite.
        maximise: For each objective, whether larger is better.

    Returns:
        Mask of the non-dominated points, ``[points]``.

    Example:
        >>> find_non_dominated([[0.9, 40.0], [0.8, 50.0], [0.7, 10.0]], maximise=[True, False]).tolist()
        [True, False, True]
    """
    losses = _losses(points, maximise)
    # keep_weakly=False: of exact duplicates the first alone counts.
    return np.asarray(moocore.is_nondominated(losses, keep_weakly=False), dtype=np.bool_)


def hypervolume(points: ArrayLike, reference: Sequence[float], maximise: Sequence[bool]) -> float:
    """Measure exactly the volume that is dominated by the points and dominates the reference.

    Points that are not better than the reference in every objective add nothing.

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
    inside = losses[(losses < worst).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=worst)) if len(inside) else 0.0


def find_attained(fronts: Sequence[ArrayLike], maximise: Sequence[bool], share: float) -> Array:
    """Find what a share of several fronts reach: a surface of their empirical attainment function.

    Args:
        fronts: Points of each front, ``[points, objectives]``, two or three objectives.
        maximise: For each objective, whether larger is better.
        share: Share of the fronts that must reach a point (by one as good in every objective), above 0 and up to 1.

    Returns:
        The points of the surface, ``[points, objectives]``, by the first objective, the worst first.

    Example:
        >>> one, two = [[0.9, 40.0], [0.8, 20.0]], [[0.85, 30.0]]
        >>> find_attained([one, two], [True, False], 1.0).tolist()  # what both reach
        [[0.8, 30.0], [0.85, 40.0]]
    """
    losses = np.concatenate([_losses(points, maximise) for points in fronts])
    sets = np.repeat(np.arange(1.0, len(fronts) + 1), [len(points) for points in map(np.atleast_2d, fronts)])
    found = moocore.eaf(losses, sets, percentiles=[100.0 * share])[:, :-1]
    points = np.where(np.asarray(maximise), -found, found)
    return np.asarray(points[np.lexsort(-found.T[::-1])])


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
