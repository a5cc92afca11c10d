"""Damage in the eigenbasis and in weight space against dense Fisher matrices."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from methods.curvature.covariances import Factors
from methods.eigendamage.kronecker import damage, directions, eigenbases, predict_from_variances, rotate
from methods.eigendamage.surgeon import (
    c_obs,
    c_obs_update,
    damp,
    deletion,
    inverse,
    joint_update,
    kron_obd,
    kron_obs,
    kron_obs_update,
    output_moments,
    quadratic,
)
from methods.network.chains import blocks, undo_blocks

DOUBLE = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def psd(groups: int, size: int, seed: int, rank: int | None = None) -> Tensor:
    half = torch.randn(groups, size, rank or size + 2, generator=generator(seed), dtype=DOUBLE)
    return half @ half.mT / size


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=DOUBLE)


def dense_fisher(gradients: Tensor, offsets: int, inputs: Tensor) -> Tensor:
    """``G (x) I (x) A`` for weights ``[outputs, offsets, inputs]`` of one group, row-major."""
    return torch.kron(gradients, torch.kron(torch.eye(offsets, dtype=DOUBLE), inputs))


def increase(change: Tensor, fisher: Tensor) -> float:
    return float(change.flatten() @ fisher @ change.flatten()) / 2


@pytest.mark.parametrize("groups", [1, 3])
def test_oracle_02_bases_are_orthonormal_and_diagonalise(groups: int) -> None:
    factors = {
        name: Factors(psd(groups, size, size), psd(groups, size + 1, size + 1, rank=2), 1)
        for name, size in (("a", 5), ("b", 6), ("c", 40))
    }
    for name, basis in eigenbases(factors).items():
        for vectors, values, matrix in (
            (basis.inputs, basis.input_values, factors[name].inputs),
            (basis.outputs, basis.output_values, factors[name].outputs),
        ):
            eye = torch.eye(vectors.shape[-1], dtype=DOUBLE).expand_as(vectors)
            torch.testing.assert_close(vectors.mT @ vectors, eye, rtol=0, atol=1e-13)
            assert bool((values >= 0).all()), "a null direction is not negative"
            torch.testing.assert_close(vectors @ torch.diag_embed(values) @ vectors.mT, matrix, rtol=0, atol=1e-12)


def test_float32_factors_are_solved_in_float64() -> None:
    single = psd(1, 30, 0).float()
    basis = eigenbases({"a": Factors(single, single, 1)})["a"]
    assert basis.inputs.dtype == DOUBLE
    rebuilt = basis.inputs @ torch.diag_embed(basis.input_values) @ basis.inputs.mT
    torch.testing.assert_close(rebuilt, single.double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3, 3), (6, 4, 1, 5)])
@pytest.mark.parametrize("groups", [1, 2])
def test_blocks_and_back(shape: tuple[int, ...], groups: int) -> None:
    weight = normal(*shape)
    block = blocks(weight, groups)
    assert torch.equal(undo_blocks(block, shape[2:]), weight)
    if len(shape) > 2:
        assert block[groups - 1, 1, 2, 3] == weight[(groups - 1) * (6 // groups) + 1, 3].flatten()[2]


@pytest.mark.parametrize(("offsets", "groups"), [(1, 1), (4, 1), (4, 2)])
def test_oracle_07_damage_is_the_quadratic_form_of_a_deletion(offsets: int, groups: int) -> None:
    outputs, inputs = 4, 3
    weight = normal(groups, outputs, offsets, inputs)
    factors = Factors(psd(groups, inputs, 1), psd(groups, outputs, 2), 1)
    basis = eigenbases({"a": factors})["a"]
    theta = damage(weight, basis)
    turned = rotate(weight, basis.inputs, basis.outputs)
    found = directions(theta)
    for columns, rows in itertools.product(range(inputs + 1), range(outputs + 1)):
        harm = 0.0
        for group in range(groups):
            kept_rows, kept_columns = found.rows[group, :rows], found.columns[group, :columns]
            kept = torch.zeros_like(turned[group])
            kept[kept_rows[:, None], :, kept_columns] = turned[group][kept_rows[:, None], :, kept_columns]
            back = torch.einsum("or,rds,is->odi", basis.outputs[group], kept, basis.inputs[group])
            fisher = dense_fisher(factors.outputs[group], offsets, factors.inputs[group])
            harm += increase(back - weight[group], fisher)
        assert found.union(columns, rows) == pytest.approx(harm, abs=1e-10)
        if (columns, rows) == (inputs, outputs - 1):
            assert harm == pytest.approx(float(found.row_scores[-1]), abs=1e-10)
        if (columns, rows) == (inputs - 1, outputs):
            assert harm == pytest.approx(float(found.column_scores[-1]), abs=1e-10)


def test_rows_and_columns_overlap() -> None:
    """Adding their scores would count the entries of both twice."""
    theta = torch.tensor([[[1.0, 2.0], [4.0, 8.0]]], dtype=DOUBLE)
    found = directions(theta)
    assert found.rows.tolist() == [[1, 0]] and found.columns.tolist() == [[1, 0]]
    assert found.row_scores.tolist() == [12, 3] and found.column_scores.tolist() == [10, 5]
    assert found.union(1, 1) == 7 < 3 + 5
    assert found.union(2, 2) == 0


def test_of_equal_directions_the_first_come_first() -> None:
    """In layers of any size, or the choice would be another one on another machine."""
    theta = torch.randint(2, (1, 300, 1), generator=torch.Generator().manual_seed(0)).double()
    for table, side in ((theta, "rows"), (theta.mT, "columns")):
        order = getattr(directions(table), side)[0].tolist()
        scores = table.flatten().tolist()
        assert order == sorted(range(300), key=lambda unit: (-scores[unit], unit))


def test_oracle_08_least_squares_at_its_optimum() -> None:
    """There the loss is the quadratic form, if outputs are compared by a metric M that stands for G."""
    inputs, outputs, samples = 5, 4, 50
    x, y = normal(samples, inputs, seed=1), normal(samples, outputs, seed=2)
    metric = psd(1, outputs, 3)
    best = torch.linalg.lstsq(x, y).solution.T

    def loss(weight: Tensor) -> float:
        rest = x @ weight.T - y
        return float(torch.einsum("bo,op,bp->", rest, metric[0], rest)) / (2 * samples)

    basis = eigenbases({"a": Factors((x.T @ x / samples)[None], metric, samples)})["a"]
    weight = blocks(best, 1)
    found = directions(damage(weight, basis))
    for columns, rows in itertools.product((5, 3, 1), (4, 2, 1)):
        left, right = basis.outputs[0][:, found.rows[0, :rows]], basis.inputs[0][:, found.columns[0, :columns]]
        smaller = left @ left.T @ best @ right @ right.T
        assert found.union(columns, rows) == pytest.approx(loss(smaller) - loss(best), abs=1e-10)


def test_measured_variances_are_the_diagonal_of_any_fisher() -> None:
    """With the measured diagonal, one entry's damage is exact where a Kronecker product is only close."""
    outputs, inputs, samples = 3, 4, 7
    gradients = normal(samples, outputs, inputs, seed=4)
    fisher = torch.einsum("boi,bpj->oipj", gradients, gradients).reshape(12, 12) / samples
    factors = Factors(
        torch.einsum("boi,boj->ij", gradients, gradients)[None] / samples,
        torch.einsum("boi,bpi->op", gradients, gradients)[None] / samples,
        samples,
    )
    basis = eigenbases({"a": factors})["a"]
    weight = normal(1, outputs, 1, inputs, seed=5)
    moments = torch.einsum("or,boi,is->brs", basis.outputs[0], gradients, basis.inputs[0]).square().mean(0)
    theta = predict_from_variances(weight, basis, moments[None, :, None])
    turned = rotate(weight, basis.inputs, basis.outputs)[0, :, 0]
    for row, column in itertools.product(range(outputs), range(inputs)):
        entry = torch.outer(basis.outputs[0][:, row], basis.inputs[0][:, column]) * turned[row, column]
        assert float(theta[0, row, column]) == pytest.approx(increase(entry, fisher), abs=1e-12)


