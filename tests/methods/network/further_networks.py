# ruff: noqa: E501, E731  (a network a line)
"""More small networks: rearrangements, selections, sums, sequences, attention, volumes, texts, unusual numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from tests.methods.cases import conv_bn
from tests.methods.network.networks import Wired, Wiring, join_by, pool

CLASSES = 4
Builder = Callable[[], nn.Module]
Case = tuple[Builder, Tensor]


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


IMAGE, SEQUENCE, SIGNAL, VOLUME = noise(1, 3, 8, 8), noise(1, 10, 6), noise(1, 5, 16), noise(1, 2, 6, 6, 6)
WORDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2]])


def make_inner_case(wiring: Wiring, made: int, taken: int, **parts: Callable[[], nn.Module | nn.Parameter]) -> Case:
    """Something between two convolutions."""
    return (lambda: join_by(wiring, made, taken, **{name: part() for name, part in parts.items()})), IMAGE


def make_whole_case(wiring: Wiring, example: Tensor, **parts: Callable[[], nn.Module | nn.Parameter]) -> Case:
    """A network of its own."""
    return (lambda: Wired(wiring, **{name: part() for name, part in parts.items()})), example


def vector(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.rand(shape))


def linear(taken: int, made: int) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(taken, made)


def conv(taken: int, made: int, size: int = 1, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(taken, made, size, padding=size // 2, **options)


def join_parts(*parts: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.ModuleList(part() for part in parts)


def write_into(net: Any, x: Tensor) -> Tensor:
    y = x.new_zeros(x.shape[0], 6, 8, 8)
    y[:, :3], y[:, 3:6] = net.a(x), net.b(x)
    return y


def accumulate(net: Any, x: Tensor) -> Tensor:
    total = torch.zeros(x.shape[0], 6, 8, 8)
    for layer in net.parts:
        total += layer(x)
    return total


def use_twice(net: Any, x: Tensor) -> Tensor:
    for _ in range(3):
        x = x + net.layer(x)
    return x


def windows(net: Any, x: Tensor) -> Tensor:
    b = x.shape[0]
    parts = x.view(b, 8, 4, 2, 4, 2).permute(0, 2, 4, 3, 5, 1).reshape(b * 16, 4, 8)
    return net.layer(parts).view(b, 4, 4, 2, 2, 8).permute(0, 5, 1, 3, 2, 4).reshape(b, 8, 8, 8)  # type: ignore[no-any-return]


def attend_everywhere(net: Any, x: Tensor) -> Tensor:
    q, k, v = (part(x).flatten(2) for part in (net.q, net.k, net.v))
    y = (q.transpose(1, 2) @ k).softmax(-1).bmm(v.transpose(1, 2)).transpose(1, 2)
    return x + net.o(y.reshape(x.shape[0], -1, 8, 8))  # type: ignore[no-any-return]


def experts(net: Any, x: Tensor) -> Tensor:
    weights = net.gate(pool(x)).softmax(-1).unbind(1)
    return sum(w[:, None, None, None] * expert(x) for w, expert in zip(weights, net.experts, strict=True))  # type: ignore[no-any-return]


def dense(net: Any, x: Tensor) -> Tensor:
    found = [net.first(x)]
    for layer in net.layers:
        found.append(layer(torch.cat(found, 1)))
    return net.head(pool(torch.cat(found, 1)))  # type: ignore[no-any-return]


def unet(net: Any, x: Tensor) -> Tensor:
    a = net.a(x)
    up = net.up(net.b(F.max_pool2d(a, 2)))
    return net.head(net.c(torch.cat([up, a], 1)).relu())  # type: ignore[no-any-return]


def pyramid(net: Any, x: Tensor) -> list[Tensor]:
    a = net.a(x)
    low = net.low(net.b(F.max_pool2d(a, 2)))
    return [net.head(net.high(a) + F.interpolate(low, scale_factor=2.0)), net.head(low)]


def variational(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_variance = net.code(net.encode(x.flatten(1)).relu()).chunk(2, -1)
    return net.out(net.decode(mean + torch.exp(log_variance / 2)).relu()), mean.sum()


def modulate(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    scale, shift = net.condition(pool(y)).chunk(2, 1)
    return net.head(pool((y * scale[:, :, None, None] + shift[:, :, None, None]).relu()))  # type: ignore[no-any-return]


def wavenet(net: Any, x: Tensor) -> Tensor:
    y, total = net.first(x), torch.zeros(1)
    for k in range(2):
        past = F.pad(y, (2**k, 0))
        total = total + net.skip[k](torch.tanh(net.filters[k](past)) * torch.sigmoid(net.gates[k](past)))
    return net.head(total.relu().mean(2))  # type: ignore[no-any-return]


def run_stepwise(net: Any, x: Tensor) -> Tensor:
    state = torch.zeros(x.shape[0], 10), torch.zeros(x.shape[0], 10)
    for t in range(x.shape[1]):
        state = net.cell(net.into(x[:, t]), state)
    return net.head(state[0])  # type: ignore[no-any-return]


def mixer(net: Any, x: Tensor) -> Tensor:
    y = net.into(x)
    y = y + net.back(net.over(net.norm(y).transpose(1, 2)).relu()).transpose(1, 2)
    return net.head(y.mean(1))  # type: ignore[no-any-return]


def latents(net: Any, x: Tensor) -> Tensor:
    z = net.z.expand(x.shape[0], -1, -1)
    scores = (net.q(z) @ net.k(x).transpose(1, 2) * 0.5).softmax(-1)
    return net.head((z + net.o(scores @ net.v(x))).mean(1))  # type: ignore[no-any-return]


def linear_attention(net: Any, x: Tensor) -> Tensor:
    y = net.into(x)
    q, k = F.elu(net.q(y)) + 1, F.elu(net.k(y)) + 1
    return net.head((y + net.o(q @ (k.transpose(1, 2) @ net.v(y)))).mean(1))  # type: ignore[no-any-return]


def turn(q: Tensor) -> Tensor:
    """Turn pairs of columns by an angle that grows with the position (RoPE)."""
    angles = torch.outer(torch.arange(q.shape[-2]).float(), torch.tensor([1.0, 0.1])).repeat(1, 2)
    return q * angles.cos() + torch.cat([-q[..., 2:], q[..., :2]], -1) * angles.sin()


class Attention(nn.Module):
    """Attention of four heads and a gated MLP, in the variants of language models."""

    index: Tensor

    def __init__(
        self, keys: int = 4, rope: bool = False, bias: bool = False, causal: bool = False, by_hand: bool = False
    ) -> None:
        super().__init__()
        self.num_heads, self.keys, self.rope, self.causal, self.by_hand = 4, keys, rope, causal, by_hand
        self.hidden_size, self.all_head_size = 12, 16
        self.into, self.norm, self.q_norm = nn.Linear(6, 12), nn.RMSNorm(12), nn.LayerNorm(4)
        self.q, self.k, self.v, self.o = (
            nn.Linear(12, 16),
            nn.Linear(12, 4 * keys),
            nn.Linear(12, 4 * keys),
            nn.Linear(16, 12),
        )
        self.gate, self.up, self.down, self.head = (
            nn.Linear(12, 20),
            nn.Linear(12, 20),
            nn.Linear(20, 12),
            nn.Linear(12, CLASSES),
        )
        self.table = nn.Parameter(torch.randn(19, 4)) if bias else None
        self.register_buffer("index", torch.arange(10)[:, None] - torch.arange(10)[None] + 9)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        b, length, _ = x.shape
        y = self.norm(x)
        q = self.q_norm(self.q(y).view(b, length, self.num_heads, 4)).transpose(1, 2)
        k, v = (part(y).view(b, length, self.keys, 4).transpose(1, 2) for part in (self.k, self.v))
        if self.rope:
            q, k = turn(q), turn(k)
        if self.keys < self.num_heads:
            k, v = (each.repeat_interleave(2, 1) for each in (k, v))
        mask = torch.ones(length, length, dtype=torch.bool).tril() if self.causal else None
        if self.table is not None:
            mask = self.table[self.index].permute(2, 0, 1)[None]
        if self.by_hand:
            scores = q @ k.transpose(-2, -1) / math.sqrt(4)
            if mask is not None:
                scores = scores.masked_fill(~mask, -1e9) if mask.dtype == torch.bool else scores + mask
            y = scores.softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.o(y.transpose(1, 2).reshape(b, length, self.all_head_size))
        return self.head((x + self.down(F.silu(self.gate(x)) * self.up(x))).mean(1))  # type: ignore[no-any-return]


class Averaged(nn.Module):
    """Keeps a running mean of each channel, and a scale that is a buffer."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("scale", torch.rand(8))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(x.detach().mean((0, 2, 3)), alpha=0.1)
        return (x - self.mean[:, None, None]) * self.scale.view(1, -1, 1, 1)


