"""Operations that act number by number, and those that make tensors."""

from __future__ import annotations

import torch
from torch import nn

from methods.network.labels import FREE
from methods.network.propagation import (
    Propagation,
    Rule,
    carry_over,
    list_tensors,
    use_for,
)
from methods.network.tape import Op


def is_pointwise(op: Op) -> bool:
    """Tell whether torch says that an operation, or its form that is not in place, acts number by number.

    Args:
        op: The operation.

    Returns:
        Whether it does.
    """
    if isinstance(op.target, nn.Module):
        return False
    plain = getattr(torch.ops.aten, op.name.removesuffix("_"), None)
    forms = [op.target] if plain is None else [op.target, *(getattr(plain, name) for name in plain.overloads())]
    return any(torch.Tag.pointwise in form.tags for form in forms)


def carry_numbers(state: Propagation, op: Op) -> None:
    """Put what is read side by side, number by number.

    Args:
        state: Labels.
        op: The operation.
    """
    read = list_tensors(op)
    for value in op.outputs:
        dims = []
        for k, size in enumerate(value.shape):
            meeting = []
            for other in read:
                place = k - len(value.shape) + len(other.shape)
                if place >= 0 and other.shape[place] == size:
                    meeting.append(state.get(other)[place])
            dims.append(state.unite(meeting) if meeting else FREE)
        state.dims[value] = dims


def _create(state: Propagation, op: Op) -> None:
    """Tensors of equal numbers or noise, of a given size."""
    for value in op.outputs:
        state.dims[value] = state.label_new(value.shape)


def _label_free(state: Propagation, op: Op) -> None:
    for value in op.outputs:
        state.dims.setdefault(value, [FREE] * len(value.shape))


def _label_in_place(state: Propagation, op: Op) -> None:
    for value in op.outputs:
        state.dims[value] = list(state.get(value))


def _label_complex(state: Propagation, op: Op) -> None:
    dims = list(state.get(list_tensors(op)[0]))
    if op.name == "view_as_complex":
        state.pin_dim(dims.pop(), "makes complex numbers of pairs")
    else:
        dims.append(FREE)
    carry_over(state, op, dims)


RULES: dict[str, Rule] = {
    **use_for(
        carry_numbers, "clone", "_to_copy", "detach", "alias", "lift_fresh", "lift", "copy", "copy_", "native_dropout",
        "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "bernoulli", "dropout",
        "_prelu_kernel", "masked_fill", "where", "contiguous", "to", "expand_as", "view_as", "type_as", "lerp",
        "nan_to_num", "rsqrt", "hardtanh", "threshold", "rrelu", "hardswish",
        "hardsigmoid", "silu", "mish", "gelu", "elu", "celu", "selu", "leaky_relu", "softplus", "softshrink",
        "hardshrink", "log_sigmoid_forward", "relu6", "tanh", "_reshape_alias_copy", "_conj", "real",
        "imag", "complex", "polar", "angle",
    ),
    **use_for(
        _create, "zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty", "empty_strided",
        "new_empty_strided",
    ),
    **use_for(_label_free, "arange", "linspace", "scalar_tensor", "rand", "randn", "randint", "eye", "randperm",
        "_local_scalar_dense", "is_nonzero", "equal", "tril_indices", "triu_indices", "bernoulli_scalar",
    ),
    **use_for(_label_in_place, "fill_", "zero_", "uniform_", "normal_", "bernoulli_", "random_", "exponential_"),
    **use_for(_label_complex, "view_as_complex", "view_as_real"),
}  # fmt: skip
