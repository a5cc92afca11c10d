"""EigenDamage's counterparts in weight space: damage of removing coupled channels, and correcting what stays.

Of every layer that produces channels the Fisher matrix is estimated once (cached for a sweep); a unit's score is the
sum over the filters it takes along. The mathematics is in ``methods.eigendamage.surgeon``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from methods.contract.analyses import Tensors
from methods.contract.method import Problem
from methods.curvature.covariances import Factors, collect_factors
from methods.curvature.fisher_sampling import Sampling
from methods.curvature.second_moments import collect_second_moments
from methods.eigendamage.kronecker import eigenbases
from methods.eigendamage.rotation import core_of
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
from methods.network.chains import blocks, groups_of

Surgery = Literal["c_obd", "c_obs", "kron_obd", "kron_obs"]
Update = Literal["independent", "joint"]


class Filters(Protocol):
    """The filters of one layer as a variant sees them."""

    def scores(self) -> Tensor:
        """Return the damage of removing each filter alone.

        Returns:
            ``[groups, outputs]``, an increase of the loss.
        """

    def removal(self, removed: Tensor) -> tuple[Tensor, float]:
        """Work out what removing filters together means.

        Args:
            removed: Which ones, ``[groups, outputs]``.

        Returns:
            The change of the weight ``[groups, outputs, weights]``, and its predicted damage.
        """


@dataclass(frozen=True)
class Diagonal:
    """C-OBD: the exact diagonal of the Fisher matrix.

    Attributes:
        weight: ``[groups, outputs, weights]``.
        rows: ``1/2 sum_j F_ij theta_ij^2``, ``[groups, outputs]``.
    """

    weight: Tensor
    rows: Tensor

    def scores(self) -> Tensor:
        """Return the damage of each filter, ``[groups, outputs]``."""
        return self.rows

    def removal(self, removed: Tensor) -> tuple[Tensor, float]:
        """Delete: a diagonal form has nothing to correct, and damages add up."""
        return deletion(removed) @ self.weight, float(self.rows[removed].sum())


@dataclass(frozen=True)
class KronDamage:
    """Kron-OBD: filters are deleted under ``G (x) A``.

    Attributes:
        weight: ``[groups, outputs, weights]``.
        gradients: ``G``, ``[groups, outputs, outputs]``.
        moments: ``W A W^T``, ``[groups, outputs, outputs]``.
    """

    weight: Tensor
    gradients: Tensor
    moments: Tensor

    def scores(self) -> Tensor:
        """Return the damage of each filter, ``[groups, outputs]``."""
        return kron_obd(self.gradients, self.moments)

    def removal(self, removed: Tensor) -> tuple[Tensor, float]:
        """Delete; damage includes what the removed filters have to do with each other."""
        return _mix_filters(self.weight, deletion(removed), self.gradients, self.moments)


@dataclass(frozen=True)
class KronSurgery:
    """Kron-OBS: the other filters are corrected under ``G (x) A``.

    Attributes:
        weight: ``[groups, outputs, weights]``.
        gradients: ``G``, ``[groups, outputs, outputs]``.
        moments: ``W A W^T``, ``[groups, outputs, outputs]``.
        inverse: ``G^-1``, damped.
        update: Corrections for each filter alone, added up, or for all at once.
    """

    weight: Tensor
    gradients: Tensor
    moments: Tensor
    inverse: Tensor
    update: Update

    def scores(self) -> Tensor:
        """Return the damage of each filter, ``[groups, outputs]``."""
        return kron_obs(self.inverse, self.moments)

    def removal(self, removed: Tensor) -> tuple[Tensor, float]:
        """Delete and correct."""
        correct = {"joint": joint_update, "independent": kron_obs_update}[self.update]
        return _mix_filters(self.weight, correct(removed, self.inverse), self.gradients, self.moments)


@dataclass(frozen=True)
class WeightSurgery:
    """C-OBS: every weight is scored by the diagonal of the inverse of ``G (x) A``.

    Attributes:
        weight: ``[groups, outputs, weights]``.
        gradients: ``G``, ``[groups, outputs, outputs]``.
        input_values: Eigenvalues of ``A``, ``[groups, weights]``.
        input_vectors: Eigenvectors of ``A``, ``[groups, weights, weights]``.
        inverse: ``G^-1``, damped.
        damping: For the inverse of ``A``.
        update: Corrections for each weight alone, added up, or for all at once.
    """

    weight: Tensor
    gradients: Tensor
    input_values: Tensor
    input_vectors: Tensor
    inverse: Tensor
    damping: float
    update: Update

    def scores(self) -> Tensor:
        """Return the damage of each filter, ``[groups, outputs]``."""
        diagonal = (self.input_vectors.square() / damp(self.input_values, self.damping)[:, None, :]).sum(2)
        return c_obs(self.weight, self.inverse, diagonal)

    def removal(self, removed: Tensor) -> tuple[Tensor, float]:
        """Delete and correct; all weights of a filter at once is all filters at once."""
        if self.update == "joint":
            change = joint_update(removed, self.inverse) @ self.weight
        else:
            inputs = inverse(self.input_values, self.input_vectors, self.damping)
            change = c_obs_update(self.weight, removed, self.inverse, inputs)
        turned = change @ self.input_vectors
        return change, quadratic(self.gradients, (turned * self.input_values[:, None, :]) @ turned.mT)


def _mix_filters(weight: Tensor, mixing: Tensor, gradients: Tensor, moments: Tensor) -> tuple[Tensor, float]:
    """Return the change ``T W`` and its damage ``1/2 tr(G T W A W^T T^T)``."""
    return mixing @ weight, quadratic(gradients, mixing @ moments @ mixing.mT)


def flatten_filters(weight: Tensor, groups: int) -> Tensor:
    """View a weight as one row per filter.

    Args:
        weight: ``[outputs, inputs / groups, *kernel]``.
        groups: Groups of the convolution.

    Returns:
        ``[groups, outputs / groups, weights]``, float64, on the CPU.
    """
    return weight.detach().double().cpu().reshape(groups, len(weight) // groups, -1)


@dataclass(frozen=True)
class Surgeon:
    """What a variant needs to know, and how it is found.

    Attributes:
        variant: Which one.
        damping: Of inverses, in units of the mean eigenvalue.
        update: How several removed filters are corrected for.
    """

    variant: Surgery
    damping: float
    update: Update

    def filters(self, problem: Problem, layers: Sequence[str], sampling: Sampling) -> dict[str, Filters]:
        """Analyse the layers.

        Args:
            problem: The network, the data, and known analyses.
            layers: Names of convolutions and linear layers.
            sampling: What the Fisher matrix is estimated from.

        Returns:
            The filters by name of layer.
        """
        analyse, build = _VARIANTS[self.variant]
        name, compute = analyse
        found = problem.analyses.get(name, sampling.settings(), lambda: compute(problem, layers, sampling))
        return {layer: build(self, _weight(problem.model, layer), _select_own(found, layer)) for layer in layers}


def _weight(model: nn.Module, name: str) -> Tensor:
    layer = core_of(model.get_submodule(name))
    return flatten_filters(layer.weight, groups_of(layer))


def _select_own(found: Tensors, layer: str) -> Tensors:
    start = f"{layer}."
    return {key.removeprefix(start): tensor for key, tensor in found.items() if key.rpartition(".")[0] == layer}


def _fisher_diagonal(problem: Problem, layers: Sequence[str], sampling: Sampling) -> Tensors:
    moments = collect_second_moments(
        problem.model,
        sampling.batches(problem.train, "Fisher diagonal, by example", problem.progress),
        layers,
        {},  # no rotation: the diagonal of the Fisher matrix itself
        fisher=sampling.fisher,
        labels=sampling.labels,
        generator=sampling.generator(),
        task=problem.task,
    )
    found = {}
    for name in layers:
        layer = core_of(problem.model.get_submodule(name))
        weight = blocks(layer.weight, groups_of(layer)).cpu()
        found[f"{name}.rows"] = (moments[name].cpu() * weight.square()).sum((2, 3)) / 2
    return found


def _covariances(problem: Problem, layers: Sequence[str], sampling: Sampling) -> dict[str, Factors]:
    return collect_factors(
        problem.model,
        sampling.batches(problem.train, "covariances, by example", problem.progress),
        layers,
        fisher=sampling.fisher,
        labels=sampling.labels,
        generator=sampling.generator(),
        task=problem.task,
        full=True,
    )


def _output_moments(problem: Problem, layers: Sequence[str], sampling: Sampling) -> Tensors:
    # The covariance of unrolled inputs is huge, and only W A W^T is ever needed of it.
    factors = _covariances(problem, layers, sampling)
    found = {f"{name}.gradients": factors[name].outputs.cpu() for name in layers}
    return found | {
        f"{name}.moments": output_moments(_weight(problem.model, name), factors[name].inputs.cpu()) for name in layers
    }


def _input_eigenbases(problem: Problem, layers: Sequence[str], sampling: Sampling) -> Tensors:
    factors = _covariances(problem, layers, sampling)
    problem.progress("eigenbases, by layer", 0, len(layers))
    bases = eigenbases(factors)
    return {
        f"{name}.{part}": tensor
        for name, basis in bases.items()
        for part, tensor in (
            ("gradients", factors[name].outputs.cpu()),
            ("input_values", basis.input_values),
            ("input_vectors", basis.inputs),
        )
    }


def _inverse(gradients: Tensor, damping: float) -> Tensor:
    values, vectors = torch.linalg.eigh(gradients)
    return inverse(values.clamp_min(0), vectors, damping)


_Analyse = tuple[str, Callable[[Problem, Sequence[str], Sampling], Tensors]]
_Build = Callable[[Surgeon, Tensor, Tensors], Filters]

_VARIANTS: dict[Surgery, tuple[_Analyse, _Build]] = {
    "c_obd": (
        ("fisher_diagonal", _fisher_diagonal),
        lambda own, weight, found: Diagonal(weight, found["rows"]),
    ),
    "c_obs": (
        ("input_eigenbases", _input_eigenbases),
        lambda own, weight, found: WeightSurgery(
            weight,
            **found,
            inverse=_inverse(found["gradients"], own.damping),
            damping=own.damping,
            update=own.update,
        ),
    ),
    "kron_obd": (
        ("output_moments", _output_moments),
        lambda own, weight, found: KronDamage(weight, **found),
    ),
    "kron_obs": (
        ("output_moments", _output_moments),
        lambda own, weight, found: KronSurgery(
            weight, **found, inverse=_inverse(found["gradients"], own.damping), update=own.update
        ),
    ),
}