class NotSaved(nn.Module):
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([1.0, 1, 0, 1, 1, 0, 1, 1]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask[None, :, None, None]


class Blur(nn.Module):
    """A filter for each channel, the same for all, in a buffer that is not saved."""

    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", torch.linspace(0, 1, 9).view(1, 1, 3, 3).repeat(8, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.filters, padding=1, groups=len(self.filters))


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight + weight.flip(-1)


def make_symmetric() -> nn.Module:
    layer = nn.Conv2d(8, 8, 3, padding=1)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return layer


class Exits(nn.Module):
    """Answers early in training mode, and skips a layer at random there."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.early, self.more, self.head = (
            conv_bn(3, 8),
            nn.Linear(8, CLASSES),
            conv_bn(8, 8),
            nn.Linear(8, CLASSES),
        )

    def forward(self, x: Tensor) -> Any:
        y = self.first(x)
        if not self.training:
            return self.head(pool(y + self.more(y)))
        return self.head(pool(y + self.more(y) if torch.rand(1).item() > 0.5 else y)), self.early(pool(y))


class Conditional(nn.Module):
    """Looks at numbers before it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.more, self.head = conv_bn(3, 8), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.head(pool(y + self.more(y) if y.isfinite().all() else y))  # type: ignore[no-any-return]


class Lists(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterDict({
            "in": nn.Parameter(torch.randn(8, 3)),
            "out": nn.Parameter(torch.randn(CLASSES, 8)),
        })
        self.shifts = nn.ParameterList([nn.Parameter(torch.randn(8))])

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(pool(x), self.weights["in"], self.shifts[0]).relu(), self.weights["out"])


def make_hooked() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES)
    )
    model[0].register_forward_hook(lambda module, given, made: made * 2)
    return model


