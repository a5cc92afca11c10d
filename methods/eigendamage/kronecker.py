"""Damage in the Kronecker-factored eigenbasis of a layer: bases, scores of directions, damage of their union.

For a layer with weight ``W`` the Fisher matrix is approximated by ``G (x) I (x) A`` (K-FAC; kernel offsets are taken
as uncorrelated): ``A`` is the second moment of its inputs, ``G`` that of the gradients of its outputs. In the
eigenvectors of both it is diagonal, so that a weight can be removed there without correcting the others, and the
damage of any set of weights is the sum of the damages of its members (Wang, Grosse, Fidler, Zhang, 2019,
arXiv 1905.05934, section 4).

Weights are handled as blocks ``[groups, outputs, offsets, inputs]``: the groups of a grouped convolution, outputs
and inputs of one group, kernel offsets. All here is in float64 on whatever device the factors are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from methods.curvature.covariances import Factors


@dataclass(frozen=True)
class Basis:
    """The eigenbasis of one layer; eigenvectors are columns, eigenvalues ascend and are at least 0.

    Attributes:
        inputs: Eigenvectors of ``A``, ``[groups, inputs, inputs]``.
        outputs: Eigenvectors of ``G``, ``[groups, outputs, outputs]``.
        input_values: Eigenvalues of ``A``, ``[groups, inputs]``.
        output_values: Eigenvalues of ``G``, ``[groups, outputs]``.
    """

    inputs: Tensor
    outputs: Tensor
    input_values: Tensor
    output_values: Tensor


def eigenbases(factors: Mapping[str, Factors]) -> dict[str, Basis]:
    """Find the eigenbases of all layers.

    Args:
        factors: The second moments by layer, finite.

    Returns:
        The bases by layer, float64 on the CPU, where many small symmetric matrices are solved fastest.
    """
    matrices = {(name, "inputs"): each.inputs for name, each in factors.items()}
    matrices |= {(name, "outputs"): each.outputs for name, each in factors.items()}
    solved = _solve_batch(matrices)
    return {
        name: Basis(
            inputs=solved[name, "inputs"][1],
            outputs=solved[name, "outputs"][1],
            input_values=solved[name, "inputs"][0],
            output_values=solved[name, "outputs"][0],
        )
        for name in factors
    }


def _solve_batch(matrices: Mapping[tuple[str, str], Tensor]) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    """Solve batches ``[groups, n, n]`` of symmetric matrices, all of one size at once."""
    by_size: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for key, matrix in matrices.items():
        by_size[matrix.shape[-1]].append(key)
    solved: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}
    for keys in by_size.values():
        stacked = torch.cat([matrices[key].detach().cpu().double() for key in keys])
        # Rounding may leave a null direction slightly below zero.
        values, vectors = torch.linalg.eigh((stacked + stacked.mT) / 2)
        sizes = [len(matrices[key]) for key in keys]
        parts = zip(values.clamp_min(0).split(sizes), vectors.split(sizes), strict=True)
        solved |= dict(zip(keys, parts, strict=True))
    return solved


def rotate(weight: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
    """Express a weight in other bases: ``W' = Q_G^T W Q_A`` at every kernel offset.

    Args:
        weight: ``[groups, outputs, offsets, inputs]``.
        inputs: ``Q_A``, ``[groups, inputs, columns]``, columns of an orthogonal matrix.
        outputs: ``Q_G``, ``[groups, outputs, rows]``.

    Returns:
        ``[groups, rows, offsets, columns]``.
    """
    return torch.einsum("gor,gods->grds", outputs, torch.einsum("godi,gis->gods", weight, inputs))


def damage(weight: Tensor, basis: Basis) -> Tensor:
    """Predict what deleting each entry of the rotated weight costs (equation of OBD in the eigenbasis).

    Args:
        weight: In the original basis, ``[groups, outputs, offsets, inputs]``.
        basis: The layer's eigenbasis.

    Returns:
        ``Theta[r, s] = 1/2 lambda_G[r] lambda_A[s] sum_d W'[r, d, s]^2``, ``[groups, outputs, inputs]``, as an
        increase of the loss.
    """
    squares = rotate(weight, basis.inputs, basis.outputs).square().sum(2)
    return squares * basis.output_values[:, :, None] * basis.input_values[:, None, :] / 2


def predict_from_variances(weight: Tensor, basis: Basis, second_moments: Tensor) -> Tensor:
    """Predict the damage from variances measured in the eigenbasis instead of products of eigenvalues (EK-FAC).

    George, Laurent, Bouthillier, Ballas, Vincent, 2018, arXiv 1806.03884: the measured variances are the exact
    diagonal of the Fisher matrix in that basis.

    Args:
        weight: In the original basis, ``[groups, outputs, offsets, inputs]``.
        basis: The layer's eigenbasis.
        second_moments: Mean square of the rotated gradients of single samples, shaped as ``weight``.

    Returns:
        ``Theta``, ``[groups, outputs, inputs]``, as an increase of the loss.
    """
    squares = rotate(weight, basis.inputs, basis.outputs).square()
    return (squares * second_moments.to(squares)).sum(2) / 2


@dataclass(frozen=True)
class Directions:
    """The directions of one layer in order of the damage that their removal does, the costliest first.

    In a grouped convolution all groups lose equally many: the ``n``-th directions of all groups are one.

    Attributes:
        columns: Which input direction comes where, ``[groups, inputs]``.
        rows: Which output direction comes where, ``[groups, outputs]``.
        column_scores: Damage of each, summed over the groups, ``[inputs]``, descending.
        row_scores: Damage of each, summed over the groups, ``[outputs]``, descending.
        kept_damage: Damage of all entries among the first rows and columns, ``[outputs + 1, inputs + 1]``.
    """

    columns: Tensor
    rows: Tensor
    column_scores: Tensor
    row_scores: Tensor
    kept_damage: Tensor

    def union(self, columns: int, rows: int) -> float:
        """Return the damage of keeping only the first directions: each removed entry counts once.

        Args:
            columns: Kept input directions per group.
            rows: Kept output directions per group.

        Returns:
            The predicted increase of the loss.
        """
        # Rounding of sums in different order must not make a damage negative.
        return max(0.0, float(self.kept_damage[-1, -1] - self.kept_damage[rows, columns]))


def directions(theta: Tensor) -> Directions:
    """Put the directions of a layer in order.

    Args:
        theta: Damage of each entry, ``[groups, outputs, inputs]``.

    Returns:
        The order, the scores, and what any choice of the first ones costs.
    """
    theta = theta.double()
    # Damages of removing one direction alone: row sums and column sums of Theta.
    row_scores, rows = theta.sum(2).sort(dim=1, descending=True, stable=True)
    column_scores, columns = theta.sum(1).sort(dim=1, descending=True, stable=True)
    ordered = theta.gather(1, rows[:, :, None].expand_as(theta)).gather(2, columns[:, None, :].expand_as(theta))
    kept = pad(ordered.sum(0).cumsum(0).cumsum(1), (1, 0, 1, 0))
    return Directions(columns, rows, column_scores.sum(0), row_scores.sum(0), kept)
