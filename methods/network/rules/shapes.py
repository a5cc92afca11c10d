"""Operations that change the shape of a tensor and no number in it: views, slices, parts put together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from methods.network.labels import FREE, Dim
from methods.network.propagation import (
    Propagation,
    Rule,
    carry_over,
    list_tensors,
    pin_all,
    read_arguments,
    use_for,
)
from methods.network.tape import Op, sequence


def _view(state: Propagation, op: Op) -> None:
    source = list_tensors(op)[0]
    for value in op.outputs:
        state.dims[value] = state.reshape(state.get(source), source.shape, value.shape)


def _restride(state: Propagation, op: Op) -> None:
    """Another order in memory of the same tensor; anything else is not understood."""
    source = list_tensors(op)[0]
    if all(value.shape == source.shape for value in op.outputs):
        carry_over(state, op, state.get(source))
    else:
        pin_all(state, op)


def _permute(state: Propagation, op: Op) -> None:
    source = list_tensors(op)[0]
    arguments, n = read_arguments(op), len(source.shape)
    order = list(range(n))
    if "dims" in arguments:
        order = [dim % n for dim in arguments["dims"]]
    elif "dim0" in arguments:
        a, b = arguments["dim0"] % n, arguments["dim1"] % n
        order[a], order[b] = order[b], order[a]
    elif n == 2:  # t
        order = [1, 0]
    dims = state.get(source)
    carry_over(state, op, [dims[k] for k in order])


def _expand(state: Propagation, op: Op) -> None:
    source, out = list_tensors(op)[0], op.outputs[0]
    dims, extra = state.get(source), len(out.shape) - len(source.shape)
    state.dims[out] = [
        dims[k - extra] if k >= extra and source.shape[k - extra] == size else state.label_new([size])[0]
        for k, size in enumerate(out.shape)
    ]


def _slice(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    source, step = arguments["self"], arguments.get("step") or 1
    dims, k = list(state.get(source)), arguments["dim"] % len(source.shape)
    size, dim = source.shape[k], dims[k]
    start, stop, _ = slice(arguments["start"], arguments["end"], None).indices(size)
    labels = state.classes.live(dim.labels)
    if labels is not None and step > 1:
        if size % step or start >= step or stop < size:
            state.pin_dim(dim, f"takes every {step}th channel of {size}")
            labels = None
        else:
            state.classes.tie(labels.reshape(-1, step), state.explain("takes every so manyth channel"))
    if labels is not None and stop - start == 1 < size:
        state.classes.pin(labels[start:stop], state.explain("picks a single channel"))
    dims[k] = replace(dim, labels=None if labels is None else labels[start:stop:step])
    carry_over(state, op, dims)


def _select(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    source = arguments["self"]
    dims, k = list(state.get(source)), arguments["dim"] % len(source.shape)
    picked = dims.pop(k)
    if op.name == "select" and op.call is not None and op.call.function == "__getitem__":
        labels, index = state.classes.live(picked.labels), arguments["index"]
        state.classes.pin(
            None if labels is None else labels[index : index + 1 or None], state.explain("picks one channel")
        )
    else:
        state.pin_dim(picked, "picks single channels")
    carry_over(state, op, dims)


def _split(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    source = arguments["self"]
    dims, k = list(state.get(source)), arguments["dim"] % len(source.shape)
    dim, size = dims[k], source.shape[k]
    labels = state.classes.live(dim.labels)
    each = arguments.get("split_size")
    if labels is not None and isinstance(each, int) and each < size:
        if size % each:
            state.pin_dim(dim, f"splits {size} channels into parts of {each}")
            labels = None
        else:  # equal parts stay equal
            state.classes.tie(labels.reshape(-1, each).T, state.explain("splits the channels into equal parts"))
    start = 0
    for value in op.outputs:
        width = value.shape[k]
        part = replace(dim, labels=None if labels is None else labels[start : start + width])
        state.dims[value] = [*dims[:k], part, *dims[k + 1 :]]
        start += width


def _cat(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    parts = [value for value in arguments["tensors"] if value.shape != (0,)]
    out, n = op.outputs[0], len(op.outputs[0].shape)
    k = arguments["dim"] % n
    result = []
    for place in range(n):
        meeting = [state.get(value)[place] for value in parts]
        if place != k:
            result.append(state.unite(meeting))
            continue
        found = [
            np.zeros(value.shape[k], dtype=np.int64) if dim.labels is None else dim.labels
            for value, dim in zip(parts, meeting, strict=True)
        ]
        labels = np.concatenate(found) if any(dim.labels is not None for dim in meeting) else None
        result.append(Dim(labels, any(dim.batch for dim in meeting)))
    state.dims[out] = result


def _stack(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    parts, n = arguments["tensors"], len(op.outputs[0].shape)
    dims = [state.unite([state.get(value)[place] for value in parts]) for place in range(n - 1)]
    dims.insert(arguments["dim"] % n, FREE)
    carry_over(state, op, dims)


def _pad(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    source, pads = arguments["self"], list(arguments["pad"])
    dims = list(state.get(source))
    for k in range(len(pads) // 2):
        place = len(dims) - 1 - k
        front, back = pads[2 * k], pads[2 * k + 1]
        labels = dims[place].labels
        if labels is None or front == back == 0:
            continue
        labels = labels[max(0, -front) : len(labels) - max(0, -back)]
        # Channels of a constant can be added in any number.
        around = [
            state.classes.make_classes(max(0, front), False),
            labels,
            state.classes.make_classes(max(0, back), False),
        ]
        dims[place] = replace(dims[place], labels=np.concatenate(around))
    carry_over(state, op, dims)


def _flip(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    dims = list(state.get(arguments["self"]))
    for k in arguments["dims"]:
        if (labels := dims[k].labels) is not None:
            dims[k] = dims[k].relabel(labels[::-1].copy())
    carry_over(state, op, dims)


def _roll(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    dims, places = list(state.get(arguments["self"])), list(sequence(arguments["dims"]))
    if not places:
        dims = [state.pin_dim(dim, "rolls over all dimensions at once") for dim in dims]
    for shift, k in zip(sequence(arguments["shifts"]), places, strict=False):
        if (labels := dims[k].labels) is not None:
            dims[k] = dims[k].relabel(np.roll(labels, shift))
    carry_over(state, op, dims)


def _repeat(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    source, times = arguments["self"], list(arguments["repeats"])
    dims = [FREE] * (len(times) - len(source.shape)) + list(state.get(source))
    result = []
    shape = [1] * (len(times) - len(source.shape)) + list(source.shape)
    for dim, count, size in zip(dims, times, shape, strict=True):
        if size == 1 and count > 1:  # any number of equal channels
            result += [replace(each, batch=dim.batch) for each in state.label_new([count])]
            continue
        labels = None if dim.labels is None else np.tile(dim.labels, count)
        result.append(replace(dim, labels=labels, sources=dim.sources if count == 1 else frozenset()))
    carry_over(state, op, result)


RULES: dict[str, Rule] = {
    **use_for(
        _view, "view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "flatten", "unflatten", "_reshape_alias",
    ),
    **use_for(_restride, "as_strided", "as_strided_"),
    **use_for(_permute, "permute", "transpose", "t", "numpy_T"),
    **use_for(_expand, "expand"),
    **use_for(_slice, "slice"),
    **use_for(_select, "select", "unbind"),
    **use_for(_split, "split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "split_with_sizes_copy"),
    **use_for(_cat, "cat"),
    **use_for(_stack, "stack"),
    **use_for(_pad, "constant_pad_nd"),
    **use_for(_flip, "flip"),
    **use_for(_roll, "roll"),
    **use_for(_repeat, "repeat"),
}  # fmt: skip
