"""Optimal brain damage and surgery for whole filters: what removing them costs, how the others make up for it.

With the loss increase ``q(D) = 1/2 vec(D)^T F vec(D)`` of a change ``D`` of a layer's weight, damage (OBD) is
``q`` of deleting a filter and nothing else; surgery (OBS) changes the remaining filters so that ``q`` is least.
``F`` is its exact diagonal (``c_obd``) or ``G (x) A`` with the full covariance of unrolled inputs; ``c_obs`` scores
with the diagonal of the inverse, weight by weight, ``kron_obd`` and ``kron_obs`` filter by filter (Wang, Grosse,
Fidler, Zhang, 2019, arXiv 1905.05934, sections 3 and 5). The quadratic forms are exact: the authors' code has
``(theta^2 A)`` in place of ``theta^T A theta``, which can be negative.

All weights are flat blocks ``[groups, outputs, weights]``: one row per filter of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor


def inverse(values: Tensor, vectors: Tensor, damping: float) -> Tensor:
    """Invert a damped second moment.

    Args:
        values: Its eigenvalues, ``[groups, n]``, at least 0.
        vectors: Its eigenvectors as columns, ``[groups, n, n]``.
        damping: What is added to the eigenvalues, in units of their mean.

    Returns:
        ``[groups, n, n]``.
    """
    return (vectors / damp(values, damping)[:, None, :]) @ vectors.mT


def damp(values: Tensor, damping: float) -> Tensor:
    """Add a share of their mean to the eigenvalues of a second moment.

    Args:
        values: Eigenvalues, ``[groups, n]``, at least 0.
        damping: The share.

    Returns:
        ``[groups, n]``, above 0 also where all were 0 (a layer that is never reached).
    """
    mean = values.mean(1, keepdim=True)
    return values + (damping * mean).clamp_min(1e-30)


def output_moments(weight: Tensor, inputs: Tensor) -> Tensor:
    """Return ``W A W^T``, all that filter-wise damage needs of the inputs.

    Args:
        weight: ``W``, ``[groups, outputs, weights]``.
        inputs: ``A``, ``[groups, weights, weights]``.

    Returns:
        ``[groups, outputs, outputs]``.
    """
    return weight @ inputs.to(weight) @ weight.mT


def kron_obd(gradients: Tensor, moments: Tensor) -> Tensor:
    """Score filters by ``1/2 G_ii theta_i^T A theta_i``.

    Args:
        gradients: ``G``, ``[groups, outputs, outputs]``.
        moments: ``W A W^T``, ``[groups, outputs, outputs]``.

    Returns:
        Loss increase of removing each filter alone, ``[groups, outputs]``.
    """
    return _diagonal(gradients) * _diagonal(moments) / 2


def kron_obs(inverse_gradients: Tensor, moments: Tensor) -> Tensor:
    """Score filters by ``1/2 theta_i^T A theta_i / [G^-1]_ii``.

    Args:
        inverse_gradients: ``G^-1``, damped, ``[groups, outputs, outputs]``.
        moments: ``W A W^T``, ``[groups, outputs, outputs]``.

    Returns:
        Loss increase of removing each filter alone, the others being corrected, ``[groups, outputs]``.
    """
    return _diagonal(moments) / _diagonal(inverse_gradients) / 2


def c_obs(weight: Tensor, inverse_gradients: Tensor, inverse_inputs: Tensor) -> Tensor:
    """Score filters by the sum of ``1/2 theta_ij^2 / ([G^-1]_ii [A^-1]_jj)`` over their weights.

    Args:
        weight: ``[groups, outputs, weights]``.
        inverse_gradients: ``G^-1``, damped, ``[groups, outputs, outputs]``.
        inverse_inputs: Diagonal of ``A^-1``, damped, ``[groups, weights]``.

    Returns:
        ``[groups, outputs]``.
    """
    return (weight.square() / inverse_inputs[:, None, :]).sum(2) / _diagonal(inverse_gradients) / 2


def c_obs_update(weight: Tensor, removed: Tensor, inverse_gradients: Tensor, inverse_inputs: Tensor) -> Tensor:
    """Add up the corrections for each removed weight alone: ``-G^-1 Z A^-1`` (the authors' way).

    Args:
        weight: ``[groups, outputs, weights]``.
        removed: Which filters go, ``[groups, outputs]``.
        inverse_gradients: ``G^-1``, damped, ``[groups, outputs, outputs]``.
        inverse_inputs: ``A^-1``, damped, ``[groups, weights, weights]``.

    Returns:
        Change of the weight; removed filters become exactly zero.
    """
    scaled = weight / (_diagonal(inverse_gradients)[:, :, None] * _diagonal(inverse_inputs)[:, None, :])
    change = -inverse_gradients @ (scaled * removed[:, :, None]) @ inverse_inputs
    return torch.where(removed[:, :, None], -weight, change)


def kron_obs_update(removed: Tensor, inverse_gradients: Tensor) -> Tensor:
    """Add up the corrections for each removed filter alone: ``-(G^-1 e_i / [G^-1]_ii) theta_i^T``.

    Args:
        removed: Which filters go, ``[groups, outputs]``.
        inverse_gradients: ``G^-1``, damped, ``[groups, outputs, outputs]``.

    Returns:
        ``T`` such that ``T W`` is the change of the weight, ``[groups, outputs, outputs]``; removed filters become
        exactly zero.
    """
    single = -inverse_gradients * (removed / _diagonal(inverse_gradients))[:, None, :]
    return _clear_removed(removed, single)


def joint_update(removed: Tensor, inverse_gradients: Tensor) -> Tensor:
    """Correct for all removed filters at once: ``-[G^-1]_:Q ([G^-1]_QQ)^-1 W_Q``, the least harm of all changes.

    Args:
        removed: Which filters go (``Q``), ``[groups, outputs]``.
        inverse_gradients: ``G^-1``, damped, ``[groups, outputs, outputs]``.

    Returns:
        ``T`` such that ``T W`` is the change of the weight, ``[groups, outputs, outputs]``; removed filters become
        exactly zero.
    """
    change = torch.zeros_like(inverse_gradients)
    for group, gone in enumerate(removed):
        columns = inverse_gradients[group][:, gone]
        change[group, :, gone] = -torch.linalg.solve(columns[gone], columns, left=False)
    return _clear_removed(removed, change)


def deletion(removed: Tensor) -> Tensor:
    """Delete filters and correct nothing.

    Args:
        removed: Which filters go, ``[groups, outputs]``.

    Returns:
        ``T`` such that ``T W`` is the change of the weight, ``[groups, outputs, outputs]``, float64.
    """
    return -torch.diag_embed(removed.double())


def _clear_removed(removed: Tensor, change: Tensor) -> Tensor:
    """Let removed filters end at zero exactly, which sums of corrections do not achieve."""
    return torch.where(removed[:, :, None], deletion(removed).to(change), change)


def quadratic(gradients: Tensor, moments: Tensor) -> float:
    """Return ``q(D) = 1/2 tr(G D A D^T)``, the predicted loss increase of a change.

    Args:
        gradients: ``G``, ``[groups, outputs, outputs]``.
        moments: ``D A D^T`` of the change ``D`` (:func:`output_moments`), ``[groups, outputs, outputs]``.

    Returns:
        The increase, at least 0 but for rounding.
    """
    return float((gradients * moments).sum()) / 2


def _diagonal(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1)
