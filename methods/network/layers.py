"""Layers of ours that take part in cutting and rebuilding, beside those of ``torch.nn``."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ZeroPadShortcut(nn.Module):
    """Parameter-free shortcut of CIFAR residual networks: subsample, then add channels of zeros.

    He, Zhang, Ren, Sun (2016), section 4.2, option A. Output channel ``o`` carries input channel
    ``source[o]``, or zeros where ``source[o] == in_channels``. Input and output channels can therefore be
    removed independently, as with a convolution, which keeps the stages of the network uncoupled.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out; at least ``in_channels``. The zeros are spread evenly on both
            sides.
        stride: Every how many pixels one is kept, in both directions.

    Raises:
        ValueError: If ``out_channels < in_channels``.
    """

    source: Tensor

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        if out_channels < in_channels:
            raise ValueError(f"out_channels = {out_channels} must be at least in_channels = {in_channels}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        front = (out_channels - in_channels) // 2
        source = torch.full((out_channels,), in_channels, dtype=torch.long)
        source[front : front + in_channels] = torch.arange(in_channels)
        self.register_buffer("source", source)

    def forward(self, x: Tensor) -> Tensor:
        """Subsample and pad.

        Args:
            x: Activations ``[batch, in_channels, height, width]``.

        Returns:
            ``[batch, out_channels, height / stride, width / stride]``, rounded up.
        """
        # A 1-pixel average pool is a strided copy that the tracer of channel dependencies reads as
        # elementwise; slicing would be read as slicing of channels.
        pixels = F.avg_pool2d(x, 1, self.stride)
        return F.pad(pixels, (0, 0, 0, 0, 0, 1)).index_select(1, self.source)

    def drop_inputs(self, index: list[int]) -> None:
        """Remove input channels; outputs that carried them become zero.

        Args:
            index: Input channels to remove.
        """
        kept = [c for c in range(self.in_channels) if c not in set(index)]
        # Position of each old input channel among the kept ones; dropped ones and zeros point at the pad.
        position = torch.full((self.in_channels + 1,), len(kept), dtype=torch.long)
        position[torch.tensor(kept, dtype=torch.long)] = torch.arange(len(kept))
        self.source = position.to(self.source.device)[self.source]
        self.in_channels = len(kept)

    def drop_outputs(self, index: list[int]) -> None:
        """Remove output channels.

        Args:
            index: Output channels to remove.
        """
        kept = [c for c in range(self.out_channels) if c not in set(index)]
        self.source = self.source[torch.tensor(kept, dtype=torch.long, device=self.source.device)]
        self.out_channels = len(kept)

    def silence(self, index: Tensor, side: Literal["out", "in"]) -> None:
        """Make channels carry zeros without removing them.

        Args:
            index: Channels to silence, ``[n]``.
            side: Whether ``index`` counts output or input channels.
        """
        silent = torch.isin(self.source, index) if side == "in" else torch.zeros_like(self.source, dtype=torch.bool)
        if side == "out":
            silent[index] = True
        self.source = self.source.masked_fill(silent, self.in_channels)


class CutAttention(nn.MultiheadAttention):
    """Multi-head attention whose heads together need not be as wide as what it reads.

    ``nn.MultiheadAttention`` has ``embed_dim / num_heads`` columns in every head, so that neither heads nor embedding
    can lose anything alone. Here widths are free. The parameters have the same names.

    Args:
        query: Width of queries.
        key: Width of keys.
        value: Width of values.
        out: Width of the result.
        num_heads: Number of heads.
        head_dim: Columns of each head.
        bias: Whether the projections have biases.
        packed: Whether the three projections are one parameter; the widths of queries, keys and values are the same
            then.
        dropout: Probability that a weight of attention is left out in training.
        batch_first: Whether inputs are ``[batch, length, width]``.
    """

    def __init__(
        self,
        query: int,
        key: int,
        value: int,
        out: int,
        num_heads: int,
        head_dim: int,
        bias: bool = True,
        packed: bool = True,
        dropout: float = 0.0,
        batch_first: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        inner = num_heads * head_dim
        self.embed_dim, self.kdim, self.vdim = query, key, value
        self.num_heads, self.head_dim = num_heads, head_dim
        self.dropout, self.batch_first, self.add_zero_attn = dropout, batch_first, False
        self._qkv_same_embed_dim = False  # torch's own fast paths, which suppose the usual widths, ask for this
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        if packed:
            self.in_proj_weight = nn.Parameter(torch.empty(3 * inner, query))
            for name in names:
                self.register_parameter(name, None)
        else:
            self.register_parameter("in_proj_weight", None)
            for name, width in zip(names, (query, key, value), strict=True):
                self.register_parameter(name, nn.Parameter(torch.empty(inner, width)))
        if bias:
            self.in_proj_bias = nn.Parameter(torch.zeros(3 * inner))
        else:
            self.register_parameter("in_proj_bias", None)
        self.out_proj = nn.modules.linear.NonDynamicallyQuantizableLinear(inner, out, bias=bias)
        self.bias_k = self.bias_v = None
        for parameter in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if parameter is not None:
                nn.init.xavier_uniform_(parameter)

    @classmethod
    def from_attention(cls, attention: nn.MultiheadAttention, num_heads: int) -> CutAttention:
        """Take over the parameters of an attention that has been cut.

        Args:
            attention: Its parameters have their new shapes already; they are shared.
            num_heads: How many heads are left.

        Returns:
            The layer that computes with them.
        """
        packed = attention.in_proj_weight is not None
        columns = (
            [attention.in_proj_weight] * 3
            if packed
            else [
                attention.q_proj_weight,
                attention.k_proj_weight,
                attention.v_proj_weight,
            ]
        )
        widths = [weight.shape[1] for weight in columns if weight is not None]
        out, inner = attention.out_proj.weight.shape
        with torch.device("meta"):
            layer = cls(
                widths[0],
                widths[1],
                widths[2],
                out=out,
                num_heads=num_heads,
                head_dim=inner // num_heads,
                bias=attention.in_proj_bias is not None,
                packed=packed,
                dropout=attention.dropout,
                batch_first=attention.batch_first,
            )
        for name, parameter in attention._parameters.items():
            layer._parameters[name] = parameter
        for name, parameter in attention.out_proj._parameters.items():
            layer.out_proj._parameters[name] = parameter
        return layer.train(attention.training)

    def settings(self) -> dict[str, int | float | bool]:
        """Return the arguments that build a layer of these shapes.

        Returns:
            Keyword arguments.
        """
        return {
            "query": self.embed_dim,
            "key": int(self.kdim or 0),
            "value": int(self.vdim or 0),
            "out": self.out_proj.weight.shape[0],
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "bias": self.in_proj_bias is not None,
            "packed": self.in_proj_weight is not None,
            "dropout": self.dropout,
            "batch_first": self.batch_first,
        }

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            query: ``[length, batch, width]``, with the batch first or left out as for ``nn.MultiheadAttention``.
            key: Likewise.
            value: Likewise.
            key_padding_mask: Which keys are left out (truth values), or what is added to their scores,
                ``[batch, keys]``.
            need_weights: Whether the weights are returned too.
            attn_mask: The same for each pair, ``[queries, keys]`` or ``[batch * heads, queries, keys]``.
            average_attn_weights: Whether the weights are averaged over the heads.
            is_causal: A hint that ``attn_mask`` is causal; the mask decides.

        Returns:
            The result, shaped as ``query``, and the weights if they are needed.
        """
        single = query.dim() == 2
        if single:
            query, key, value = (each.unsqueeze(0) for each in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif not self.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        q, k, v = (self._heads(each, part) for part, each in enumerate((query, key, value)))
        mask = self._mask(attn_mask, key_padding_mask, q, k)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
            weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            weights = F.dropout(weights, dropout)
            out = weights @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        result: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if single:
            return result[0], None if weights is None else weights[0]
        return (result if self.batch_first else result.transpose(0, 1)), weights

    def _heads(self, inputs: Tensor, part: int) -> Tensor:
        """Project to ``[batch, heads, length, head_dim]``."""
        inner = self.num_heads * self.head_dim
        rows = slice(part * inner, (part + 1) * inner)
        if self.in_proj_weight is not None:
            weight = self.in_proj_weight[rows]
        else:
            weight = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)[part]
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        heads: Tensor = F.linear(inputs, weight, bias).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
        return heads

    def _mask(self, pairs: Tensor | None, keys: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
        """Add both masks up to what is added to the scores, ``[batch or 1, heads or 1, queries or 1, keys]``."""
        total: Tensor | None = None
        if pairs is not None:
            pairs = _addends(pairs, q.dtype)
            per_head = (q.shape[0], self.num_heads, q.shape[2], k.shape[2])
            total = pairs[None, None] if pairs.dim() == 2 else pairs.view(per_head)
        if keys is not None:
            padding = _addends(keys, q.dtype)[:, None, None, :]
            total = padding if total is None else total + padding
        return total


def _addends(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask as what is added to scores."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))


class Zeros(nn.Module):
    """Gives nothing, in the shape of what it is given: the end of a residual branch that was taken out."""

    def forward(self, x: Tensor) -> Tensor:
        """Give zeros.

        Args:
            x: Activations of any shape.

        Returns:
            Zeros of the same shape and kind.
        """
        return torch.zeros_like(x)
