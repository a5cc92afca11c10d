"""Labels beside dots, clear of each other and of everything drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from search.fronts.dominance import Array
from search.report.palette import INK, MUTED
from search.report.plane import Dot, Plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DOT, _RING = 6.0, 14.0  # pixels from the middle of a dot, and of a ring, to its rim
_CROWDED = 22.0  # pixels between dots below which only one of them is labelled
_NEAR, _CELL = 60.0, 5.0  # pixels around a dot that its label looks at, and how finely


def label_front(axes: Axes, shown: Plane, ringed: Sequence[Dot]) -> None:
    """Write trial numbers beside the members of the front, clear of dots and of each other.

    Args:
        axes: Where to draw, in its final place.
        shown: The picture's content.
        ringed: The members with a ring around them.
    """
    # Imports pyplot, yet uses none of its state as long as it is given the axes.
    from adjustText import adjust_text

    place = axes.transData.transform
    labelled = _choose_labels([*ringed, *shown.front[:1], *shown.front[::-1]], place)
    if not labelled:
        return
    back = axes.transData.inverted().transform
    anchors = np.array([[dot.x, dot.y] for dot in labelled])
    # Up and to the left of a member there is no other network, else it would not be on the front.
    away = np.array([_RING + 8 if dot in ringed else _DOT + 4 for dot in labelled])
    starts = back(place(anchors) + away[:, None] * np.array([-1.0, 0.9]))
    texts = [
        axes.text(x, y, dot.label, fontsize=9.5, color=INK, ha="center", va="center", zorder=8)
        for (x, y), dot in zip(starts, labelled, strict=True)
    ]
    obstacles = back(_thin_points(np.concatenate(list(_outlines(axes, shown, ringed))), place(anchors)))
    adjust_text(
        texts,
        x=obstacles[:, 0],
        y=obstacles[:, 1],
        target_x=anchors[:, 0],
        target_y=anchors[:, 1],
        avoid_self=False,
        ax=axes,
        # Counted steps instead of the default, a second by the clock: the same front gives the same picture.
        iter_lim=120,
        expand=(1.1, 1.15),
        force_text=(0.2, 0.3),
        force_static=(0.1, 0.15),
        force_pull=(0.02, 0.02),
        force_explode=(0.0, 0.0),
        min_arrow_len=14,
        arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.8, "shrinkA": 1, "shrinkB": 5, "zorder": 4.5},
    )


def _choose_labels(dots: Sequence[Dot], place: Callable[[ArrayLike], Array]) -> list[Dot]:
    """Choose which dots are labelled: as many as can be read.

    Args:
        dots: The dots, the most important first.
        place: Turns positions into pixels.

    Returns:
        Those that are far enough from all that were chosen before.
    """
    labelled: list[Dot] = []
    for dot in dots:
        at = place((dot.x, dot.y))
        if all(np.hypot(*(at - place((other.x, other.y)))) >= _CROWDED for other in labelled):
            labelled.append(dot)
    return labelled


def _outlines(axes: Axes, shown: Plane, ringed: Sequence[Dot]) -> Iterator[Array]:
    """Yield points along everything that a label must not cover.

    Args:
        axes: Where it is drawn.
        shown: The picture's content.
        ringed: The members with a ring around them.

    Yields:
        Points in pixels, ``[points, 2]``.
    """
    place = axes.transData.transform
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    for dot in shown.dots:
        yield place((dot.x, dot.y)) + (_RING if dot in ringed else _DOT) * circle
    across, up = shown.dense
    if across is not None and up is not None:
        yield place((across, up)) + _RING * circle
    corners = [(dot.x, dot.y) for dot in shown.stairs]
    for (x, y), (next_x, next_y) in pairwise([*corners, (shown.across.high, corners[-1][1])] if corners else []):
        yield _sample_segment(place([(x, y), (next_x, y)]))
        yield _sample_segment(place([(next_x, y), (next_x, next_y)]))
    if up is not None:
        yield _sample_segment(place([(shown.across.low, up), (shown.across.high, up)]))


def _thin_points(points: Array, anchors: Array) -> Array:
    """Return the points near an anchor, at most one per cell of a grid: thousands of trials cost no more."""
    near = np.hypot(*(points[:, None] - anchors).T).min(axis=0) < _NEAR
    close: Array = points[near]
    _, first = np.unique(np.floor(close / _CELL), axis=0, return_index=True)
    thinned: Array = close[np.sort(first)]
    return thinned


def _sample_segment(ends: Array) -> Array:
    """Return points every few pixels from the first end to the second, ``[points, 2]``."""
    steps = max(2, int(np.abs(ends[1] - ends[0]).max() // 5))
    return np.linspace(ends[0], ends[1], steps)
