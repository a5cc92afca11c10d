"""Second moments of gradients in rotated coordinates against gradients of one sample at a time."""

from __future__ import annotations

from typing import cast

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from methods.curvature.second_moments import collect_second_moments
from tests.methods.cases import seeded
from tests.methods.fisher_cases import (
    QUICK,
    Shared,
    add_head,
    batches,
    brute_force_fisher,
    classes,
    convolutions,
    make_orthogonal,
    mlp,
    random,
)


def test_oracle_13_second_moments_are_the_diagonal_of_the_rotated_fisher() -> None:
    model, x = mlp(), random(9, 5)
    q_a, q_g = make_orthogonal(5, 1), make_orthogonal(6, 2)
    found = collect_second_moments(model, batches(x, classes(9), 4), ["0"], {"0": (q_a, q_g)}, fisher="exact")["0"]
    q = torch.kron(q_g[0], q_a[0])
    fisher = brute_force_fisher(model, cast(nn.Linear, model[0]), x)
    torch.testing.assert_close(found.flatten(), (q.T @ fisher @ q).diagonal(), rtol=1e-10, atol=1e-16)


@QUICK
@given(convolutions(), st.booleans())
def test_second_moments_of_convolutions(layer: nn.Conv2d, rotate: bool) -> None:
    model, x, labels, groups = add_head(layer, 8), random(3, 4, 7, 6), classes(3), layer.groups
    bases = (make_orthogonal(4 // groups, 1, groups), make_orthogonal(8 // groups, 2, groups))
    given_bases = {"0": bases} if rotate else {}
    found = collect_second_moments(model, batches(x, labels, 2), ["0"], given_bases, fisher="empirical")["0"]
    expected = torch.zeros_like(found)
    for sample, label in zip(x.split(1), labels.split(1), strict=True):
        (dw,) = torch.autograd.grad(F.cross_entropy(model(sample), label), layer.weight)
        dw = dw.reshape(groups, 8 // groups, 4 // groups, -1).transpose(2, 3)
        if rotate:
            dw = torch.einsum("gor,godi,gis->grds", bases[1], dw, bases[0])
        expected += dw.square() / 3
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-16)


def test_second_moments_sum_over_calls_before_squaring() -> None:
    model, x = seeded(Shared).double(), random(3, 4, 6, 5)
    found = collect_second_moments(model, batches(x, classes(3), 2), ["convolution", "tokens"], {}, fisher="exact")
    for name in ("convolution", "tokens"):
        layer = cast(nn.Linear, model.get_submodule(name))
        diagonal = brute_force_fisher(model, layer, x).diagonal()
        diagonal = diagonal.reshape(*layer.weight.shape[:2], -1).transpose(1, 2)
        torch.testing.assert_close(found[name][0], diagonal, rtol=1e-10, atol=1e-16)