def make_plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))


PROVEN: dict[str, Case] = {
    # rearrangements
    "groups swapped": make_inner_case(lambda n, x: x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2), 8, 8),
    "space to depth": make_inner_case(lambda n, x: x.unflatten(2, (4, 2)).unflatten(4, (4, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3), 4, 16),
    "depth to space": make_inner_case(lambda n, x: x.unflatten(1, (2, 2, 4)).permute(0, 3, 4, 1, 5, 2).reshape(x.shape[0], 4, 16, 16), 16, 4),
    "images of a vector": make_inner_case(lambda n, x: n.u(n.l(x.flatten(1))), 2, 4, u=lambda: nn.Unflatten(1, (4, 8, 8)), l=linear(128, 256)),
    "linear in windows": make_inner_case(windows, 8, 8, layer=linear(8, 8)),
    "channels last in between": make_inner_case(lambda n, x: n.l(x.movedim(1, -1)).swapaxes(1, 3).swapaxes(2, 3), 8, 6, l=linear(8, 6)),
    "unbound and stacked": make_inner_case(lambda n, x: torch.stack(x.unflatten(1, (4, 2)).unbind(2), 2).flatten(1, 2), 8, 8),
    "patches by a linear layer": make_inner_case(lambda n, x: n.l(F.unfold(x, 3, padding=1).transpose(1, 2)).transpose(1, 2).unflatten(2, (8, 8)), 6, 8, l=linear(54, 8)),
    "folded again": make_inner_case(lambda n, x: F.fold(F.unfold(x, 3, padding=1) * 0.2, (8, 8), 3, padding=1), 6, 6),
    "tiled": make_inner_case(lambda n, x: torch.tile(x, (1, 2, 1, 1)), 6, 12),
    "each twice": make_inner_case(lambda n, x: x.repeat_interleave(2, 1), 6, 12),
    # selections
    "selected by a list": make_inner_case(lambda n, x: torch.index_select(x, 1, torch.tensor([1, 0, 3, 2, 5, 4])), 6, 6),
    "a selection": make_inner_case(lambda n, x: x[:, torch.tensor([0, 2, 4, 5])], 6, 4),
    "narrowed": make_inner_case(lambda n, x: x.narrow(1, 2, 4), 8, 4),
    "every second": make_inner_case(lambda n, x: x[:, ::2] + x[:, 1::2], 8, 4),
    "a layer for each part": make_inner_case(lambda n, x: torch.cat([c(p) for c, p in zip(n.c, x.split([2, 3, 3], 1), strict=True)], 1), 8, 9, c=join_parts(conv(2, 3), conv(3, 3), conv(3, 3))),
    "parts written": make_inner_case(write_into, 8, 6, a=conv(8, 3), b=conv(8, 3)),
    "added into zeros": make_inner_case(accumulate, 8, 6, parts=join_parts(conv(8, 6), conv(8, 6))),
    "coordinates": make_inner_case(lambda n, x: torch.cat([x, torch.linspace(-1, 1, 8).view(1, 1, 1, 8).expand(x.shape[0], 1, 8, 8)], 1), 6, 7),
    # sums and products
    "einsum with a weight": make_inner_case(lambda n, x: torch.einsum("bchw,oc->bohw", x, n.w), 8, 6, w=vector(6, 8)),
    "tensordot": make_inner_case(lambda n, x: torch.tensordot(x, n.w, dims=([1], [0])).movedim(-1, 1), 8, 6, w=vector(8, 6)),
    "a weight from the left": make_inner_case(lambda n, x: (n.w @ x.flatten(2)).unflatten(2, (8, 8)), 8, 6, w=vector(6, 8)),
    "a weight broadcast": make_inner_case(lambda n, x: (x[:, None] * n.w[None, :, :, None, None]).sum(2), 8, 6, w=vector(6, 8)),
    "where": make_inner_case(lambda n, x: torch.where(x > 0, x, n.a * 0.1), 8, 8, a=vector(1, 8, 1, 1)),
    "mean over channels": make_inner_case(lambda n, x: x * x.mean(1, keepdim=True).sigmoid(), 8, 8),
    "mean by division": make_inner_case(lambda n, x: x + x.sum(1, keepdim=True) / x.shape[1], 8, 8),
    "scaled by the width": make_inner_case(lambda n, x: x / math.sqrt(x.size(1)), 8, 8),
    "root mean square": make_inner_case(lambda n, x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6) * n.w, 8, 8, w=vector(1, 8, 1, 1)),
    "response norm": make_inner_case(lambda n, x: x + x * (x.norm(dim=(2, 3), keepdim=True) / (x.norm(dim=(2, 3), keepdim=True).mean(1, keepdim=True) + 1e-6)), 8, 8),
    "norm of groups by function": make_inner_case(lambda n, x: F.group_norm(x, 4, n.w), 8, 8, w=vector(8)),
    "norm by function": make_inner_case(lambda n, x: F.layer_norm(x.permute(0, 2, 3, 1), (8,), n.w).permute(0, 3, 1, 2), 8, 8, w=vector(8)),
    "maxout": make_inner_case(lambda n, x: x.view(x.shape[0], -1, 2, 8, 8).max(2)[0], 8, 4),
    "both signs": make_inner_case(lambda n, x: torch.cat([x.relu(), (-x).relu()], 1), 6, 12),
    "capsules": make_inner_case(lambda n, x: (x.unflatten(1, (2, 4)) * x.unflatten(1, (2, 4)).pow(2).sum(2, keepdim=True)).flatten(1, 2), 8, 8),
    "channel attention": make_inner_case(lambda n, x: x + ((x.flatten(2) @ x.flatten(2).transpose(1, 2)).softmax(-1) @ x.flatten(2)).view_as(x), 8, 8),
    "non-local": make_inner_case(attend_everywhere, 8, 8, q=conv(8, 4), k=conv(8, 4), v=conv(8, 6), o=conv(6, 8)),
    "blurred": make_inner_case(lambda n, x: F.conv2d(x, torch.ones(1, 1, 3, 3).repeat(x.shape[1], 1, 1, 1) / 9, padding=1, groups=x.shape[1]), 8, 8),
    "blurred by a buffer": make_inner_case(lambda n, x: n.b(x), 8, 8, b=Blur),
    "blurred in the code": make_inner_case(lambda n, x: F.conv2d(x, (torch.ones(3, 3) / 9).expand(8, 1, 3, 3), padding=1, groups=8), 8, 8),
    "filters for each input": make_inner_case(lambda n, x: F.conv2d(x.reshape(1, -1, 8, 8), n.g(pool(x)).reshape(-1, 1, 3, 3), padding=1, groups=x.shape[0] * x.shape[1]).view(x.shape), 8, 8, g=linear(8, 72)),
    "filters from a code": make_whole_case(lambda n, x: n.head(pool(F.conv2d(n.a(x), n.make(n.code).view(6, 8, 1, 1)).relu())), IMAGE, a=lambda: conv_bn(3, 8), code=vector(5), make=linear(5, 48), head=linear(6, CLASSES)),
    "transposed in two groups": make_inner_case(lambda n, x: n.up(x), 8, 6, up=lambda: nn.ConvTranspose2d(8, 6, 3, padding=1, groups=2)),
    "unpooled": make_inner_case(lambda n, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), (2, 2)), 8, 8),
    "complex numbers": make_inner_case(lambda n, x: torch.complex(x[:, :4], x[:, 4:]).abs(), 8, 4),
    "filtered by frequency": make_inner_case(lambda n, x: torch.fft.irfft2(torch.fft.rfft2(x) * torch.view_as_complex(n.w), s=(8, 8)), 8, 8, w=vector(8, 8, 5, 2)),
    # modules
    "one layer three times": make_inner_case(use_twice, 8, 8, layer=conv(8, 8, 3)),
    "checkpointed": make_inner_case(lambda n, x: checkpoint(n.l, x, use_reentrant=False), 8, 8, l=lambda: nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 1))),
    "parametrised": make_inner_case(lambda n, x: n.c(x), 8, 8, c=make_symmetric),
    "running mean": make_inner_case(lambda n, x: n.b(x), 8, 8, b=Averaged),
    "hook": (make_hooked, IMAGE),
    "early exit": (Exits, IMAGE),
    "condition": (Conditional, IMAGE),
    "dictionary of parameters": (Lists, IMAGE),
    "cumulative": make_whole_case(dense, IMAGE, first=conv(3, 6), layers=join_parts(*(lambda k=k: nn.Sequential(nn.BatchNorm2d(6 + 4 * k), nn.ReLU(), nn.Conv2d(6 + 4 * k, 4, 3, padding=1)) for k in range(3))), head=linear(18, CLASSES)),
    "U-net": make_whole_case(unet, IMAGE, a=lambda: conv_bn(3, 6), b=lambda: conv_bn(6, 10), up=lambda: nn.ConvTranspose2d(10, 6, 2, 2), c=conv(12, 8, 3), head=conv(8, CLASSES)),
    "pyramid": make_whole_case(pyramid, IMAGE, a=lambda: conv_bn(3, 6), b=lambda: conv_bn(6, 10), high=conv(6, 8), low=conv(10, 8), head=lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, CLASSES, 1))),
    "variational": make_whole_case(variational, IMAGE, encode=linear(192, 16), code=linear(16, 8), decode=linear(4, 12), out=linear(12, 192)),
    "modulated": make_whole_case(modulate, IMAGE, a=lambda: conv_bn(3, 8), condition=linear(8, 16), head=linear(8, CLASSES)),
    "nested answers": make_whole_case(lambda n, x: {"a": n.head(pool(n.a(x))), "b": [(n.other(pool(n.a(x))), None)]}, IMAGE, a=lambda: conv_bn(3, 8), head=linear(8, CLASSES), other=linear(8, 2)),
    # volumes, signals, sequences, texts
    "volumes": make_whole_case(lambda n, x: n.head(n.up(n.a(x).relu()).mean((2, 3, 4))), VOLUME, a=lambda: nn.Conv3d(2, 8, 3, 2), up=lambda: nn.ConvTranspose3d(8, 6, 2, 2), head=linear(6, CLASSES)),
    "dilated and causal": make_whole_case(wavenet, SIGNAL, first=lambda: nn.Conv1d(5, 8, 1), filters=lambda: nn.ModuleList(nn.Conv1d(8, 6, 2, dilation=2**k) for k in range(2)), gates=lambda: nn.ModuleList(nn.Conv1d(8, 6, 2, dilation=2**k) for k in range(2)), skip=lambda: nn.ModuleList(nn.Conv1d(6, 9, 1) for _ in range(2)), head=linear(9, CLASSES)),
    "norm over a sequence": make_whole_case(lambda n, x: n.head(n.norm(n.into(x).transpose(1, 2)).relu().mean(2)), SEQUENCE, into=linear(6, 8), norm=lambda: nn.BatchNorm1d(8), head=linear(8, CLASSES)),
    "last state": make_whole_case(lambda n, x: n.head(n.r(n.into(x))[1][0][-1]), SEQUENCE, into=linear(6, 8), r=lambda: nn.LSTM(8, 10, 2, batch_first=True), head=linear(10, CLASSES)),
    "time first": make_whole_case(lambda n, x: n.head(n.r(n.into(x).transpose(0, 1))[0].mean(0)), SEQUENCE, into=linear(6, 8), r=lambda: nn.GRU(8, 10), head=linear(10, CLASSES)),
    "cell by cell": make_whole_case(run_stepwise, SEQUENCE, into=linear(6, 8), cell=lambda: nn.LSTMCell(8, 10), head=linear(10, CLASSES)),
    "words and convolutions": make_whole_case(lambda n, x: n.head(torch.cat([c(n.e(x).transpose(1, 2)).relu().amax(2) for c in n.c], 1)), WORDS, e=lambda: nn.Embedding(11, 8), c=lambda: nn.ModuleList(nn.Conv1d(8, 5, k) for k in (2, 3)), head=linear(10, CLASSES)),
    "bag of words": make_whole_case(lambda n, x: n.head(n.l(n.e(x)).relu()), WORDS, e=lambda: nn.EmbeddingBag(11, 8), l=linear(8, 6), head=linear(6, CLASSES)),
    # attention
    "causal": (lambda: Attention(causal=True), SEQUENCE),
    "causal, by hand": (lambda: Attention(causal=True, by_hand=True), SEQUENCE),
    "turned, keys shared": (lambda: Attention(keys=2, rope=True), SEQUENCE),
    "turned, by hand": (lambda: Attention(rope=True, by_hand=True), SEQUENCE),
    "bias by distance": (lambda: Attention(bias=True), SEQUENCE),
    "latents": make_whole_case(latents, SEQUENCE, z=vector(1, 5, 8), q=linear(8, 6), k=linear(6, 6), v=linear(6, 7), o=linear(7, 8), head=linear(8, CLASSES)),
    "linear attention": make_whole_case(linear_attention, SEQUENCE, into=linear(6, 8), q=linear(8, 6), k=linear(8, 6), v=linear(8, 5), o=linear(5, 8), head=linear(8, CLASSES)),
    "encoder of torch": make_whole_case(lambda n, x: n.head(n.t(n.into(x)).mean(1)), SEQUENCE, into=linear(6, 8), t=lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0), 1, enable_nested_tensor=False), head=linear(8, CLASSES)),
    "transformer of torch": make_whole_case(lambda n, x: n.head(n.t(n.into(x), n.into(x)).mean(1)), SEQUENCE, into=linear(6, 8), t=lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True, dropout=0.0), head=linear(8, CLASSES)),
    # numbers
    "float64": (lambda: make_plain().double(), IMAGE.double()),
    "bfloat16": (lambda: make_plain().bfloat16(), IMAGE.bfloat16()),
    "float16 in between": make_inner_case(lambda n, x: (x.half() * 2).float(), 8, 8),
}  # fmt: skip
"""Networks in which everything but the answer can lose channels."""

