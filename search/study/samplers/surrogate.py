"""A Gaussian process on the quality of pruned networks of several methods.

The logarithm of a network's error is modelled, for errors differ by factors and not by sums. Two networks resemble each
other in what was removed, where, by which method, and by how the method was set::

    k = shared^2 kc  +  [same method] (offset^2 + own^2 kc + knobs^2 km)

``kc`` is a squared-exponential kernel of the FLOPs saved and of how each group deviates from the mean removal, ``km`` a
Matern kernel of the method's own parameters. So methods share what removal costs; each has an offset, a curve and
parameters of its own. The noise is known where the quality is a share of so many validation examples: a binomial one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

from search.study.samplers.slots import Floats

FLOOR = 0.003
"""Added to errors before the logarithm: differences far below it are not worth anything."""

BEND = 2.0
"""Octaves of FLOPs saved at which the mean error may begin to rise faster."""

MOST_FITTED = 96
"""Trials that the kernel's scales are fitted to; with more, evenly chosen ones, for the time grows with the cube."""

UNEVEN = 0.1
"""Mean square of the groups' deviations, in octaves, up to which a network is as good as an even one: within a third of
an octave, what each layer can bear matters more."""

TREND = np.array([0.0, 0.1, 0.4, 0.4, 1.0])
"""Usual coefficients of the mean: constant, octaves saved, octaves beyond :data:`BEND`, squared distance of a method's
parameters from its authors' values, mean square of the groups' deviations beyond :data:`UNEVEN`. On recorded trials of
digits the fourth is 0 to 0.5, by method. The last is there because damage rises faster than what is removed: at one
cost, to take much here and little there does more of it than to take alike. Without it the process is merely unsure
of lopsided networks, and the first ones that it proposes have lost nearly all of some layer."""

TREND_WEIGHT = np.array([1e-3, 1.0, 1.0, 3.0, 1.0])
"""How many trials, about, each of them is worth against what is seen."""

# logarithms of: shared curve, offset, own curve, knobs; lengths of saving, deviation, knobs; further noise. The offset
# is as wide as the noise of one accuracy of 98.8 % on 359 images (0.48): one trial decides little about a method.
PRIOR_MEAN: Floats = np.log([0.8, 0.5, 0.3, 0.2, 2.0, 2.0, 1.5, 0.15])
ALONE = math.log(0.25)
"""The same of the offset where there is one method alone: it is a constant then, as the mean has one."""

PRIOR_SD = np.array([0.6, 0.6, 0.6, 0.6, 0.5, 0.6, 0.5, 0.6])


