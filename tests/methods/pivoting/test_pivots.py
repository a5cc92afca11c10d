"""The pivot search: exact steps, known optima, exact capacities."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.pivoting import pivots
from methods.pivoting.block_matrices import Axis, Floats, Matrix, Part, Structure, make_single_matrix, mask
from methods.pivoting.pivots import assign, sample_pivots, search

STRUCTURES: list[tuple[Structure, int]] = [("block_diag", 1), ("block_sparse", 2), ("bsr", 2)]


def plant(n: int, clusters: int, off: float, seed: int = 0) -> tuple[Floats, float, np.ndarray]:
    """Scores with blocks on scrambled rows and columns, what the planted blocks retain, and where they are."""
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(clusters), n // clusters)
    block = classes[:, None] == classes[None]
    scores = (rng.standard_normal((n, n)) * np.where(block, 1.0, off)) ** 2
    rows, columns = rng.permutation(n), rng.permutation(n)
    scrambled = scores[rows][:, columns]
    return scrambled, float(scores[block].sum() / scores.sum()), block[rows][:, columns]


def matrix_of(scores: Floats, structure: Structure, clusters: int, degree: int) -> Matrix:
    return make_single_matrix(scores, structure, (clusters, clusters), clusters * degree)


def test_oracle_03_planted_blocks_are_found() -> None:
    for clusters in (4, 8):
        scores, _, where = plant(256, clusters, off=0.0)
        matrix = matrix_of(scores, "block_diag", clusters, 1)
        found = search([matrix], scores.shape, restarts=0)
        assert found.total == pytest.approx(1.0, abs=1e-12)
        assert (mask(matrix, found.orders, found.kept[0]) == where).all()


def test_oracle_03_noisy_planted_blocks_are_beaten_or_found() -> None:
    for clusters in (4, 8):
        scores, retained, _ = plant(128, clusters, off=0.3)
        found = search([matrix_of(scores, "block_diag", clusters, 1)], scores.shape, restarts=2)
        assert found.total >= retained - 1e-9


@pytest.mark.parametrize(("structure", "degree"), STRUCTURES)
@given(seed=st.integers(0, 2**20), wide=st.booleans())
@settings(max_examples=15, deadline=None)
def test_oracle_03_monotone_and_above_chance(structure: Structure, degree: int, seed: int, wide: bool) -> None:
    shape = (16, 32) if wide else (32, 16)
    scores = np.random.default_rng(seed).random(shape) ** 4
    matrix = matrix_of(scores, structure, 4, degree)
    found = search([matrix], shape, restarts=1, seed=seed)
    assert (np.diff(found.trace) >= -1e-12).all()
    assert found.total >= matrix.density - 1e-12
    assert found.total == pytest.approx(scores[mask(matrix, found.orders, found.kept[0])].sum() / scores.sum())
    again = search([matrix], shape, restarts=1, seed=seed)
    assert all((a == b).all() for a, b in zip(found.orders, again.orders, strict=True))


@pytest.mark.parametrize(("structure", "degree"), STRUCTURES)
@given(seed=st.integers(0, 2**20))
@settings(max_examples=15, deadline=None)
def test_oracle_04_density_is_exact_and_no_class_is_empty(structure: Structure, degree: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.random((24, 16)) ** 6
    scores[:, rng.permutation(16)[:8]] *= 1e-9  # columns that no score asks for
    matrix = matrix_of(scores, structure, 4, degree)
    for found in (search([matrix], scores.shape, restarts=0), sample_pivots([matrix], scores.shape, seed)):
        kept = mask(matrix, found.orders, found.kept[0])
        assert kept.sum() == 24 * 16 * degree // 4
        assert kept.any(axis=0).all() and kept.any(axis=1).all()
        assert sorted(found.orders[0]) == list(range(24)) and sorted(found.orders[1]) == list(range(16))
        if structure != "bsr":
            assert set(kept.sum(axis=1)) == {16 * degree // 4}


def test_search_beats_every_order_of_a_tiny_matrix() -> None:
    """All partitions of a 4 x 4 matrix into two blocks, one by one."""
    for seed in range(5):
        scores = np.random.default_rng(seed).random((4, 4))
        found = search([matrix_of(scores, "block_diag", 2, 1)], (4, 4), restarts=8)
        best = max(
            scores[np.ix_(r[:2], c[:2])].sum() + scores[np.ix_(r[2:], c[2:])].sum()
            for r in permutations(range(4))
            for c in permutations(range(4))
        )
        assert found.total == pytest.approx(best / scores.sum())


def test_assignment_is_exact_and_its_substitute_is_near() -> None:
    gain = np.random.default_rng(0).random((40, 4))
    capacity = np.array([10, 20, 4, 6])
    exact = assign(gain, capacity)
    assert (np.bincount(exact) == capacity).all()
    near = pivots._exchange_pairs(gain, pivots._greedy(gain, capacity))
    assert (np.bincount(near) == capacity).all()
    values = [gain[np.arange(40), found].sum() for found in (exact, near)]
    assert 0.98 * values[0] <= values[1] <= values[0] + 1e-12
    swaps = [
        gain[i, near[j]] + gain[j, near[i]] - gain[i, near[i]] - gain[j, near[j]] for i in range(40) for j in range(40)
    ]
    assert max(swaps) <= 1e-9


def test_large_assignments_are_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pivots, "EXACT", 16)
    scores, _, where = plant(64, 4, off=0.0)
    matrix = matrix_of(scores, "block_diag", 4, 1)
    found = search([matrix], scores.shape)
    assert found.total == pytest.approx(1.0) and (mask(matrix, found.orders, found.kept[0]) == where).all()


def test_matrices_share_orders() -> None:
    """Rows of one, columns of the next: slabs of the order here, strides of it there."""
    rng = np.random.default_rng(1)
    middle = (Part(1, 16),)
    first = Matrix(rng.random((16, 8)), Axis(middle, 4), Axis((Part(0, 8),), 4), "block_diag", 4)
    second = Matrix(rng.random((12, 16)), Axis((Part(2, 12),), 2), Axis(middle, 2, "stride"), "block_diag", 2)
    found = search([first, second], (8, 16, 12), restarts=3)
    assert (np.diff(found.trace) >= -1e-12).all() and found.total > 1 / 4 + 1 / 2
    rows, columns = first.rows.clusters_of_entries(found.orders), second.columns.clusters_of_entries(found.orders)
    crossing = np.zeros((4, 2), dtype=int)
    np.add.at(crossing, (rows, columns), 1)
    assert (crossing == 2).all()  # slabs and strides cross evenly
    still = search([first, second], (8, 16, 12), still=frozenset({1}))
    assert (still.orders[1] == np.arange(16)).all() and still.total <= found.total + 1e-12


def test_pixels_of_a_channel_move_together() -> None:
    scores = np.random.default_rng(2).random((6, 12))
    matrix = Matrix(scores, Axis((Part(0, 6),), 2), Axis((Part(1, 4, repeat=3),), 2), "block_diag", 2)
    found = search([matrix], (6, 4))
    kept = mask(matrix, found.orders, found.kept[0]).reshape(6, 4, 3)
    assert (kept.all(axis=2) == kept.any(axis=2)).all() and kept.sum() == 36


def test_a_matrix_may_have_one_slot_on_both_sides() -> None:
    scores = np.random.default_rng(3).random((16, 16)) ** 3
    matrix = Matrix(scores, Axis((Part(0, 16),), 4), Axis((Part(0, 16),), 4, "stride"), "block_diag", 4)
    found = search([matrix], (16,), restarts=2)
    assert (np.diff(found.trace) >= -1e-12).all() and found.total >= found.trace[0]


def test_misfits_are_errors() -> None:
    scores = np.ones((6, 4))
    with pytest.raises(ValueError, match="clusters do not divide 6"):
        make_single_matrix(scores, "block_diag", (4, 4), 4)
    with pytest.raises(ValueError, match="1 blocks cannot reach 2 clusters"):
        make_single_matrix(scores, "bsr", (2, 2), 1)
    with pytest.raises(ValueError, match="do not fit axes"):
        Matrix(scores, Axis((Part(0, 4),), 2), Axis((Part(1, 4),), 2), "block_diag", 2)


def test_beyond_the_exact_size_no_exchange_of_two_items_is_left_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pivots, "EXACT", 3)
    for seed in range(20):
        gain = np.random.default_rng(seed).random((12, 3))
        found = pivots.assign(gain, np.array([4, 4, 4]))
        assert np.bincount(found).tolist() == [4, 4, 4]
        for one in range(12):
            for other in range(one):
                now = gain[one, found[one]] + gain[other, found[other]]
                swapped = gain[one, found[other]] + gain[other, found[one]]
                assert swapped <= now + 1e-9


def test_the_spectral_start_leaves_out_the_trivial_vector() -> None:
    """That one is the same for all channels and says nothing of who belongs together."""
    scores = np.random.default_rng(0).random((12, 10)) * 0.1
    scores[:6, :5] += 1
    scores[6:, 5:] += 1
    points = pivots._embedding(scores, 2)
    assert points.shape == (12, 1)
    apart = abs(points[:6].mean() - points[6:].mean())
    assert apart > 3 * max(points[:6].std(), points[6:].std()) and apart > 0.5 * np.abs(points).mean()


@pytest.mark.parametrize("structure", ["block_sparse", "bsr"])
def test_a_search_never_loses_what_it_had(structure: Structure) -> None:
    for seed in range(15):
        scores = np.random.default_rng(seed).random((16, 16)) ** 3
        matrix = make_single_matrix(scores, structure, (4, 4), 8)
        trace = pivots.search([matrix], scores.shape, restarts=1, seed=seed).trace
        assert all(later >= before - 1e-12 for before, later in zip(trace, trace[1:], strict=False))
