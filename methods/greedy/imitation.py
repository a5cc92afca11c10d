"""Squared losses of greedy selection: features that shall add up to a target, and the output of the next layer.

The second is the local objective of Mao Ye, Lemeng Wu, Qiang Liu: "Greedy Optimization Provably Wins the Lottery",
NeurIPS 2020, arXiv 2010.15969: with ``phi_i`` the contribution of unit ``i`` to what the consumers of a layer
compute, ``|sum_i m_i phi_i - sum_i phi_i|^2``. It depends on the Gram matrix ``M_ij = <phi_i, phi_j>`` alone, and
that on the weights of the consumer and the covariance of its inputs (``methods.curvature.covariances``)::

    M_ij = sum_o w_oi^T A_full[i, j] w_oj

so that a step costs ``O(D)`` and no forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.greedy.forward_selection import LONGEST_STEP

CHUNK_ROWS = 1024
"""Rows of the covariance that are worked on at once."""


@dataclass(frozen=True)
class SquaredDistance:
    """Squared distance of a mean of features from a target, ``|sum_i a_i phi_i - y|^2``, with ``a = m / D``.

    Attributes:
        features: ``phi``, ``[units, dimensions]``.
        target: ``y``, ``[dimensions]``.
    """

    features: Tensor
    target: Tensor

    def losses(self, mask: Tensor, candidates: Tensor, keep: Tensor, add: Tensor) -> Tensor:
        """Evaluate steps towards several candidates.

        Args:
            mask: Present mask, ``[units]``.
            candidates: Units to step towards, ``[candidates]``.
            keep: What the present mask is multiplied with, ``[candidates]``.
            add: What is added at the candidate, ``[candidates]``.

        Returns:
            The losses, ``[candidates]``.
        """
        mean = mask @ self.features / len(mask)
        reached = keep[:, None] * mean + (add / len(mask))[:, None] * self.features[candidates]
        return (reached - self.target).square().sum(1)

    def line_search(self, mask: Tensor, candidates: Tensor, usual: float) -> tuple[Tensor, Tensor]:
        """Find the best step towards each candidate: the projection of the target onto the segment.

        Args:
            mask: Present mask, ``[units]``.
            candidates: Units to step towards, ``[candidates]``.
            usual: Not used.

        Returns:
            Losses and steps, ``[candidates]`` each.
        """
        mean = mask @ self.features / len(mask)
        away, toward = mean - self.target, self.features[candidates] - mean
        slope, length = toward @ away, toward.square().sum(1)
        etas = (-slope / length.clamp_min(torch.finfo(length.dtype).tiny)).clamp(0, LONGEST_STEP)
        losses = (away + etas[:, None] * toward).square().sum(1)
        present = away.square().sum()
        stay = losses >= present  # rounding must not raise a loss either
        return losses.where(~stay, present), etas.where(~stay, torch.zeros_like(etas))


@dataclass(frozen=True)
class Imitation:
    """How far the masked layer is from the whole one, ``|sum_i m_i phi_i - sum_i phi_i|^2``.

    Attributes:
        gram: ``M``, ``[units, units]``, symmetric.
    """

    gram: Tensor

    def losses(self, mask: Tensor, candidates: Tensor, keep: Tensor, add: Tensor) -> Tensor:
        """Evaluate steps towards several candidates.

        Args:
            mask: Present mask, ``[units]``.
            candidates: Units to step towards, ``[candidates]``.
            keep: What the present mask is multiplied with, ``[candidates]``.
            add: What is added at the candidate, ``[candidates]``.

        Returns:
            The losses, ``[candidates]``.
        """
        # With d = m - 1: the loss is d^T M d, and a step changes d into keep d + (keep - 1) 1 + add e_c.
        square, cross, corner = self._parts(mask, candidates)
        whole, gap, total = self._multiply_with_whole(mask)
        rest = keep - 1
        return (
            keep**2 * square
            + rest**2 * total
            + add**2 * corner
            + 2 * keep * rest * gap
            + 2 * keep * add * cross
            + 2 * rest * add * whole[candidates]
        )

    def line_search(self, mask: Tensor, candidates: Tensor, usual: float) -> tuple[Tensor, Tensor]:
        """Find the best step towards each candidate, in closed form.

        Args:
            mask: Present mask, ``[units]``.
            candidates: Units to step towards, ``[candidates]``.
            usual: Not used.

        Returns:
            Losses and steps, ``[candidates]`` each.
        """
        square, cross, corner = self._parts(mask, candidates)
        units, seen = len(mask), self.gram @ mask
        # The step moves d = m - 1 along v = D e_c - m.
        slope = units * cross - (mask @ self.gram @ (mask - 1))
        length = units**2 * corner - 2 * units * seen[candidates] + mask @ seen
        etas = (-slope / length.clamp_min(torch.finfo(length.dtype).tiny)).clamp(0, LONGEST_STEP)
        losses = square + 2 * etas * slope + etas**2 * length
        stay = (losses >= square) | (length <= 0)
        return losses.where(~stay, square), etas.where(~stay, torch.zeros_like(etas))

    def _parts(self, mask: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``d^T M d``, ``(M d)_c`` and ``M_cc``."""
        seen = self.gram @ (mask - 1)
        return (mask - 1) @ seen, seen[candidates], self.gram.diagonal()[candidates]

    def _multiply_with_whole(self, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``M 1``, ``d^T M 1`` and ``1^T M 1``."""
        whole = self.gram.sum(1)
        return whole, (mask - 1) @ whole, whole.sum()


def gram_matrix(weight: Tensor, covariance: Tensor, index: Tensor) -> Tensor:
    """Compute the Gram matrix of what units contribute to the output of a layer that reads them.

    Args:
        weight: Of the reader, ``[O, I / groups, ...]``.
        covariance: ``A_full`` of its inputs, ``[groups, n, n]`` with ``n = weight[0].numel()``.
        index: Input channels of each unit, ``[units, multiplicity]``.

    Returns:
        ``M``, ``[units, units]``, float64; the mean over samples of the sum over outputs and positions.
    """
    groups, columns = covariance.shape[0], weight.shape[1]
    offsets = weight[0, 0].numel()
    owner = torch.full((groups * columns,), len(index), device=weight.device)  # one more for channels of no unit
    owner[index] = torch.arange(len(index), device=weight.device)[:, None].expand(index.shape)
    gram = torch.zeros(len(index) + 1, len(index) + 1, dtype=torch.float64, device=weight.device)
    for rows, moments, units in zip(weight.chunk(groups), covariance, owner.chunk(groups), strict=True):
        matrix = rows.detach().flatten(1).double()
        place = units.repeat_interleave(offsets)
        for start in range(0, len(place), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            products = moments[part].double() * (matrix[:, part].T @ matrix)
            by_column = products.new_zeros(len(products), gram.shape[1]).index_add(1, place, products)
            gram.index_add_(0, place[part], by_column)
    return gram[:-1, :-1]
