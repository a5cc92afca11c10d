"""Norms, and sums without weights."""

from __future__ import annotations

from methods.network.labels import FREE
from methods.network.propagation import (
    Propagation,
    Rule,
    carry_over,
    list_tensors,
    read_arguments,
    use_for,
)
from methods.network.tape import Op, sequence


def _batch_norm(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    x = arguments["input"]
    dims = list(state.get(x))
    vectors = [arguments.get(name) for name in ("weight", "bias", "running_mean", "running_var")]
    meeting = [dims[1], *(state.get(each)[0] for each in vectors if each is not None and each.shape[0] > 1)]
    dims[1] = state.unite(meeting)
    state.couple([dim for place, dim in enumerate(dims) if place != 1])  # a norm of weights sums over what they read
    for value in op.outputs:
        state.dims[value] = dims if value.shape == x.shape else [FREE] * len(value.shape)


def _layer_norm(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    x = arguments["input"]
    dims = list(state.get(x))
    for k in range(1, len(arguments["normalized_shape"]) + 1):
        affine = [state.get(each)[-k] for each in (arguments.get("weight"), arguments.get("bias")) if each is not None]
        if x.shape[-k] > 1:
            dims[-k] = state.unite([dims[-k], *affine])
    state.couple(dims[-len(arguments["normalized_shape"]) :])
    for value in op.outputs:
        state.dims[value] = dims if value.shape == x.shape else [FREE] * len(value.shape)


def _group_norm(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    x, groups = arguments["input"], arguments["group"]
    dims = list(state.get(x))
    affine = [state.get(each)[0] for each in (arguments.get("weight"), arguments.get("bias")) if each is not None]
    dims[1] = state.unite([dims[1], *affine]) if x.shape[1] > 1 else dims[1]
    labels = dims[1].labels
    if labels is not None and len(labels) > groups:
        state.classes.tie(labels.reshape(groups, -1).T, state.explain("normalises groups of channels"))
        state.couple([dims[1]])
    elif labels is not None:
        state.group_labels[op] = labels
    for value in op.outputs:
        state.dims[value] = dims if value.shape == x.shape else [FREE] * len(value.shape)


def _reduce(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    x = list_tensors(op)[0]
    dims, n = list(state.get(x)), len(x.shape)
    named = arguments.get("dim")
    gone = set(range(n)) if named is None or named == [] else {k % n for k in sequence(named)}
    state.couple([dims[k] for k in sorted(gone)])
    for k in sorted(gone):
        if state.classes.live(dims[k].labels) is not None:
            state.reads |= dims[k].sources
    for value in op.outputs:
        if len(value.shape) == n:
            state.dims[value] = [FREE if k in gone else dim for k, dim in enumerate(dims)]
        else:
            state.dims[value] = [dim for k, dim in enumerate(dims) if k not in gone]


def _softmax(state: Propagation, op: Op) -> None:
    x = list_tensors(op)[0]
    dims = state.get(x)
    state.couple([dims[read_arguments(op)["dim"]]])
    carry_over(state, op, dims)


def _pin_ordered(state: Propagation, op: Op) -> None:
    """What looks at the order of positions along a dimension: running sums, sorting."""
    arguments = read_arguments(op)
    x = list_tensors(op)[0]
    dims = list(state.get(x))
    k = arguments.get("dim", -1)
    state.pin_dim(dims[k], "looks at the order of the channels")
    dims[k] = FREE
    for value in op.outputs:
        state.dims[value] = dims


def _weight_norm(state: Propagation, op: Op) -> None:
    arguments = read_arguments(op)
    v, g, k = arguments["v"], arguments["g"], arguments["dim"]
    dims = list(state.get(v))
    dims[k] = state.unite([dims[k], state.get(g)[k]]) if v.shape[k] > 1 else dims[k]
    state.couple([dim for place, dim in enumerate(dims) if place != k])
    state.dims[op.outputs[0]] = dims
    for value in op.outputs[1:]:
        state.dims[value] = state.get(g)


RULES: dict[str, Rule] = {
    **use_for(_batch_norm, "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
        "cudnn_batch_norm", "miopen_batch_norm", "_batch_norm_with_update", "_batch_norm_no_update", "batch_norm",
    ),
    **use_for(_layer_norm, "native_layer_norm", "_fused_rms_norm"),
    **use_for(_group_norm, "native_group_norm"),
    **use_for(_reduce, "mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean",
        "linalg_vector_norm", "norm", "prod", "logsumexp", "argmax", "argmin", "all", "any", "median", "aminmax",
        "count_nonzero", "nansum",
    ),
    **use_for(_softmax, "_softmax", "_log_softmax", "_safe_softmax"),
    **use_for(_pin_ordered, "cumsum", "cumprod", "sort", "topk", "logcumsumexp", "cummax"),
    **use_for(_weight_norm, "_weight_norm_interface"),
}  # fmt: skip
