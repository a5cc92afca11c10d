"""Shapes that are answered at once are those that torch works out, and what torch refuses is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.network.quick_shapes import ALIKE, QuickShapes

IMAGES, WORDS = (2, 6, 5, 4), (2, 7, 6)


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, device="meta", dtype=dtype)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda tensor: tensor,
    "channels last": lambda tensor: tensor.contiguous(memory_format=torch.channels_last),
    "transposed": lambda tensor: tensor.transpose(-1, -2),
    "expanded": lambda tensor: tensor[:1].expand(tensor.shape),
}

CALLS: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    **{f.__name__: (IMAGES, f) for f in ALIKE if f not in (F.batch_norm, F.layer_norm)},
    "relu in place": (IMAGES, lambda x: F.relu(x.clone(), inplace=True)),
    "ReLU6": (IMAGES, nn.ReLU6()),
    "batch_norm, training": (IMAGES, lambda x: F.batch_norm(x, meta(6), meta(6), meta(6), meta(6), True)),
    "batch_norm, evaluation": (IMAGES, lambda x: F.batch_norm(x, meta(6), meta(6), weight=meta(6), bias=meta(6))),
    "batch_norm without anything": (IMAGES, lambda x: F.batch_norm(x, None, None, training=True)),
    "layer_norm": (WORDS, lambda x: F.layer_norm(x, (6,), meta(6), meta(6))),
    "layer_norm of two": (WORDS, lambda x: F.layer_norm(x, [7, 6])),
}


@pytest.mark.parametrize(("call", "layout"), list(itertools.product(CALLS, LAYOUTS)))
def test_shapes_types_and_strides_are_those_of_torch(call: str, layout: str) -> None:
    shape, function = CALLS[call]
    if layout == "channels last" and len(shape) != 4:
        return
    if layout == "transposed":
        shape = (*shape[:-2], shape[-1], shape[-2])
    given = LAYOUTS[layout](meta(*shape))
    with torch.no_grad():
        expected = function(given)
        with QuickShapes():
            found = function(given)
    described = [(each.shape, each.dtype, each.device, each.stride()) for each in (found, expected)]
    assert described[0] == described[1]


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.batch_norm(meta(*IMAGES), meta(5), meta(5)),
        lambda: F.batch_norm(meta(*IMAGES), meta(6), meta(6), meta(4), meta(4)),
        lambda: F.batch_norm(meta(1, 6), meta(6), meta(6), training=True),
        lambda: F.layer_norm(meta(*WORDS), (5,)),
        lambda: F.layer_norm(meta(*WORDS), (6,), meta(5)),
    ],
)
def test_what_torch_refuses_is_refused_in_its_words(call: Callable[[], Tensor]) -> None:
    with torch.no_grad():
        with pytest.raises((RuntimeError, ValueError)) as expected:
            call()
        with QuickShapes(), pytest.raises(type(expected.value)) as found:
            call()
    assert str(found.value) == str(expected.value)


def test_numbers_and_gradients_are_left_to_torch() -> None:
    torch.manual_seed(0)
    layers, x = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU()), torch.randn(IMAGES)
    with QuickShapes():
        found = layers(x)
    assert torch.equal(found, layers(x)) and found.requires_grad
    with QuickShapes():
        assert F.relu(meta(3).requires_grad_()).requires_grad


def test_layers_of_usual_networks_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = list[torch.Size]()

    def make_like(tensor: Tensor) -> Tensor:
        answered.append(tensor.shape)
        return meta(*tensor.shape)

    monkeypatch.setattr(torch, "empty_like", make_like)
    layers = (nn.BatchNorm2d(6), nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.SiLU(), nn.GELU(), nn.Hardsigmoid())
    with torch.no_grad(), QuickShapes():
        for layer in layers:
            layer.to("meta")(meta(*IMAGES))
        nn.LayerNorm(6).to("meta")(meta(*WORDS))
    assert len(answered) == len(layers) + 1