# --- weight space --------------------------------------------------------------------------------------------------


class Layer:
    """A layer with a dense Fisher matrix for each group."""

    def __init__(self, groups: int = 2, outputs: int = 4, weights: int = 3) -> None:
        self.weight = normal(groups, outputs, weights, seed=6)
        self.gradients, self.inputs = psd(groups, outputs, 7), psd(groups, weights, 8)
        self.moments = output_moments(self.weight, self.inputs)
        self.inverse = torch.linalg.inv(self.gradients)
        self.inverse_inputs = torch.linalg.inv(self.inputs)

    def damage(self, change: Tensor) -> float:
        return sum(
            increase(each, torch.kron(g, a)) for each, g, a in zip(change, self.gradients, self.inputs, strict=True)
        )

    def find_best_change(self, fixed: Tensor) -> Tensor:
        """The change of least damage that brings given weights (``[groups, outputs, weights]``, bool) to zero."""
        changes = []
        for weight, gone, g, a in zip(self.weight, fixed, self.gradients, self.inputs, strict=True):
            fisher, index = torch.kron(g, a), gone.flatten()
            change = torch.zeros(index.numel(), dtype=DOUBLE)
            change[index] = -weight.flatten()[index]
            rest = -torch.linalg.solve(fisher[~index][:, ~index], fisher[~index][:, index] @ change[index])
            change[~index] = rest
            changes.append(change.view_as(weight))
        return torch.stack(changes)

    def rows(self, *removed: tuple[int, int]) -> Tensor:
        mask = torch.zeros(self.weight.shape[:2], dtype=torch.bool)
        for group, row in removed:
            mask[group, row] = True
        return mask


