"""Chains in a network and their equal forms."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from methods.network.chains import chains, forms, segmentations
from methods.network.cost import count


def convolutions(*widths: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """A 1x1 layer, a core and a 1x1 layer with a bias; only the last two for three widths."""
    layers: list[nn.Module] = []
    for place, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
        core = place == len(widths) - 3
        size, step, around = (kernel, stride, kernel // 2) if core else (1, 1, 0)
        layers.append(nn.Conv2d(before, after, size, step, around, bias=place == len(widths) - 2))
    return nn.Sequential(*layers)


def network() -> nn.Sequential:
    """Two chains of convolutions, one of linear layers, and sequences that are none."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Sequential(
            convolutions(3, 2, 4, 6, stride=2),
            nn.Sequential(nn.BatchNorm2d(6), nn.ReLU()),
            convolutions(6, 4, 5),
            nn.Flatten(),
            nn.Sequential(nn.Linear(80, 3, bias=False), nn.Linear(3, 7)),
            nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 4)),  # the first bias could not be multiplied out
        )
    return layers.double().eval()


def images(seed: int = 1) -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_segmentations() -> None:
    assert segmentations(3) == ((1, 1, 1), (2, 1), (1, 2), (3,)) and segmentations(2) == ((1, 1), (2,))


def test_chains_are_found() -> None:
    model = network()
    assert list(chains(model)) == ["0", "2", "4"]
    assert not chains(convolutions(3, 2, 4, 6)), "the whole network cannot be replaced"
    twice = nn.Sequential(model[4], nn.Linear(7, 80), model[4])
    assert not chains(twice)


def test_every_form_answers_the_same() -> None:
    model = network()
    x = images()
    assert list(forms(chains(model)["0"])) == ["1+1+1", "2+1", "1+2", "3"]
    assert list(forms(chains(model)["2"])) == ["1+1", "2"] == list(forms(chains(model)["4"]))
    for ways in ({"0": "2+1"}, {"0": "1+2", "2": "2"}, {"0": "3", "2": "2", "4": "2"}):
        other = copy.deepcopy(model)
        for name, way in ways.items():
            other.set_submodule(name, forms(chains(model)[name])[way])
        torch.testing.assert_close(other(x), model(x), rtol=1e-12, atol=1e-12)
        assert count(other, x[:1]) != count(model, x[:1]) and list(chains(model)) == ["0", "2", "4"]


def test_what_cannot_be_multiplied_out_is_left() -> None:
    both = nn.Sequential(nn.Conv2d(2, 2, 3, bias=False), nn.Conv2d(2, 2, 3))
    assert list(forms(both)) == ["1+1"]
