# ruff: noqa: E501  (a network a line)
"""Small networks of the kinds that people prune, each with one thing that is easily got wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tests.methods.cases import CLASSES, IMAGE, conv_bn

Wiring = Callable[[Any, Tensor], Any]


class Wired(nn.Module):
    """Modules and what is done with them, given as a function, so that a network is a few lines.

    Args:
        wiring: Is given the network and the input, and returns the answer.
        **parts: Modules and parameters by name.
    """

    def __init__(self, wiring: Wiring, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.wiring = wiring
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.wiring(self, x)


def head(width: int) -> nn.Module:
    return nn.Linear(width, CLASSES)


def pool(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def join_by(wiring: Wiring, made: int, taken: int, **parts: nn.Module | nn.Parameter) -> nn.Module:
    """A network with something between two convolutions.

    Args:
        wiring: What is done with the ``made`` channels to give ``taken`` of them.
        made: Channels of the first convolution.
        taken: Channels that the second one reads.
        **parts: Modules of ``wiring``.
    """

    def run_whole(net: Any, x: Tensor) -> Tensor:
        answer: Tensor = net.head(pool(net.last(wiring(net, net.first(x)))))
        return answer

    return Wired(run_whole, first=conv_bn(3, made), last=conv_bn(taken, 12), head=head(12), **parts)


def shuffle(x: Tensor, groups: int) -> Tensor:
    batch, channels, *side = x.shape
    return x.view(batch, groups, channels // groups, *side).transpose(1, 2).reshape(batch, channels, *side)


def make_padded(front: int, back: int) -> Wiring:
    def wiring(net: Any, x: Tensor) -> Tensor:
        wide: Tensor = net.wide(x)
        return torch.relu(wide + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, front, back)))

    return wiring


def append_zeros(net: Any, x: Tensor) -> Tensor:
    small = F.avg_pool2d(x, 2)
    zeros = torch.zeros(small.shape[0], 8, small.shape[2], small.shape[3], dtype=x.dtype, device=x.device)
    wide: Tensor = net.wide(x)
    return torch.relu(wide + torch.cat([small, zeros], dim=1))


def squeeze(net: Any, x: Tensor) -> Tensor:
    batch, channels = x.shape[:2]
    gate = torch.sigmoid(net.up(torch.relu(net.down(pool(x))))).view(batch, channels, 1, 1)
    return x * gate


def select(net: Any, x: Tensor) -> Tensor:
    branches = torch.stack([net.small(x), net.large(x)], dim=1)
    weights = net.choose(torch.relu(net.squeeze(pool(branches.sum(1)))))
    weights = torch.softmax(weights.view(x.shape[0], 2, -1, 1, 1), dim=1)
    return (branches * weights).sum(1)


def attention(heads: int, width: int, named: bool) -> Wiring:
    """Attention over the rows of an image; with the number of heads in the code, or the size of each."""

    def wiring(net: Any, x: Tensor) -> Tensor:
        x = net.embed(x.flatten(2).transpose(1, 2))
        batch, length, channels = x.shape
        size = width // heads if named else channels // heads
        q, k, v = net.qkv(net.norm(x)).reshape(batch, length, 3, heads, size).permute(2, 0, 3, 1, 4).unbind(0)
        scores = torch.softmax(q @ k.transpose(-2, -1) * 0.3, dim=-1)
        y = (scores @ v).transpose(1, 2).reshape(batch, length, heads * size)
        x = x + net.project(y)
        x = x + net.out(F.gelu(net.into(x)))
        answer: Tensor = net.head(x.mean(1))
        return answer

    return wiring


def tokens(heads: int, named: bool) -> nn.Module:
    return Wired(
        attention(heads, 16, named),
        embed=nn.Linear(3, 16),
        norm=nn.LayerNorm(16),
        qkv=nn.Linear(16, 48),
        project=nn.Linear(16, 16),
        into=nn.Linear(16, 24),
        out=nn.Linear(24, 16),
        head=head(16),
    )


def grouped_queries(net: Any, x: Tensor) -> Tensor:
    x = net.embed(x.flatten(2).transpose(1, 2))
    batch, length, _ = x.shape
    q = net.q(x).view(batch, length, 4, 4).transpose(1, 2)
    k, v = (part(x).view(batch, length, 2, 4).transpose(1, 2) for part in (net.k, net.v))
    k, v = (part[:, :, None].expand(-1, -1, 2, -1, -1).reshape(batch, 4, length, 4) for part in (k, v))
    y = F.scaled_dot_product_attention(q, k, v, scale=0.5)
    answer: Tensor = net.head(net.o(y.transpose(1, 2).reshape(batch, length, 16)).mean(1))
    return answer


def multihead(net: Any, x: Tensor) -> Tensor:
    x = net.embed(x.flatten(2).transpose(1, 2))
    x = x + net.attend(x, x, x, need_weights=False)[0]
    answer: Tensor = net.head(x.mean(1))
    return answer


class Adapted(nn.Linear):
    """A linear layer with a product of two small matrices added to its weight."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.down = nn.Parameter(0.1 * torch.randn(3, inputs))
        self.up = nn.Parameter(0.1 * torch.randn(outputs, 3))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight + self.up @ self.down, self.bias)


