"""Pivot search: orders of rows and columns that bring the large scores of matrices into a few dense blocks.

A pivoted matrix is cut into clusters of rows and clusters of columns; some of the blocks where they cross are
kept. With scores ``A >= 0`` the kept blocks retain::

    S(r, c, K) = sum over kept (a, b) of  sum over rows i in r_a, columns j in c_b of  A_ij

Finding the best orders is NP-hard. Given all but one of the orders, the best remaining one is an assignment
problem and solved exactly, so ``S`` never falls from step to step; restarts look for other summits.

Matrices of a network share orders (``methods.pivoting.block_matrices``): a step places the channels of one slot for all
matrices that refer to it at once. A single matrix has two slots. This is the only door to scipy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from methods.pivoting.block_matrices import Axis, Booleans, Floats, Integers, Matrix, Part, Pivots

EXACT = 2048
"""Up to so many channels an assignment is solved exactly (0.2 s); beyond, greedily and by exchanges."""

_MAX_SWEEPS = 60  # 8 to 30 are usual
_KMEANS_ROUNDS = 15


def search(
    matrices: Sequence[Matrix],
    slots: Sequence[int],
    *,
    restarts: int = 5,
    seed: int = 0,
    start: Sequence[Integers] | None = None,
    still: frozenset[int] = frozenset(),
) -> Pivots:
    """Look for the orders and blocks that retain most, summed over matrices (each divided by its own sum).

    Args:
        matrices: What is to be pivoted together.
        slots: Length of each slot.
        restarts: Random starts besides the spectral one; with ``start`` there is no other.
        seed: Decides the random starts.
        start: Orders to start from.
        still: Slots that stay in their own order, or in that of ``start``.

    Returns:
        The best of all starts; the same for the same seed.
    """
    shares = [replace(matrix, scores=_normalise(matrix.scores)) for matrix in matrices]
    if start is not None:
        return _climb(shares, [np.asarray(order) for order in start], still)
    rng = np.random.default_rng(seed)
    begins = [_spectral_start(shares, slots, still, rng)]
    for _ in range(restarts):
        begins.append([np.arange(n) if s in still else rng.permutation(n) for s, n in enumerate(slots)])
    return max((_climb(shares, begin, still) for begin in begins), key=lambda found: found.total)


def sample_pivots(
    matrices: Sequence[Matrix], slots: Sequence[int], seed: int, still: frozenset[int] = frozenset()
) -> Pivots:
    """Draw orders and blocks at random, whatever the scores (MPDCompress, arXiv 1805.12085).

    Args:
        matrices: What is to be pivoted.
        slots: Length of each slot.
        seed: Decides everything.
        still: Slots that stay in their own order.

    Returns:
        Random pivots.
    """
    rng = np.random.default_rng(seed)
    shares = [replace(matrix, scores=_normalise(matrix.scores)) for matrix in matrices]
    orders = [np.arange(n) if s in still else rng.permutation(n) for s, n in enumerate(slots)]
    kept = [_choose_blocks(m, rng.random((m.rows.clusters, m.columns.clusters))) for m in shares]
    return _build_pivots(shares, orders, kept, [])


def assign(gain: Floats, capacity: Integers) -> Integers:
    """Assign every item to a class, each class as often as it has room for, with the largest sum of gains.

    Args:
        gain: What an item brings in a class, ``[items, classes]``.
        capacity: Room of each class, ``[classes]``; adds up to the number of items.

    Returns:
        The class of each item, ``[items]``; optimal up to :data:`EXACT` items, beyond that no exchange of two
        items makes it better.
    """
    if len(gain) > EXACT:
        return _exchange_pairs(gain, _greedy(gain, capacity))
    classes = np.repeat(np.arange(len(capacity)), capacity)
    items, places = linear_sum_assignment(gain[:, classes], maximize=True)
    found = np.empty(len(gain), dtype=np.int64)
    found[items] = classes[places]
    return found


def _greedy(gain: Floats, capacity: Integers) -> Integers:
    """Let the items that have most to lose choose first."""
    left, found = capacity.copy(), np.empty(len(gain), dtype=np.int64)
    top = -np.partition(-gain, 1, axis=1) if gain.shape[1] > 1 else np.hstack([gain, gain])
    for item in np.argsort(-(top[:, 0] - top[:, 1]), kind="stable"):
        found[item] = int(np.argmax(np.where(left > 0, gain[item], -np.inf)))
        left[found[item]] -= 1
    return found


def _exchange_pairs(gain: Floats, found: Integers) -> Integers:
    """Exchange pairs of items between classes as long as that pays."""
    classes = gain.shape[1]
    improved = True
    while improved:
        improved = False
        for one in range(classes):
            for other in range(one + 1, classes):
                mine, theirs = np.flatnonzero(found == one), np.flatnonzero(found == other)
                there = gain[mine, other] - gain[mine, one]
                here = gain[theirs, one] - gain[theirs, other]
                mine, theirs = mine[np.argsort(-there, kind="stable")], theirs[np.argsort(-here, kind="stable")]
                pairs = min(len(mine), len(theirs))
                profit = np.sort(there)[::-1][:pairs] + np.sort(here)[::-1][:pairs]
                paying = int((profit > 1e-12 * max(1.0, float(np.abs(gain).max()))).sum())
                found[mine[:paying]], found[theirs[:paying]] = other, one
                improved |= paying > 0
    return found


def _climb(matrices: Sequence[Matrix], begin: Sequence[Integers], still: frozenset[int]) -> Pivots:
    """Place one slot after the other, and choose blocks, until nothing gets better."""
    orders = [order.copy() for order in begin]
    kept = [_choose_blocks(matrix, _block_scores(matrix, orders)) for matrix in matrices]
    touched: list[list[int]] = [[] for _ in orders]
    for number, matrix in enumerate(matrices):
        for slot in {part.slot for axis in (matrix.rows, matrix.columns) for part in axis.parts}:
            touched[slot].append(number)
    trace = [_total(matrices, orders, kept)]
    for _ in range(_MAX_SWEEPS):
        for slot, numbers in enumerate(touched):
            if numbers and slot not in still:
                _place(slot, [matrices[n] for n in numbers], [kept[n] for n in numbers], orders)
        for number, matrix in enumerate(matrices):
            scores = _block_scores(matrix, orders)
            proposed = _choose_blocks(matrix, scores)
            if scores[proposed].sum() > scores[kept[number]].sum():
                kept[number] = proposed
        trace.append(_total(matrices, orders, kept))
        if trace[-1] <= trace[-2] + 1e-10:
            break
    return _build_pivots(matrices, orders, kept, trace)


def _place(slot: int, matrices: Sequence[Matrix], kept: Sequence[Booleans], orders: list[Integers]) -> None:
    """Put the channels of one slot where all matrices together retain most, given everything else."""
    length = len(orders[slot])
    sides = [
        (_sum_by_cluster(scores, other, blocks, orders), axis, offset, part)
        for matrix, kept_blocks in zip(matrices, kept, strict=True)
        for axis, other, scores, blocks in (
            (matrix.rows, matrix.columns, matrix.scores, kept_blocks.T),
            (matrix.columns, matrix.rows, matrix.scores.T, kept_blocks),
        )
        for offset, part in axis.offsets
        if part.slot == slot
    ]
    # Positions in the same clusters of every axis are one cell: channels in it may stand in any order.
    signatures = np.hstack([
        axis.clusters_of_positions()[offset : offset + length * part.repeat].reshape(length, part.repeat)
        for _, axis, offset, part in sides
    ])
    _, first, cells, capacity = np.unique(
        signatures, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    gain = np.zeros((length, len(first)))
    for table, axis, offset, part in sides:
        gain += _gains(table, axis, offset, part, first)
    found = assign(gain, capacity)
    order = np.empty(length, dtype=np.int64)
    cells = cells.ravel()
    for cell in range(len(first)):
        order[cells == cell] = np.flatnonzero(found == cell)  # ascending: as near to the old order as can be
    before = orders[slot]
    if _self_coupled(slot, matrices):  # then the gains are those of the old order, and may mislead
        old = _total(matrices, orders, kept)
        orders[slot] = order
        if _total(matrices, orders, kept) <= old:
            orders[slot] = before
    else:
        orders[slot] = order


def _sum_by_cluster(scores: Floats, other: Axis, kept: Booleans, orders: Sequence[Integers]) -> Floats:
    """Return what each entry of an axis retains in each of its clusters, ``[entries, clusters]``."""
    membership = _membership(other.clusters_of_entries(orders), other.clusters)
    table: Floats = (scores @ membership) @ kept
    return table


def _gains(table: Floats, axis: Axis, offset: int, part: Part, positions: Integers) -> Floats:
    """Return what each channel of a part retains at the given positions, ``[channels, positions]``."""
    size = part.channels * part.repeat
    entries = table[offset : offset + size].reshape(part.channels, part.repeat, -1)
    clusters = axis.clusters_of_positions()
    total = np.zeros((part.channels, len(positions)))
    for pixel in range(part.repeat):
        total += entries[:, pixel, clusters[offset + positions * part.repeat + pixel]]
    return total


def _self_coupled(slot: int, matrices: Sequence[Matrix]) -> bool:
    """Whether some matrix has the slot in its rows and in its columns."""
    return any(all(slot in {p.slot for p in axis.parts} for axis in (m.rows, m.columns)) for m in matrices)


def _membership(clusters: Integers, count: int) -> Floats:
    return np.eye(count)[clusters]


def _block_scores(matrix: Matrix, orders: Sequence[Integers]) -> Floats:
    """Add up the scores of each block, ``[row clusters, column clusters]``."""
    rows = _membership(matrix.rows.clusters_of_entries(orders), matrix.rows.clusters)
    columns = _membership(matrix.columns.clusters_of_entries(orders), matrix.columns.clusters)
    total: Floats = rows.T @ matrix.scores @ columns
    return total


def _choose_blocks(matrix: Matrix, scores: Floats) -> Booleans:
    """Choose the blocks to keep; no cluster of rows or columns goes without one."""
    if matrix.fixed is not None:
        return matrix.fixed
    if matrix.structure == "block_diag":
        return np.eye(matrix.rows.clusters, dtype=bool)
    kept = np.zeros(scores.shape, dtype=bool)
    if matrix.structure == "block_sparse":
        degree = matrix.blocks // matrix.rows.clusters
        best = np.argsort(-scores, axis=1, kind="stable")[:, :degree]
        np.put_along_axis(kept, best, True, axis=1)
        _reach_columns(kept, scores)
        return kept
    # Cover rows and columns first, by the best matching, then take the best of the rest.
    matched = linear_sum_assignment(scores, maximize=True)
    kept[matched[0], matched[1]] = True
    kept[np.arange(len(kept)), scores.argmax(axis=1)] |= ~kept.any(axis=1)
    kept[scores.argmax(axis=0), np.arange(matrix.columns.clusters)] |= ~kept.any(axis=0)
    rest = np.where(kept, -np.inf, scores).ravel()
    kept.ravel()[np.argsort(-rest, kind="stable")[: matrix.blocks - int(kept.sum())]] = True
    return kept


def _reach_columns(kept: Booleans, scores: Floats) -> None:
    """Let every cluster of columns be read by some cluster of rows, at the least loss, degrees unchanged."""
    for column in np.flatnonzero(~kept.any(axis=0)):
        spare = kept & (kept.sum(axis=0) > 1)
        loss = np.where(spare, scores - scores[:, column, None], np.inf)
        row, given = np.unravel_index(int(loss.argmin()), loss.shape)
        kept[row, given], kept[row, column] = False, True


def _total(matrices: Sequence[Matrix], orders: Sequence[Integers], kept: Sequence[Booleans]) -> float:
    return float(sum(_block_scores(m, orders)[k].sum() for m, k in zip(matrices, kept, strict=True)))


def _build_pivots(
    matrices: Sequence[Matrix], orders: Sequence[Integers], kept: Sequence[Booleans], trace: Sequence[float]
) -> Pivots:
    retained = [float(_block_scores(m, orders)[k].sum()) for m, k in zip(matrices, kept, strict=True)]
    return Pivots(tuple(orders), tuple(kept), tuple(retained), tuple(trace))


def _normalise(scores: Floats) -> Floats:
    """Divide by the sum; a matrix of zeros has the same score everywhere."""
    total = float(scores.sum())
    return scores / total if total > 0 else np.full(scores.shape, 1 / scores.size)


def _spectral_start(
    matrices: Sequence[Matrix], slots: Sequence[int], still: frozenset[int], rng: np.random.Generator
) -> list[Integers]:
    """Start each slot from a balanced clustering of the channels by what they share.

    Rows that read the same columns have nearby entries in the leading singular vectors of
    ``D1^-1/2 A D2^-1/2`` (Dhillon, 2001, "Co-clustering documents and words using bipartite spectral graph
    partitioning").

    Returns:
        Orders, by slot.
    """
    orders = [np.arange(n) for n in slots]
    for slot in range(len(slots)):
        found = _find_side(slot, matrices)
        if slot in still or found is None:
            continue
        scores, classes, clusters = found
        labels = _cluster_balanced(_embedding(scores, clusters), np.bincount(classes, minlength=clusters), rng)
        for cluster in range(clusters):
            orders[slot][classes == cluster] = np.flatnonzero(labels == cluster)
    return orders


def _find_side(slot: int, matrices: Sequence[Matrix]) -> tuple[Floats, Integers, int] | None:
    """Return scores ``[channels, others]``, classes of positions and their number, where a slot has most clusters."""
    best: tuple[Floats, Integers, int] | None = None
    for matrix in matrices:
        for axis, scores in ((matrix.rows, matrix.scores), (matrix.columns, matrix.scores.T)):
            for offset, part in axis.offsets:
                if part.slot == slot and (best is None or axis.clusters > best[2]):
                    size = part.channels * part.repeat
                    entries = scores[offset : offset + size].reshape(part.channels, part.repeat, -1)
                    # Pixels of a channel move together; the cluster of its first one stands for it.
                    classes = axis.clusters_of_positions()[offset : offset + size : part.repeat]
                    best = entries.sum(axis=1), classes, axis.clusters
    return best


def _embedding(scores: Floats, clusters: int) -> Floats:
    """Return the leading left singular vectors but the first, ``[channels, clusters - 1]`` at most."""
    tiny = np.finfo(np.float64).tiny
    left, right = scores.sum(axis=1).clip(tiny), scores.sum(axis=0).clip(tiny)
    scaled = scores / np.sqrt(left)[:, None] / np.sqrt(right)
    if len(scores) <= scores.shape[1]:
        vectors = np.linalg.eigh(scaled @ scaled.T)[1][:, ::-1]
    else:
        vectors = scaled @ np.linalg.eigh(scaled.T @ scaled)[1][:, ::-1]
    leading = vectors[:, 1 : max(clusters, 2)]
    return np.ascontiguousarray(
        leading / np.sqrt(left)[:, None] / np.sqrt((leading**2 / left[:, None]).sum(axis=0).clip(tiny))
    )


def _cluster_balanced(points: Floats, capacity: Integers, rng: np.random.Generator) -> Integers:
    """Cluster points into clusters of given sizes: centres start far apart, each round is an assignment."""
    centres = points[[int(rng.integers(len(points)))]]
    for _ in range(len(capacity) - 1):
        nearest = ((points[:, None] - centres) ** 2).sum(axis=-1).min(axis=1)
        centres = np.vstack([centres, points[int(nearest.argmax())]])
    labels = np.full(len(points), -1)
    for _ in range(_KMEANS_ROUNDS):
        new = assign(-((points[:, None] - centres) ** 2).sum(axis=-1), capacity)
        if (new == labels).all():
            break
        labels = new
        members = _membership(labels, len(capacity))
        centres = (members.T @ points) / np.maximum(capacity, 1)[:, None]
    return labels
