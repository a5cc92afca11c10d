"""Numbers of channels that a network's code keeps: attributes of its modules, and sizes in its calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from torch import nn

from methods.network.followed import Followed
from methods.network.labels import Classes
from methods.network.own_calls import READS, mode_of
from methods.network.propagation import Propagation
from methods.network.rules.following import calls_summing
from methods.network.sizes import SizedCall, SummingCall, key_of, sizes_in, tensors_in
from methods.network.structure import (
    OWN_HEADS,
    OWN_INNER,
    OWN_WIDTHS,
    Attribute,
)
from methods.network.tape import LEAVES, Value


def calls_with_sizes(followed: Followed) -> tuple[list[SizedCall], list[SummingCall], list[str]]:
    """List the calls that have sizes or sum over channels; the same call of a module that runs twice must agree.

    Args:
        followed: The passes; channels whose sizes differ from run to run are pinned.

    Returns:
        Calls with sizes, calls that sum over channels, and modules that do so without a call of their own.
    """
    state = followed.state
    sized: dict[tuple[str, str, str], SizedCall] = {}
    summing: dict[tuple[str, str, str], SummingCall] = {}
    sums = calls_summing(state)
    for tape in followed.tapes:
        mode = mode_of(tape.training)
        for made in tape.calls:
            key = (made.module, mode, key_of(made))
            found = SizedCall(*key, tuple(sizes_in(made, state)))
            if key not in sized:
                sized[key] = found
            elif not _is_same_call(sized[key], found, state) and made.function in READS:
                sized[key] = SizedCall(*key, ())
            elif not _is_same_call(sized[key], found, state):
                why = f"{made.function} in {made.module or 'the network itself'} has other sizes when it runs again"
                for size in (*sized[key].sizes, *found.sizes):
                    for labels in (size.labels if size.source is None else None, size.stop, size.source):
                        state.classes.pin(labels, why)
            if made in sums:
                arguments = [*tensors_in(made.args, state), *tensors_in(made.kwargs, state)]
                summing[key] = SummingCall(*key, tuple(arguments), tuple(tensors_in(made.output, state)))
    inexact = {c.op.module for c in state.couplings if c.op.call is None}
    return [call for call in sized.values() if call.sizes], list(summing.values()), sorted(inexact)


def _is_same_call(one: SizedCall, other: SizedCall, state: Propagation) -> bool:
    if [size.path for size in one.sizes] != [size.path for size in other.sizes]:
        return False
    for a, b in zip(one.sizes, other.sizes, strict=True):
        for left, right in ((a.labels, b.labels), (a.stop, b.stop)):
            if (left is None) != (right is None):
                return False
            if left is not None and right is not None and a.source is None:
                if not np.array_equal(state.classes.find(left), state.classes.find(right)):
                    return False
    return True


_COUNTS: tuple[tuple[type[nn.Module], str, str], ...] = (
    (nn.modules.conv._ConvNd, "in_channels", "inputs"),
    (nn.modules.conv._ConvNd, "out_channels", "outputs"),
    (nn.modules.conv._ConvNd, "groups", "groups"),
    (nn.Linear, "in_features", "inputs"),
    (nn.Linear, "out_features", "outputs"),
    (nn.RNNBase, "input_size", "inputs"),
)
"""Attributes of layers that count their channels."""


def find_counting_attributes(followed: Followed) -> list[Attribute]:
    """List the numbers that modules keep of their widths.

    Args:
        followed: The passes.

    Returns:
        Each attribute of a module once.
    """
    state, found = followed.state, []
    modules = dict(followed.model.named_modules())
    for widths in state.widths:
        module = modules[widths.module]
        for kind, name, which in _COUNTS:
            labels = getattr(widths, which)
            if isinstance(module, kind) and labels is not None:
                found.append(Attribute(widths.module, name, (labels,)))
        if isinstance(module, nn.RNNBase) and widths.outputs is not None:
            found.append(Attribute(widths.module, "hidden_size", (widths.outputs[: module.hidden_size],)))
    for run in (run for tape in followed.tapes for run in tape.modules):
        module, dims = run.module, state.get(run.inputs[0]) if run.inputs else []
        channels = dims[1].labels if len(dims) > 1 else None
        if isinstance(module, nn.modules.batchnorm._NormBase) and channels is not None:
            found.append(Attribute(run.name, "num_features", (channels,)))
        elif isinstance(module, nn.GroupNorm) and channels is not None:
            found.append(Attribute(run.name, "num_channels", (channels,)))
            if module.num_groups == module.num_channels:
                found.append(Attribute(run.name, "num_groups", (channels,)))
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            last = tuple(dim.labels for dim in dims[len(dims) - len(module.normalized_shape) :])
            found.append(Attribute(run.name, "normalized_shape", last, tuple_=True))
        elif isinstance(module, nn.Embedding):
            found.append(Attribute(run.name, "embedding_dim", (state.get(run.outputs[0])[-1].labels,)))
        elif isinstance(module, nn.PReLU) and module.num_parameters > 1:
            found.append(Attribute(run.name, "num_parameters", (channels,)))
    unique = {(one.module, one.name): one for one in [*_list_own_numbers(followed), *found]}
    return list(unique.values())


def _list_own_numbers(followed: Followed) -> Iterator[Attribute]:
    """List the widths and numbers of heads that modules which are not torch's layers keep."""
    state = followed.state
    split: dict[str, list[Classes]] = defaultdict(list)  # channels in the results of a module's own changes of shape
    for made in (made for tape in followed.tapes for made in tape.calls):
        if made.function in {"view", "reshape", "unflatten"} and isinstance(made.output, Value):
            split[made.module] += [dim.labels for dim in state.get(made.output) if dim.labels is not None]
    inside: dict[str, list[Classes]] = defaultdict(list)  # channels that the layers of a module take and make
    for widths in state.widths:
        both = (each for each in (widths.inputs, widths.outputs) if each is not None)
        inside[widths.module.rpartition(".")[0]] += both
    for run in (run for tape in followed.tapes for run in tape.modules):
        if isinstance(run.module, LEAVES):  # cut by rules of their own
            continue
        numbers = {name: value for name, value in vars(run.module).items() if type(value) is int and value > 1}
        taken, given = (
            [dim.labels for value in values for dim in state.get(value) if dim.labels is not None]
            for values in (run.inputs, run.outputs)
        )
        for name, value in numbers.items():
            if name in OWN_HEADS:
                candidates = [each for each in split[run.name] if len(np.unique(each)) == len(each)]
            elif name in OWN_INNER:
                outer = {state.classes.find(each).tobytes() for each in (*taken, *given)}
                candidates = sorted(inside[run.name], key=lambda each: state.classes.find(each).tobytes() in outer)
            elif name in OWN_WIDTHS:
                candidates = [*([*given, *taken] if "out" in name else [*taken, *given]), *inside[run.name]]
            else:
                continue
            live = (each for each in candidates if len(each) == value and state.classes.live(each) is not None)
            if (labels := next(live, None)) is not None:
                yield Attribute(run.name, name, (labels,), own=True)