def test_oracle_09_single_filters() -> None:
    layer = Layer()
    obd, obs = kron_obd(layer.gradients, layer.moments), kron_obs(layer.inverse, layer.moments)
    for group, row in itertools.product(range(2), range(4)):
        removed = layer.rows((group, row))
        deleted = deletion(removed) @ layer.weight
        assert float(obd[group, row]) == pytest.approx(layer.damage(deleted), abs=1e-8)
        best = layer.find_best_change(removed[:, :, None].expand_as(layer.weight))
        assert float(obs[group, row]) == pytest.approx(layer.damage(best), abs=1e-8)
        torch.testing.assert_close(kron_obs_update(removed, layer.inverse) @ layer.weight, best, rtol=0, atol=1e-8)


def test_oracle_09_several_filters() -> None:
    layer = Layer()
    removed = layer.rows((0, 1), (0, 3), (1, 0))
    best = layer.find_best_change(removed[:, :, None].expand_as(layer.weight))
    joint = joint_update(removed, layer.inverse)
    torch.testing.assert_close(joint @ layer.weight, best, rtol=0, atol=1e-8)
    single = kron_obs_update(removed, layer.inverse)
    claims = [quadratic(layer.gradients, t @ layer.moments @ t.mT) for t in (joint, single, deletion(removed))]
    for transform, claim in zip((joint, single, deletion(removed)), claims, strict=True):
        assert claim == pytest.approx(layer.damage(transform @ layer.weight), abs=1e-8)
        assert not (layer.weight + transform @ layer.weight)[removed].any()
    assert claims[0] < min(claims[1:]), "nothing is less harmful than the joint correction"


def test_oracle_09_single_weights() -> None:
    """C-OBS adds up what each weight of a filter costs alone, everything else being corrected."""
    layer = Layer(groups=1)
    diagonal = layer.inverse_inputs.diagonal(dim1=1, dim2=2)
    scores = c_obs(layer.weight, layer.inverse, diagonal)
    for row in range(4):
        removed, total = layer.rows((0, row)), torch.zeros_like(layer.weight)
        claimed = 0.0
        for column in range(3):
            one = torch.zeros_like(layer.weight, dtype=torch.bool)
            one[0, row, column] = True
            best = layer.find_best_change(one)
            claimed += layer.damage(best)
            total += best
        assert float(scores[0, row]) == pytest.approx(claimed, abs=1e-8)
        update = c_obs_update(layer.weight, removed, layer.inverse, layer.inverse_inputs)
        torch.testing.assert_close(update[~removed], total[~removed], rtol=0, atol=1e-8)
        torch.testing.assert_close(update[removed], -layer.weight[removed], rtol=0, atol=0)


def test_kron_obd_cannot_be_negative() -> None:
    """``(theta^2 A)`` in place of ``theta^T A theta`` could."""
    inputs = torch.tensor([[[1.0, -0.9], [-0.9, 1.0]]], dtype=DOUBLE)
    weight = torch.tensor([[[1.0, 0.1]]], dtype=DOUBLE)
    score = kron_obd(torch.ones(1, 1, 1, dtype=DOUBLE), output_moments(weight, inputs))
    assert float(score) == pytest.approx((1 + 0.01 - 2 * 0.9 * 0.1) / 2)
    assert float((weight.square() @ inputs).sum()) < 2 * float(score)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 6), rank=st.integers(1, 6), damping=st.floats(1e-6, 1.0), seed=st.integers(0, 99))
def test_damped_inverse(size: int, rank: int, damping: float, seed: int) -> None:
    matrix = psd(2, size, seed, rank=min(rank, size))
    values, vectors = torch.linalg.eigh(matrix)
    mean = matrix.diagonal(dim1=1, dim2=2).mean(1)
    ridge = matrix + damping * mean[:, None, None] * torch.eye(size, dtype=DOUBLE)
    found = inverse(values.clamp_min(0), vectors, damping)
    torch.testing.assert_close(found @ ridge, torch.eye(size, dtype=DOUBLE).expand(2, -1, -1), rtol=0, atol=1e-6)


def test_layers_that_are_never_reached_cost_nothing() -> None:
    nothing = torch.zeros(1, 3, dtype=DOUBLE)
    assert bool((damp(nothing, 0.1) > 0).all())
    vectors = torch.eye(3, dtype=DOUBLE)[None]
    weight = normal(1, 3, 4)
    scores = kron_obs(inverse(nothing, vectors, 0.1), output_moments(weight, psd(1, 4, 0)))
    assert float(scores.max()) < 1e-20
