"""New initial weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods.network.initial import reinitialise
from spaces import InputError
from tests.methods import cases


def test_fresh_weights_follow_the_seed_alone() -> None:
    model = cases.seeded(cases.vgg_net, trained=True)
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    one, same, other = reinitialise(model, 1), reinitialise(model, 1), reinitialise(model, 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [dict(m.named_parameters())["0.0.weight"] for m in (one, same, other, model)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[3])
    model.register_parameter("bare", nn.Parameter(torch.ones(1)))
    with pytest.raises(InputError, match="new weights need a method reset_parameters in Sequential"):
        reinitialise(model, 1)
