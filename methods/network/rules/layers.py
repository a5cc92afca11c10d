"""Modules that are one operation: attention with its projections, recurrent layers, padded shortcuts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from methods.network.labels import FREE, Classes, Dim
from methods.network.layers import ZeroPadShortcut
from methods.network.propagation import (
    Propagation,
    Rule,
    Widths,
    carry_over,
    list_tensors,
    use_for,
)
from methods.network.tape import Op, Value


def _leaf(state: Propagation, op: Op) -> None:
    module = op.target
    if isinstance(module, ZeroPadShortcut):
        _shortcut(state, op)
    elif isinstance(module, nn.MultiheadAttention):
        _multihead(state, op)
    else:
        _recurrent(state, op)


def _label_own(state: Propagation, op: Op, name: str, shape: Sequence[int]) -> list[Dim]:
    own = dict(op.target.named_parameters()) | dict(op.target.named_buffers())
    return state.get(Value(tuple(shape), state.names[id(own[name])]))


def _shortcut(state: Propagation, op: Op) -> None:
    module, x = op.target, list_tensors(op)[0]
    dims = list(state.get(x))
    taken = dims[1].labels
    if taken is None:
        state.pin_dim(_label_own(state, op, "source", module.source.shape)[0], "reads channels of a fixed number")
    made = _label_own(state, op, "source", module.source.shape)[0]
    state.widths.append(Widths(op.module, taken, made.labels))
    carry_over(state, op, [dims[0], replace(made, sources=frozenset()), FREE, FREE])


def _multihead(state: Propagation, op: Op) -> None:
    module = op.target
    names = ("query", "key", "value")
    given = dict(zip(names, op.args, strict=False)) | {n: v for n, v in op.kwargs.items() if n in names}
    query, key, value = (given[name] for name in names)
    features = [state.get(each)[-1] for each in (query, key, value)]
    heads, width = module.num_heads, module.embed_dim
    every = np.arange(width).reshape(heads, -1)
    plain = module.bias_k is None and not module.add_zero_attn
    out_weight = _label_own(state, op, "out_proj.weight", (width, width))
    by_head = state.classes.make_classes(heads)
    if not plain:
        state.classes.pin(by_head, state.explain("adds keys of its own"))
    spread = np.empty(width, dtype=np.int64)
    spread[every] = by_head[:, None]
    said = state.explain("keeps the columns of a head together")

    def join(dim: Dim, labels: Classes) -> None:
        if dim.labels is not None:
            state.classes.union(dim.labels, labels, said)

    if module.in_proj_weight is not None:
        rows, columns = _label_own(state, op, "in_proj_weight", module.in_proj_weight.shape)
        join(rows, np.tile(spread, 3))
        for feature in features:
            state.contract(feature, columns)
    else:
        for kind, feature in zip("qkv", features, strict=True):
            weight = getattr(module, f"{kind}_proj_weight")
            rows, columns = _label_own(state, op, f"{kind}_proj_weight", weight.shape)
            join(rows, spread)
            state.contract(feature, columns)
    if module.in_proj_bias is not None:
        join(_label_own(state, op, "in_proj_bias", module.in_proj_bias.shape)[0], np.tile(spread, 3))
    join(out_weight[1], spread)
    state.reads |= out_weight[1].sources
    made = out_weight[0]
    if module.out_proj.bias is not None and width > 1:
        made = state.unite([made, _label_own(state, op, "out_proj.bias", (width,))[0]])
    state.widths.append(Widths(op.module, features[0].labels, made.labels, by_head))
    length, source = (-2, -2) if module.batch_first or len(query.shape) == 2 else (0, 0)
    examples = math.prod(query.shape[:-1]) // query.shape[length]
    rows_q, rows_k = query.shape[length], key.shape[source]
    inside, made_dim = (Dim(spread), width), (made, width)
    for feature, each in zip(features, (query, key, value), strict=True):
        state.term(math.prod(each.shape[:-1]), [(feature, each.shape[-1]), inside])
    state.term(2 * examples * rows_q * rows_k, [inside])
    state.term(examples * rows_q, [inside, made_dim])
    state.dims[op.outputs[0]] = [*state.get(query)[:-1], replace(made, sources=frozenset())]
    for other in op.outputs[1:]:  # the weights of attention
        if len(other.shape) == 4:
            state.classes.pin(by_head, state.explain("gives the weights of every head"))


def _recurrent(state: Propagation, op: Op) -> None:
    module, x = op.target, list_tensors(op)[0]
    dims = list(state.get(x))
    hidden, gates = module.hidden_size, {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    ways = 2 if module.bidirectional else 1
    units = state.classes.make_classes(hidden)  # every layer and direction has the same width
    if module.proj_size or len(list_tensors(op)) > 1:
        state.classes.pin(units, state.explain("projects its state, or is given one"))
    said = state.explain("repeats one state in all its gates")
    taken = dims[-1]

    def join(name: str, shape: Sequence[int], dim: int, labels: Classes) -> None:
        own = _label_own(state, op, name, shape)[dim]
        if own.labels is not None:
            state.classes.union(own.labels, labels, said)
            if dim == 1:
                state.reads |= own.sources

    steps = math.prod(x.shape[:-1])
    for layer in range(module.num_layers):
        for way in range(ways):
            end = f"l{layer}{'_reverse' * way}"
            taking, feeding = getattr(module, f"weight_ih_{end}"), getattr(module, f"weight_hh_{end}")
            join(f"weight_ih_{end}", taking.shape, 0, np.tile(units, gates))
            join(f"weight_hh_{end}", feeding.shape, 0, np.tile(units, gates))
            if not module.proj_size:
                join(f"weight_hh_{end}", feeding.shape, 1, units)
            if module.bias:
                for kind in ("bias_ih", "bias_hh"):
                    join(f"{kind}_{end}", getattr(module, f"{kind}_{end}").shape, 0, np.tile(units, gates))
            if layer == 0:
                state.contract(taken, _label_own(state, op, f"weight_ih_{end}", taking.shape)[1])
                before: tuple[Dim, int] = (taken, x.shape[-1])
            else:
                if not module.proj_size:
                    join(f"weight_ih_{end}", taking.shape, 1, np.tile(units, ways))
                before = (FREE if module.proj_size else Dim(np.tile(units, ways)), taking.shape[1])
            state.term(steps, [(Dim(np.tile(units, gates)), gates * hidden), before])
            state_dim = FREE if module.proj_size else Dim(units)
            state.term(steps, [(Dim(np.tile(units, gates)), gates * hidden), (state_dim, feeding.shape[1])])
            if module.proj_size:
                state.term(steps, [(FREE, module.proj_size), (Dim(units), hidden)])
    made = np.tile(units, ways) if not module.proj_size else None
    state.widths.append(Widths(op.module, taken.labels, made, None))
    for number, value in enumerate(op.outputs):
        last = made if number == 0 else (None if module.proj_size else units)
        state.dims[value] = [FREE] * (len(value.shape) - 1) + [Dim(last)]


RULES: dict[str, Rule] = {
    **use_for(_leaf, "leaf"),
}  # fmt: skip