class Standardised(nn.Conv2d):
    """A convolution whose filters have mean zero and variance one."""

    def forward(self, input: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        weight = (self.weight - mean) / torch.sqrt(variance + 1e-5)
        return F.conv2d(input, weight, self.bias, self.stride, self.padding)


class Permuted(nn.Module):
    """Channels in another order, which a buffer holds."""

    order: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(channels, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.order]


class Auxiliary(nn.Module):
    """A second answer in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.head, self.other = conv_bn(3, 8), conv_bn(8, 12), head(12), head(8)

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        answer = self.head(pool(self.last(x)))
        return (answer, self.other(pool(x))) if self.training else answer


def make_tied() -> nn.Module:
    """Two layers with one weight between others."""
    net = Wired(
        lambda net, x: net.head(pool(net.last(torch.relu(net.b(torch.relu(net.a(net.first(x)))))))),
        first=conv_bn(3, 8),
        a=nn.Conv2d(8, 8, 3, padding=1),
        b=nn.Conv2d(8, 8, 3, padding=1),
        last=conv_bn(8, 12),
        head=head(12),
    )
    net.b.weight = net.a.weight  # type: ignore[union-attr]
    return net


def make_older_norms() -> nn.Module:
    """Weight and spectral norm of torch's older kind, which keep computed tensors as attributes."""
    return nn.Sequential(
        torch.nn.utils.weight_norm(nn.Conv2d(3, 8, 3, padding=1)),
        nn.ReLU(),
        torch.nn.utils.spectral_norm(nn.Conv2d(8, 12, 3, padding=1)),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        head(12),
    )


def make_newer_norms() -> nn.Module:
    return nn.Sequential(
        parametrizations.weight_norm(nn.Conv2d(3, 8, 3, padding=1)),
        nn.ReLU(),
        parametrizations.spectral_norm(nn.Conv2d(8, 12, 3, padding=1)),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        head(12),
    )


def recurrent(layer: nn.Module, width: int) -> nn.Module:
    return Wired(
        lambda net, x: net.head(net.layer(torch.relu(net.embed(x[:, 0])))[0][:, -1]),
        embed=nn.Linear(8, 10),
        layer=layer,
        head=head(width),
    )


def make_wide(kernel: int = 3) -> nn.Module:
    return nn.Conv2d(8, 16, kernel, 2, kernel // 2)


KINDS: dict[str, Callable[[], nn.Module]] = {
    "size in a view": lambda: Wired(
        lambda net, x: net.head(torch.relu(net.hidden(net.first(x).view(-1, 6 * 8 * 8)))),
        first=conv_bn(3, 6),
        hidden=nn.Linear(6 * 64, 10),
        head=head(10),
    ),
    "size in a view before a norm": lambda: Wired(
        lambda net, x: net.head(torch.relu(net.norm(net.last(net.first(x)).view(-1, 12)))),
        first=conv_bn(3, 6),
        last=nn.Conv2d(6, 12, 8),
        norm=nn.BatchNorm1d(12),
        head=head(12),
    ),
    "unflatten": lambda: Wired(
        lambda net, x: net.head(pool(net.last(net.split(torch.relu(net.first(x.flatten(1))))))),
        first=nn.Linear(192, 64),
        split=nn.Unflatten(1, (4, 4, 4)),
        last=conv_bn(4, 12),
        head=head(12),
    ),
    "chunks": lambda: join_by(lambda net, x: torch.cat([*x.chunk(2, 1), net.more(x.chunk(2, 1)[1])], 1), 8, 12, more=conv_bn(4, 4)),
    "slices": lambda: join_by(lambda net, x: torch.cat([net.part(x[:, :3]), x[:, 3:]], 1), 8, 8, part=conv_bn(3, 3)),
    "named split": lambda: join_by(lambda net, x: torch.maximum(*x.split(4, 1)), 8, 4),
    "uneven split": lambda: join_by(lambda net, x: torch.cat(x.split([2, 6], 1)[::-1], 1), 8, 8),
    "shuffle": lambda: join_by(lambda net, x: shuffle(x, 2), 8, 8),
    "shuffle module": lambda: join_by(lambda net, x: net.shuffle(x), 8, 8, shuffle=nn.ChannelShuffle(2)),
    "pixel shuffle": lambda: join_by(lambda net, x: F.pixel_shuffle(x, 2), 16, 4),
    "pixel unshuffle": lambda: join_by(lambda net, x: F.pixel_unshuffle(x, 2), 4, 16),
    "gated": lambda: join_by(lambda net, x: F.glu(net.more(x), 1), 6, 8, more=nn.Conv2d(6, 16, 1)),
    "padded on both sides": lambda: join_by(make_padded(4, 4), 8, 16, wide=make_wide()),
    "padded behind": lambda: join_by(make_padded(0, 8), 8, 16, wide=make_wide()),
    "zeros appended": lambda: join_by(append_zeros, 8, 16, wide=make_wide()),
    "flip": lambda: join_by(lambda net, x: x.flip(1), 8, 8),
    "roll": lambda: join_by(lambda net, x: torch.roll(x, 3, 1), 8, 8),
    "order in a buffer": lambda: join_by(lambda net, x: net.order(x), 8, 8, order=Permuted(8)),
    "order in a list": lambda: join_by(lambda net, x: x[:, [3, 1, 0, 2, 5, 4, 7, 6]], 8, 8),
    "one slope": lambda: join_by(lambda net, x: net.slope(x - 0.2), 8, 8, slope=nn.PReLU()),
    "many slopes": lambda: join_by(lambda net, x: net.slope(x - 0.2), 8, 8, slope=nn.PReLU(8)),
    "instance norm": lambda: join_by(lambda net, x: net.norm(x), 8, 8, norm=nn.InstanceNorm2d(8)),
    "instance norm with statistics": lambda: join_by(
        lambda net, x: net.norm(x), 8, 8, norm=nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
    ),
    "group norm": lambda: join_by(lambda net, x: net.norm(x), 8, 8, norm=nn.GroupNorm(4, 8)),
    "group norm of one group": lambda: join_by(lambda net, x: net.norm(x), 8, 8, norm=nn.GroupNorm(1, 8)),
    "group norm of single channels": lambda: join_by(lambda net, x: net.norm(x), 8, 8, norm=nn.GroupNorm(8, 8)),
    "layer norm of maps": lambda: join_by(lambda net, x: net.norm(x), 8, 8, norm=nn.LayerNorm([8, 8, 8])),
    "layer norm over channels": lambda: join_by(
        lambda net, x: net.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 8, 8, norm=nn.LayerNorm(8)
    ),
    "softmax over channels": lambda: join_by(lambda net, x: 8 * torch.softmax(x, 1), 8, 8),
    "normalised": lambda: join_by(lambda net, x: F.normalize(x, dim=1), 8, 8),
    "spatial attention": lambda: join_by(
        lambda net, x: x * torch.sigmoid(net.look(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1))),
        8, 8, look=nn.Conv2d(2, 1, 3, padding=1),
    ),
    "transposed": lambda: join_by(lambda net, x: net.up(x), 8, 6, up=nn.ConvTranspose2d(8, 6, 4, 2, 1)),
    "transposed in groups": lambda: join_by(lambda net, x: net.up(x), 8, 12, up=nn.ConvTranspose2d(8, 12, 4, 2, 1, groups=4)),
    "transposed depthwise": lambda: join_by(lambda net, x: net.up(x), 8, 8, up=nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=8)),
    "depthwise with a multiplier": lambda: join_by(lambda net, x: net.deep(x), 6, 12, deep=nn.Conv2d(6, 12, 3, padding=1, groups=6)),
    "groups of several inputs": lambda: join_by(lambda net, x: net.deep(x), 12, 6, deep=nn.Conv2d(12, 6, 3, padding=1, groups=6)),
    "squeeze and excitation": lambda: join_by(squeeze, 8, 8, down=nn.Linear(8, 4), up=nn.Linear(4, 8)),
    "selective kernels": lambda: join_by(
        select, 8, 6, small=conv_bn(8, 6), large=conv_bn(8, 6, kernel=5), squeeze=nn.Linear(6, 4), choose=nn.Linear(4, 12)
    ),
    "layer scale": lambda: join_by(
        lambda net, x: x + net.scale[:, None, None] * net.body(x), 8, 8, body=nn.Conv2d(8, 8, 1), scale=nn.Parameter(0.3 * torch.ones(8))
    ),
    "broadcast mask": lambda: join_by(lambda net, x: x * torch.sigmoid(net.mask(x)), 8, 8, mask=nn.Conv2d(8, 1, 1)),
    "einsum": lambda: join_by(
        lambda net, x: torch.einsum("oc,bchw->bohw", net.matrix, x), 8, 10, matrix=nn.Parameter(0.3 * torch.randn(10, 8))
    ),
    "maximum of pairs": lambda: join_by(lambda net, x: x.unflatten(1, (-1, 2)).amax(2), 8, 4),
    "repeated": lambda: join_by(lambda net, x: x.repeat(1, 2, 1, 1), 6, 12),
    "context": lambda: join_by(
        lambda net, x: x + (x.flatten(2) @ torch.softmax(net.look(x).flatten(2), -1).transpose(1, 2)).unsqueeze(-1),
        8, 8, look=nn.Conv2d(8, 1, 1),
    ),
    "weight standardisation": lambda: join_by(lambda net, x: torch.relu(net.conv(x)), 8, 8, conv=Standardised(8, 8, 3, padding=1)),
    "adapted linear": lambda: Wired(
        lambda net, x: net.head(torch.relu(net.second(torch.relu(net.first(x.flatten(1)))))),
        first=Adapted(192, 12), second=Adapted(12, 10), head=head(10),
    ),
    "older weight and spectral norm": make_older_norms,
    "weight and spectral norm": make_newer_norms,
    "shared weight": make_tied,
    "one module twice": lambda: Wired(
        lambda net, x: net.head(pool(net.last(net.again(net.again(net.first(x)))))),
        first=conv_bn(3, 8), again=conv_bn(8, 8), last=conv_bn(8, 12), head=head(12),
    ),
    "second answer in training": Auxiliary,
    "embedding of positions": lambda: Wired(
        lambda net, x: net.head(torch.relu(net.last(net.first(x[:, 0]) + net.places(torch.arange(8, device=x.device)))).mean(1)),
        first=nn.Linear(8, 10), places=nn.Embedding(8, 10), last=nn.Linear(10, 12), head=head(12),
    ),
    "attention, heads in the code": lambda: tokens(4, named=False),
    "attention, sizes in the code": lambda: tokens(4, named=True),
    "attention, shared keys": lambda: Wired(
        grouped_queries,
        embed=nn.Linear(3, 12), q=nn.Linear(12, 16), k=nn.Linear(12, 8), v=nn.Linear(12, 8), o=nn.Linear(16, 12), head=head(12),
    ),
    "attention of torch": lambda: Wired(
        multihead, embed=nn.Linear(3, 16), attend=nn.MultiheadAttention(16, 4, batch_first=True), head=head(16)
    ),
    "GRU": lambda: recurrent(nn.GRU(10, 12, batch_first=True), 12),
    "two-way LSTM of two layers": lambda: recurrent(nn.LSTM(10, 6, 2, batch_first=True, bidirectional=True), 12),
}  # fmt: skip
"""Networks by what is special about them; all take ``IMAGE`` and give ``CLASSES`` numbers."""

EXAMPLE = torch.randn(1, *IMAGE, generator=torch.Generator().manual_seed(3))
