"""Operations that take channels for positions, or positions for channels: indices, shuffles, patches of images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from methods.network.labels import FREE, Dim
from methods.network.propagation import (
    Propagation,
    Rule,
    carry_over,
    list_tensors,
    read_arguments,
    use_for,
)
from methods.network.tape import Op, Value, sequence


def _index(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    source = arguments["self"]
    indices = list(arguments["indices"] if "indices" in arguments else ())
    if "index" in arguments:  # index_select
        indices = [None] * (arguments["dim"] % len(source.shape)) + [arguments["index"]]
    dims = list(state.get(source))
    used = [k for k, index in enumerate(indices) if index is not None]
    out = op.outputs[0]
    if len(used) == 1 and indices[used[0]].numbers is not None:
        k = used[0]
        table: Value = indices[k]
        numbers, dim = table.numbers, dims[k]
        assert numbers is not None
        labels = state.classes.live(dim.labels)
        own = state.get(table)
        if labels is None:
            for each in own:
                state.pin_dim(each, "reads positions that all stay")
            result = [replace(FREE, batch=each.batch) for each in own] if numbers.dtype != bool else [FREE]
        elif numbers.dtype == bool or numbers.ndim == 0:
            state.pin_dim(dim, "picks single channels")
            result = [FREE] * (len(out.shape) - len(dims) + 1)
        else:
            flat = labels[numbers.reshape(-1)]
            result = state.reshape([Dim(flat)], (numbers.size,), numbers.shape)
            if table.tensor is not None:  # its entries go with what they pick, and count what is left
                result = [state.unite([one, other]) for one, other in zip(result, own, strict=True)]
                state.tables.append((table.tensor, labels))
            elif op.call is None or op.call.function not in {"__getitem__", "index_select"}:
                state.pin_dim(dim, "picks channels by numbers that cannot be counted again")
                result = [FREE] * numbers.ndim
        state.dims[out] = [*dims[:k], *result, *dims[k + 1 :]]
        return
    for k in used:
        state.pin_dim(dims[k], "picks channels by their numbers")
        for dim in state.get(indices[k]):
            state.pin_dim(dim, "picks channels by their numbers")
    rest = [dim for k, dim in enumerate(dims) if k not in used]
    count = len(out.shape) - len(rest)
    front = used[0] if used and used == list(range(used[0], used[-1] + 1)) else 0
    state.dims[out] = [*rest[:front], *[FREE] * count, *rest[front:]]


def _embedding(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    weight, index = arguments["weight"], arguments["indices"]
    rows, columns = state.get(weight)
    state.pin_dim(rows, "looks rows up by their numbers")
    for dim in state.get(index):
        state.pin_dim(dim, "looks rows up by their numbers")
    carry_over(state, op, [*(replace(FREE, batch=dim.batch) for dim in state.get(index)), columns])


def _glu(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    source = arguments["self"]
    dims, k = list(state.get(source)), arguments.get("dim", -1) % len(source.shape)
    if (labels := dims[k].labels) is not None:
        half = len(labels) // 2
        state.classes.union(labels[:half], labels[half:], state.explain("gates one half by the other"))
        dims[k] = dims[k].relabel(labels[:half])
    carry_over(state, op, dims)


def _pixel_shuffle(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    source, factor = arguments["self"], arguments["upscale_factor"]
    dims = list(state.get(source))
    if (labels := dims[-3].labels) is not None:
        tied = state.classes.tie(labels.reshape(-1, factor**2), state.explain("makes pixels of channels"))
        dims[-3] = dims[-3].relabel(tied.copy() if len(tied) > 1 else None)
        if len(tied) == 1:
            state.classes.pin(tied, state.explain("makes one image of all channels"))
    carry_over(state, op, [*dims[:-2], FREE, FREE])


def _pixel_unshuffle(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    dims = list(state.get(arguments["self"]))
    if (labels := dims[-3].labels) is not None:
        dims[-3] = dims[-3].relabel(np.repeat(labels, arguments["downscale_factor"] ** 2))
    carry_over(state, op, [*dims[:-2], FREE, FREE])


def _channel_shuffle(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    dims, groups = list(state.get(arguments["self"])), arguments["groups"]
    if (labels := dims[1].labels) is not None:
        rows = labels.reshape(groups, -1)
        state.classes.tie(rows.T, state.explain("shuffles equal groups of channels"))
        dims[1] = dims[1].relabel(rows.T.reshape(-1).copy())
    carry_over(state, op, dims)


def _spatial(state: Propagation, op: Op) -> None:
    """Pooling and resampling: the last dimensions are positions."""
    source = list_tensors(op)[0]
    count = next((int(digit) for digit in "123" if f"{digit}d" in op.name), 2)
    dims = state.get(source)
    kept, positions = dims[: len(dims) - count], dims[len(dims) - count :]
    for dim in positions:
        state.pin_position(dim)
    carry_over(state, op, [*kept, *[FREE] * count])


def _sample(state: Propagation, op: Op) -> None:
    """Images read at given positions: every channel at the same ones."""
    source, grid = list_tensors(op)[:2]
    dims = state.get(source)
    for dim in (*dims[2:], *state.get(grid)[1:]):
        state.pin_position(dim)
    carry_over(state, op, [*dims[:2], *[FREE] * (len(dims) - 2)])


def _im2col(state: Propagation, op: Op) -> None:
    source, out = list_tensors(op)[0], op.outputs[0]
    dims = state.get(source)
    channels = dims[-3]
    if channels.labels is not None:
        times = out.shape[-2] // source.shape[-3]
        channels = channels.relabel(np.repeat(channels.labels, times))
    elif source.shape[-3] > 1:
        channels = FREE
    for dim in dims[-2:]:
        state.pin_position(dim)
    carry_over(state, op, [*dims[:-3], channels, FREE])


def _col2im(state: Propagation, op: Op) -> None:
    source, out = list_tensors(op)[0], op.outputs[0]
    dims = state.get(source)
    channels = dims[-2]
    if channels.labels is not None:
        rows = channels.labels.reshape(out.shape[-3], -1)
        channels = channels.relabel(state.classes.tie(rows, state.explain("folds columns into images")).copy())
    carry_over(state, op, [*dims[:-2], channels, FREE, FREE])


def _unfold(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    dims = list(state.get(arguments["self"]))
    k = arguments["dimension"] % len(dims)
    state.pin_dim(dims[k], "takes channels for positions")
    dims[k] = FREE
    carry_over(state, op, [*dims, FREE])


def _fourier(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    dims = list(state.get(list_tensors(op)[0]))
    for k in sequence(arguments["dim"]):
        state.pin_dim(dims[k], "transforms along the channels")
        dims[k] = FREE
    carry_over(state, op, dims)


RULES: dict[str, Rule] = {
    **use_for(_spatial, "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d",
        "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
        "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
        "adaptive_max_pool2d", "adaptive_max_pool3d", "upsample_nearest1d", "upsample_nearest2d",
        "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d",
        "upsample_trilinear3d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_nearest_exact1d",
        "_upsample_nearest_exact2d", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
        "replication_pad2d", "replication_pad3d", "mkldnn_max_pool2d", "max_unpool2d", "max_unpool3d",
    ),
    **use_for(_index, "index", "index_select"),
    **use_for(_embedding, "embedding"),
    **use_for(_glu, "glu"),
    **use_for(_pixel_shuffle, "pixel_shuffle"),
    **use_for(_pixel_unshuffle, "pixel_unshuffle"),
    **use_for(_channel_shuffle, "channel_shuffle", "native_channel_shuffle"),
    **use_for(_sample, "grid_sampler_2d", "grid_sampler_3d"),
    **use_for(_im2col, "im2col"),
    **use_for(_col2im, "col2im"),
    **use_for(_unfold, "unfold"),
    **use_for(_fourier, "_fft_r2c", "_fft_c2c", "_fft_c2r"),
}  # fmt: skip
