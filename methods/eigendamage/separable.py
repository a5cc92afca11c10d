"""Depthwise-separable cores: a rewritten layer whose core was made depthwise by a canonical decomposition.

The core of a layer in three parts is a tensor ``[r_g, k^2, r_a]``. Written as a sum of ``P`` products,
``core[r, d, s] = sum_p U[r, p] D[d, p] V[s, p]``, its outer factors go into the rotations on both sides and a
depthwise convolution with ``P`` channels is left (Wang, Grosse, Fidler, Zhang, 2019, arXiv 1905.05934; the
decomposition is found by alternating least squares, Carroll and Chang, Harshman, 1970). Unlike the rotation this
loses something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.eigendamage.rotation import Parts, bias_of, core_of
from methods.network.chains import convolution, geometry, undo_blocks

_RIDGE = 1e-12
"""Added to the normal equations, relative to their mean diagonal: terms may become collinear."""


@dataclass(frozen=True)
class Separated:
    """The depthwise-separable form of a convolution.

    Attributes:
        chain: A 1x1, a depthwise and a 1x1 convolution with the bias.
        missed: By how much the core was missed: squares summed over kernel offsets, ``[groups, rows, columns]``.
        error: The same for the whole core, relative to it.
    """

    chain: nn.Sequential
    missed: Tensor
    error: float


def decompose(core: Tensor, rank: int, sweeps: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Decompose a tensor of three dimensions into a sum of products, by alternating least squares.

    Args:
        core: ``[rows, offsets, columns]``, float64.
        rank: Number of products.
        sweeps: How often each factor is solved for.
        generator: Draws the start.

    Returns:
        ``U [rows, rank]``, ``D [offsets, rank]`` and ``V [columns, rank]``; of each product the three vectors have
        the same length.
    """
    factors = [torch.randn(size, rank, generator=generator, dtype=core.dtype).to(core.device) for size in core.shape]
    letters = "abc"
    for _ in range(sweeps):
        for mode in range(3):
            one, other = (m for m in range(3) if m != mode)
            normal = (factors[one].mT @ factors[one]) * (factors[other].mT @ factors[other])
            normal.diagonal().add_(_RIDGE * normal.diagonal().mean().clamp_min(1e-30))
            formula = f"abc,{letters[one]}p,{letters[other]}p->{letters[mode]}p"
            right = torch.einsum(formula, core, factors[one], factors[other])
            factors[mode] = torch.linalg.solve(normal, right, left=False)
    first, second, third = _balance_lengths(factors)
    return first, second, third


def _balance_lengths(factors: Sequence[Tensor]) -> list[Tensor]:
    """Give the vectors of each product the same length: weight decay shall not prefer one of them."""
    lengths = torch.stack([factor.norm(dim=0) for factor in factors])
    common = lengths.prod(0).pow(1 / 3)
    return [factor * (common / length.clamp_min(1e-30)) for factor, length in zip(factors, lengths, strict=True)]


def separable(module: nn.Module, found: Parts, rank: int, sweeps: int, generator: torch.Generator) -> Separated:
    """Build the depthwise-separable form of a convolution.

    Args:
        module: The convolution that is replaced, or its three-part form.
        found: Its three parts.
        rank: Channels of the core per group.
        sweeps: Of the decomposition.
        generator: Draws its start.

    Returns:
        That form, and what it misses.

    Raises:
        ValueError: If the layer is no convolution.
    """
    layer = core_of(module)
    if not isinstance(layer, nn.Conv2d):
        raise ValueError(f"a {type(layer).__name__} has no kernel to be separated")
    firsts, cores, lasts, misses = [], [], [], []
    for first, core, last in zip(found.first, found.core, found.last, strict=True):
        u, d, v = decompose(core, rank, sweeps, generator)
        misses.append((core - torch.einsum("rp,dp,sp->rds", u, d, v)).square().sum(1))
        firsts.append(v.mT @ first[:, 0])
        cores.append(d.mT[:, :, None])
        lasts.append(last[:, 0] @ u)
    plain = {"kernel_size": (1, 1)}
    pointwise = [torch.stack(each)[:, :, None] for each in (firsts, lasts)]
    depthwise = torch.cat(cores)[:, None]  # one group per channel
    kernel, groups, like = geometry(layer), layer.groups, layer.weight
    chain = nn.Sequential(
        convolution(undo_blocks(pointwise[0], (1, 1)), None, groups, plain, like),
        convolution(undo_blocks(depthwise, layer.kernel_size), None, groups * rank, kernel, like),
        convolution(undo_blocks(pointwise[1], (1, 1)), bias_of(module), groups, plain, like),
    )
    missed = torch.stack(misses)
    return Separated(chain, missed, float(missed.sum() / found.core.square().sum().clamp_min(1e-30)) ** 0.5)
