"""What the tests of Fisher matrices share: small layers, loops over pixels, Fisher matrices written out."""

from __future__ import annotations

from typing import Any, cast

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from methods.contract.data import Batch
from tests.methods.cases import CLASSES, seeded

QUICK = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def classes(samples: int, seed: int = 0, count: int = CLASSES) -> Tensor:
    return torch.randint(count, (samples,), generator=generator(seed))


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Conv2d:
    """A convolution in float64 that a 7x6 image is large enough for."""
    mode = draw(st.sampled_from(["zeros", "reflect", "circular", "replicate"]))
    groups = draw(st.sampled_from([1, 2, 4]))
    kernel = draw(st.sampled_from([(1, 1), (2, 2), (3, 3), (3, 1), (1, 3), (5, 5)]))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2))) if max(kernel) < 5 else (1, 1)
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding: Any = draw(st.sampled_from([0, 1, (1, 0), (0, 2), (2, 2), "same", "valid"]))
    if padding == "same":
        stride = (1, 1)
        kernel = (kernel[0] | 1, kernel[1] | 1)
    layer = seeded(
        lambda: nn.Conv2d(4, 8, cast(Any, kernel), stride, padding, dilation, groups, padding_mode=cast(Any, mode))
    )
    return cast(nn.Conv2d, layer.double())


def columns(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """The columns of im2col, one pixel at a time: ``[batch, positions, channels, k * k]``."""
    before = {"valid": (0, 0)}.get(str(layer.padding), layer.padding)
    if before == "same":
        before = tuple(d * (k - 1) // 2 for k, d in zip(layer.kernel_size, layer.dilation, strict=True))
    pad = cast(tuple[int, int], before)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    wide = F.pad(x, (pad[1], pad[1], pad[0], pad[0]), mode=mode)
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel_size, layer.stride, layer.dilation
    rows = range(0, wide.shape[2] - dh * (kh - 1), sh)
    cols = range(0, wide.shape[3] - dw * (kw - 1), sw)
    pixels = [[wide[:, :, r + dh * i, c + dw * j] for i in range(kh) for j in range(kw)] for r in rows for c in cols]
    return torch.stack([torch.stack(entries, dim=-1) for entries in pixels], dim=1)


def add_head(layer: nn.Module, outputs: int) -> nn.Sequential:
    """The layer, an activation in place, and a linear classifier on the mean over positions."""
    head = seeded(lambda: nn.Linear(outputs, CLASSES), seed=1).double()
    return nn.Sequential(layer, nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def batches(x: Tensor, labels: Tensor, size: int) -> list[Batch]:
    return list(zip(x.split(size), labels.split(size), strict=True))


def brute_force_fisher(model: nn.Module, layer: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    """Fisher of a layer's weight, labels enumerated: mean of ``vec(dW) vec(dW)^T``, vec row-major."""
    total = torch.zeros(layer.weight.numel(), layer.weight.numel(), dtype=x.dtype)
    for sample in x.split(1):
        logits = model(sample)[0]
        for label, p in enumerate(logits.softmax(0).tolist()):
            (dw,) = torch.autograd.grad(-logits.log_softmax(0)[label], layer.weight, retain_graph=True)
            total += p * torch.outer(dw.flatten(), dw.flatten()) / len(x)
    return total


def mlp() -> nn.Sequential:
    return cast(
        nn.Sequential, seeded(lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, CLASSES))).double()
    )


def make_orthogonal(size: int, seed: int, groups: int = 1) -> Tensor:
    q, _ = torch.linalg.qr(random(groups, size, size, seed=seed))
    return cast(Tensor, q)


class Shared(nn.Module):
    """One convolution called on images of two sizes, then one linear layer called on tokens, and a classifier."""

    def __init__(self, inplace: bool = True) -> None:
        super().__init__()
        self.inplace = inplace
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)
        self.tokens = nn.Linear(4, 5)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.convolution(input=x), inplace=self.inplace)
        y = F.relu(self.convolution(y[:, :, ::2]), inplace=self.inplace)
        z = F.relu(self.tokens(y.flatten(2).mT), inplace=self.inplace)
        return cast(Tensor, self.head(z.mean(1)))
