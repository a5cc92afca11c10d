"""Labels of channels, carried through a pass operation by operation.

An operation without a rule pins every class that it reads, with its name as the reason: what is not understood is
never cut.
"""

from __future__ import annotations

from dataclasses import replace

from methods.network.labels import FREE, Classes
from methods.network.propagation import Propagation, Rule, pin_all
from methods.network.rules import layers, numbers, positions, products, shapes, sums
from methods.network.tape import Call, Tape

RULES: dict[str, Rule] = {
    **numbers.RULES,
    **shapes.RULES,
    **positions.RULES,
    **products.RULES,
    **sums.RULES,
    **layers.RULES,
}


def follow(state: Propagation, tape: Tape) -> None:
    """Carry labels through one pass.

    Args:
        state: Labels; they are extended.
        tape: What the pass did.
    """
    for value in tape.inputs:
        state.dims[value] = [replace(FREE, batch=dim == 0) for dim in range(len(value.shape))]
    for op in tape.ops:
        state.begin(op)
        rule = RULES.get(op.name) or RULES.get(op.name.removesuffix("_"))
        if rule is None and numbers.is_pointwise(op):
            rule = numbers.carry_numbers
        (rule or pin_all)(state, op)
        for value in op.outputs:
            found = state.dims.setdefault(value, [FREE] * len(value.shape))
            if value.from_input:
                state.dims[value] = [dim if not dim.sources else replace(dim, sources=frozenset()) for dim in found]
    for value in tape.outputs:
        state.pin(value, "it is the network's output")
    state.terms_in_first = state.terms_in_first or len(state.terms)


def calls_summing(state: Propagation) -> dict[Call, list[Classes]]:
    """Gather the calls that sum over channels without weights.

    Args:
        state: Labels.

    Returns:
        The channels that each sums over.
    """
    found: dict[Call, list[Classes]] = {}
    for coupling in state.couplings:
        if coupling.op.call is not None:
            found.setdefault(coupling.op.call, []).append(coupling.labels)
    return found