@dataclass(frozen=True)
class Features:
    """What the kernel looks at.

    Attributes:
        method: Number of the method, ``[points]``.
        saving: log2 of dense FLOPs over FLOPs, ``[points]``.
        deviation: log2 of dense width over width of each group, less the mean over groups, ``[points, groups]``.
        knobs: The method's own parameters less the authors' values, in -1..1, filled up with zeros, ``[points, most
            parameters]``.
    """

    method: NDArray[np.int64]
    saving: Floats
    deviation: Floats
    knobs: Floats

    def __len__(self) -> int:
        return len(self.saving)

    def __getitem__(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Features:
        return Features(self.method[index], self.saving[index], self.deviation[index], self.knobs[index])

    @classmethod
    def join(cls, parts: list[Features]) -> Self:
        """Put features below each other.

        Args:
            parts: At least one.

        Returns:
            All points in order.
        """
        return cls(
            np.concatenate([part.method for part in parts]),
            np.concatenate([part.saving for part in parts]),
            np.concatenate([part.deviation for part in parts]),
            np.concatenate([part.knobs for part in parts]),
        )


@dataclass(frozen=True)
class Surrogate:
    """The process, given some trials.

    Attributes:
        at: Where trials were.
        target: log(error + FLOOR) there, ``[trials]``.
        noise: Variance of the target there, ``[trials]``.
        scales: Logarithms of the kernel's scales, in the order of :data:`PRIOR_MEAN`.
        trend: Coefficients of the mean, in the order of :data:`TREND`.
    """

    at: Features
    target: Floats
    noise: Floats
    scales: Floats
    trend: Floats

    @classmethod
    def fit(cls, at: Features, error: Floats, examples: int | None, scales: Floats | None = None) -> Surrogate:
        """Fit the mean and, unless they are given, the kernel's scales.

        Args:
            at: Where trials were.
            error: Their errors, ``>= 0``.
            examples: How many examples decide an error that is a share of them; ``None`` for other errors.
            scales: Scales to keep.

        Returns:
            The process.
        """
        target = np.log(error + FLOOR)
        basis = _basis(at)
        # ridge regression towards what is usual; the constant is free
        trend: Floats = np.asarray(
            np.linalg.solve(basis.T @ basis + np.diag(TREND_WEIGHT), basis.T @ target + TREND_WEIGHT * TREND),
            dtype=np.float64,
        )
        noise: Floats = np.full(len(target), 1e-4)
        if examples is not None:
            # var(log error) = (1 - p) / (n p), with p between what was seen and the trend: seen errors are noisy
            p = 0.5 * np.exp(basis @ trend) + 0.5 * (error + FLOOR)
            noise = np.asarray(((1 - np.minimum(p, 0.99)) / (examples * p)).clip(1e-4, 0.6), dtype=np.float64)
        model = cls(at, target, noise, _choose_prior(at) if scales is None else scales, trend)
        return model if scales is not None or len(target) < 8 else replace(model, scales=model._fit_scales())

    def _fit_scales(self) -> Floats:
        """Maximise the posterior density of the scales."""
        chosen = np.arange(len(self.target))
        if len(chosen) > MOST_FITTED:
            chosen = np.unique(np.linspace(0, len(chosen) - 1, MOST_FITTED).astype(np.int64))
        at, noise, prior = self.at[chosen], self.noise[chosen], _choose_prior(self.at)
        residual = self.target[chosen] - _basis(at) @ self.trend

        def loss(scales: Floats) -> float:
            covariance = kernel(at, at, scales)
            covariance[np.diag_indices(len(at))] += noise + math.exp(2 * scales[7])
            try:
                factor = cho_factor(covariance, lower=True)
            except LinAlgError:
                return 1e6
            # -log N(residual; 0, K) - log prior
            likelihood = 0.5 * residual @ cho_solve(factor, residual) + np.log(np.diag(factor[0])).sum()
            return float(likelihood + 0.5 * (((scales - prior) / PRIOR_SD) ** 2).sum())

        found = minimize(loss, prior, method="L-BFGS-B", options={"maxiter": 8, "maxfun": 90})
        return np.asarray(found.x, dtype=np.float64)

    def assume_predicted(self, at: Features) -> Surrogate:
        """Add points as if they had come out as predicted.

        Args:
            at: Points that run.

        Returns:
            A process with the same predictions, but surer near these points.
        """
        mean, _ = self.predict(at)
        noise = np.concatenate([self.noise, np.full(len(at), float(np.median(self.noise)))])
        return replace(self, at=Features.join([self.at, at]), target=np.concatenate([self.target, mean]), noise=noise)

    def predict(self, at: Features) -> tuple[Floats, Floats]:
        """Predict log(error + FLOOR).

        Args:
            at: Where, ``[points]``.

        Returns:
            Mean and standard deviation of what a network is worth, noise of measurement left out, ``[points]`` each.
        """
        covariance = kernel(self.at, self.at, self.scales)
        covariance[np.diag_indices(len(self.at))] += self.noise + math.exp(2 * self.scales[7])
        factor = cho_factor(covariance, lower=True)
        weights = cho_solve(factor, self.target - _basis(self.at) @ self.trend)
        cross = kernel(at, self.at, self.scales)
        mean = _basis(at) @ self.trend + cross @ weights
        shrunk = solve_triangular(factor[0], cross.T, lower=True)
        variance = np.exp(2 * self.scales[:4]).sum() - (shrunk**2).sum(axis=0)
        return mean, np.sqrt(np.maximum(variance, 1e-6))


def kernel(one: Features, two: Features, scales: Floats) -> Floats:
    """Compute the covariance of points.

    Args:
        one: ``[n]``.
        two: ``[m]``.
        scales: Logarithms of the kernel's scales.

    Returns:
        ``[n, m]``.
    """
    shared, offset, own, knobs, saving_length, deviation_length, knob_length = np.exp(scales[:7])
    same = one.method[:, None] == two.method[None]
    apart = ((one.saving[:, None] - two.saving[None]) / saving_length) ** 2
    # kc = exp(-(dL^2 + |dX|^2) / 2)
    curve = np.exp(-0.5 * (apart + _squares(one.deviation / deviation_length, two.deviation / deviation_length)))
    # km: Matern 5/2
    radius = np.sqrt(5 * _squares(one.knobs / knob_length, two.knobs / knob_length))
    matern = (1 + radius + radius**2 / 3) * np.exp(-radius)
    covariance: Floats = shared**2 * curve + same * (offset**2 + own**2 * curve + knobs**2 * matern)
    return covariance


def _choose_prior(at: Features) -> Floats:
    """Return what the logarithms of the scales are expected to be."""
    prior: Floats = PRIOR_MEAN.copy()
    if (at.method == at.method[:1]).all():
        prior[1] = ALONE
    return prior


def _squares(one: Floats, two: Floats) -> Floats:
    """Return squared distances, ``[n, m]``."""
    squares: Floats = (one**2).sum(1)[:, None] + (two**2).sum(1)[None] - 2 * one @ two.T
    return squares.clip(0.0)


def _basis(at: Features) -> Floats:
    apart = (at.knobs**2).sum(1)
    uneven = np.maximum((at.deviation**2).sum(1) / max(at.deviation.shape[1], 1) - UNEVEN, 0.0)
    return np.column_stack([np.ones_like(at.saving), at.saving, np.maximum(at.saving - BEND, 0.0), apart, uneven])
