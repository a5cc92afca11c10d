"""Sums with weights: convolutions, products of matrices, attention."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from methods.network.labels import FREE, Classes, Dim
from methods.network.propagation import (
    Propagation,
    Rule,
    Widths,
    carry_over,
    is_raw,
    list_tensors,
    read_arguments,
    use_for,
)
from methods.network.tape import Op


def _convolution(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    x, weight, bias = arguments["input"], arguments["weight"], arguments["bias"]
    transposed, groups = arguments["transposed"], arguments["groups"]
    spatial = len(weight.shape) - 2
    xs, ws, place = list(state.get(x)), list(state.get(weight)), len(x.shape) - spatial - 1
    for dim in xs[place + 1 :]:
        state.pin_position(dim)
    for k in range(2, len(ws)):
        ws[k] = state.pin_dim(ws[k], "slides over an image")
    out, channels = op.outputs[0], xs[place]
    width = out.shape[place]
    positions = math.prod((x if transposed else out).shape[place + 1 :]) * math.prod(weight.shape[2:])
    examples = math.prod(x.shape[:place])
    made, taken = (ws[1], ws[0]) if transposed else (ws[0], ws[1])
    group_labels: Classes | None = None
    if groups == 1:
        state.contract(channels, taken)
        produced = made
        if not is_raw(weight):
            state.couple([channels])
    else:
        produced, group_labels = _tie_grouped(state, channels, made, taken, x.shape[place], width, groups, transposed)
        state.reads |= set() if group_labels is not None else taken.sources
        if group_labels is not None:
            state.group_labels[op] = group_labels
        if not is_raw(weight):
            state.couple([channels])
    ws = list(state.get(weight))
    if bias is not None and width > 1:
        produced = state.unite([produced, state.get(bias)[0]])
    state.term(positions * examples, [(ws[0], weight.shape[0]), (ws[1], weight.shape[1])])
    state.widths.append(Widths(state.layer(weight), channels.labels, produced.labels, group_labels))
    state.dims[out] = [*xs[:place], replace(produced, sources=frozenset()), *[FREE] * spatial]


def _tie_grouped(
    state: Propagation, channels: Dim, made: Dim, taken: Dim, inputs: int, outputs: int, groups: int, transposed: bool
) -> tuple[Dim, Classes | None]:
    """Tie the channels of a grouped convolution so that its groups stay equal, or go as a whole."""
    why = state.explain("has groups of channels")
    reads, gives = inputs // groups, outputs // groups
    labels = channels.labels
    if reads == 1 or gives == 1:  # whole groups go: depthwise convolutions and the like
        inner = taken if not transposed else made
        state.pin_dim(inner, "keeps its groups as they are")
        outer = made if not transposed else taken
        rows = outer.labels
        if rows is None:
            state.pin_dim(channels, "has groups of channels")
            return FREE, None
        whole = state.classes.tie(rows.reshape(groups, -1), why).copy()
        if labels is None:
            state.classes.pin(whole, state.explain("reads channels of a fixed number, such as the network's input"))
            return (made if not transposed else FREE), None
        state.classes.union(np.repeat(whole, reads), labels, why)
        produced = made if not transposed else Dim(np.repeat(whole, gives))
        return produced, whole
    if labels is None:
        state.pin_dim(taken, "reads channels of a fixed number, such as the network's input")
    else:  # the same positions of every group
        tied = state.classes.tie(labels.reshape(groups, -1).T, why)
        if transposed:
            state.contract(channels, taken)
        elif taken.labels is None:
            state.classes.pin(tied, why)
        else:
            state.classes.union(tied, taken.labels, why)
    if transposed:
        return Dim(None if made.labels is None else np.tile(made.labels, groups)), None
    if made.labels is not None:
        state.classes.tie(made.labels.reshape(groups, -1).T, why)
    return made, None


def _multiply(state: Propagation, op: Op) -> None:
    """Products of matrices and vectors, alone, in batches or added to something."""
    tensors = list_tensors(op)
    added = tensors[0] if op.name.removesuffix("_") in {"addmm", "baddbmm", "addmv", "addbmm"} else None
    left, right = tensors[-2:]
    a, b = list(state.get(left)), list(state.get(right))
    state.contract(a[-1], b[-2 if len(b) > 1 else -1])
    batches = []
    if len(a) == 3 and len(b) == 3:
        state.note_heads([a[0], b[0]])
        batches = [state.unite([a[0], b[0]], "multiplies matrices one by one")]
    if not is_raw(left) and not is_raw(right):
        state.couple([a[-1]])
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else []
    dims = [*batches, *rows, *columns]
    inner = (a[-1] if a[-1].labels is not None else b[-2 if len(b) > 1 else -1], left.shape[-1])
    sizes = [(dim, size) for dim, size in zip(dims, op.outputs[0].shape, strict=False)]
    if op.name.removesuffix("_") not in {"mv", "addmv", "dot", "vdot"}:  # what the counter of torch counts
        state.term(1, [*sizes, inner])
    if is_raw(right) and left.from_input and len(b) == 2 and len(a) == 2:
        state.widths.append(Widths(state.layer(right), a[-1].labels, b[-1].labels))
    if added is not None:
        extra = state.get(added)
        for k, size in enumerate(op.outputs[0].shape):
            place = k - len(dims) + len(extra)
            if place >= 0 and added.shape[place] == size and size > 1:
                dims[k] = state.unite([dims[k], extra[place]])
    carry_over(state, op, dims)


def _attention(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    q, k, v = arguments["query"], arguments["key"], arguments["value"]
    mask = arguments.get("attn_mask", arguments.get("attn_bias"))
    qs, ks, vs = (list(state.get(each)) for each in (q, k, v))
    heads = []
    for place in range(len(qs) - 2):
        if q.shape[place] == k.shape[place]:
            heads.append(state.unite([qs[place], ks[place], vs[place]], "multiplies matrices one by one"))
            continue
        few = state.unite([ks[place], vs[place]])  # several queries share a key
        times = q.shape[place] // k.shape[place]
        spread = few if few.labels is None else few.relabel(np.repeat(few.labels, times))
        heads.append(state.unite([qs[place], spread], "shares keys between heads"))
    state.note_heads([dim for dim in (*qs[:-2], *ks[:-2], *vs[:-2]) if not dim.batch or dim.parts])
    if arguments.get("scale") is None:  # the default looks at the width of a head
        for dim in (qs[-1], ks[-1]):
            state.pin_dim(dim, "scales by the width of a head")
    state.contract(qs[-1], ks[-1])
    state.contract(ks[-2], vs[-2])
    state.couple([qs[-1], ks[-2]])
    if mask is not None:
        for place, dim in enumerate(state.get(mask)):
            back = place - len(mask.shape)
            if mask.shape[place] == 1:
                continue
            if back >= -2:
                state.pin_dim(dim, "masks positions")
            else:
                heads[back + 2] = state.unite([heads[back + 2], dim])
    batch = list(zip(heads, q.shape[:-2], strict=True))
    rows, columns = (qs[-2], q.shape[-2]), (ks[-2], k.shape[-2])
    state.term(1, [*batch, rows, columns, (qs[-1], q.shape[-1])])
    state.term(1, [*batch, rows, columns, (vs[-1], v.shape[-1])])
    for value in op.outputs:
        state.dims[value] = [FREE] * len(value.shape)
    state.dims[op.outputs[0]] = [*heads, qs[-2], vs[-1]]


RULES: dict[str, Rule] = {
    **use_for(_convolution, "convolution"),
    **use_for(_multiply, "mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "vdot"),
    **use_for(_attention, "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_attention_math",
    ),
}  # fmt: skip