PINNED: dict[str, tuple[Case, str, str]] = {
    "sorted": (make_inner_case(lambda n, x: x.sort(1).values, 8, 8), "first.0", "sort in the network itself looks at the order of the channels"),
    "running sum": (make_inner_case(lambda n, x: x.cumsum(1), 8, 8), "first.0", "looks at the order of the channels"),
    "gathered": (make_inner_case(lambda n, x: x.gather(1, torch.arange(7, -1, -1).view(1, 8, 1, 1).expand(x.shape[0], 8, 8, 8)), 8, 8), "first.0", "gather in the network itself is not understood"),
    "selected by truth values": (make_inner_case(lambda n, x: x[:, torch.tensor([True, False, True, True, False, True])], 6, 4), "first.0", "picks single channels"),
    "frequencies of channels": (make_inner_case(lambda n, x: torch.fft.fft(x, dim=1).real, 8, 8), "first.0", "transforms along the channels"),
    "neighbours": (make_inner_case(lambda n, x: n.norm(x), 8, 8, norm=lambda: nn.LocalResponseNorm(3)), "first.0", "avg_pool3d in norm takes channels for positions of an image"),
    "a buffer that is not saved": (make_inner_case(lambda n, x: n.b(x), 8, 8, b=NotSaved), "first.0", "b.mask is a buffer that is not saved"),
    "unequal parts": (make_inner_case(lambda n, x: torch.cat(torch.tensor_split(x, 3, 1)[::-1], 1), 8, 8), "first.0", "splits into unequal parts"),
    "positions to read": (make_inner_case(lambda n, x: F.grid_sample(x, n.g(x).movedim(1, -1).tanh(), align_corners=False), 8, 8, g=conv(8, 2)), "g", "takes channels for positions of an image"),
    "one of all channels": (make_inner_case(lambda n, x: x * x[:, 0].sigmoid().unsqueeze(1), 8, 8), "first.0", "picks one channel"),
    "weights of experts": (make_inner_case(experts, 8, 6, gate=linear(8, 3), experts=join_parts(conv(8, 6), conv(8, 6), conv(8, 6))), "gate", "unbind in the network itself picks single channels"),
    "mixed tokens": (make_whole_case(mixer, SEQUENCE, into=linear(6, 8), norm=lambda: nn.LayerNorm(8), over=linear(10, 12), back=linear(12, 10), head=linear(8, CLASSES)), "back", "side by side with something of a fixed size"),
    "a state that is given": (make_whole_case(lambda n, x: n.head(n.r(n.into(x), (torch.zeros(1, x.shape[0], 10), torch.zeros(1, x.shape[0], 10)))[0][:, -1]), SEQUENCE, into=linear(6, 8), r=lambda: nn.LSTM(8, 10, batch_first=True), head=linear(10, CLASSES)), "r", "projects its state, or is given one"),
}  # fmt: skip
"""Networks in which one layer keeps channels, that layer, and the reason."""
