"""Residual blocks that can go as a whole: the network is shallower then, and what came in goes on as it is.

A block is a module whose output is its input plus what its layers make of it. It is found in the operations of a pass
(:mod:`methods.network.tape`), whatever its class is called: going back from its output through additions, and through
activations that leave alone what they have given, its input is met again. Where a network adds in the code of a larger
module, or what follows the addition is no such activation, the branch alone is found: the layers between a tensor and
the one that is added to it.

That is no proof, so it is tried in numbers: with all of its parameters at zero a block adds nothing, and the network
with the identity in its place (of a branch, with nothing in its place) must give the same answers.

Removing whole blocks: Huang et al., Deep Networks with Stochastic Depth, 2016, arXiv 1603.09382, in training; Veit et
al., Residual Networks Behave Like Ensembles of Relatively Shallow Networks, 2016, arXiv 1605.06431, afterwards.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs, call, move, outputs_in
from methods.network.architecture import describe, rebuild
from methods.network.channels import ChannelGroup
from methods.network.copying import copy_network
from methods.network.followed import SECONDS, resolutions_of
from methods.network.layers import Zeros
from methods.network.propagation import list_tensors
from methods.network.rules import products
from methods.network.shaken import Shaken
from methods.network.structure import name_shared
from methods.network.survival import repeat_examples
from methods.network.tape import LEAVES, ModuleCall, Op, Tape, Value, record

ADDING = frozenset({"add", "add_"})
"""Operations of which one operand may be the input of a block."""

PASSING = frozenset({
    "relu", "relu_", "hardtanh", "hardtanh_", "clamp", "clamp_", "clamp_min", "clamp_min_",
    "alias", "clone", "detach", "permute", "slice", "transpose", "view", "_unsafe_view", "_reshape_alias", "roll",
})  # fmt: skip
"""Operations that may lie on the way of the input: they change nothing in numbers that have been through them before,
or only where the numbers lie."""


@dataclass(frozen=True)
class Block:
    """A residual block that can go as a whole.

    Attributes:
        name: Name of the module; of a branch, the name of its last one.
        stage: Resolution of its feature map, as that of a :class:`methods.network.channels.ChannelGroup`.
        branch: The modules of a branch in order of execution; empty where block and shortcut are one module.
    """

    name: str
    stage: str
    branch: tuple[str, ...] = ()

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules that go, with all that lies in them."""
        return self.branch or (self.name,)

    def holds(self, module: str) -> bool:
        """Tell whether a module goes with the block.

        Args:
            module: Name of the module.

        Returns:
            Whether it is one of :attr:`modules` or lies in one.
        """
        return any(_lies_in(module, own) for own in self.modules)

    def meets(self, module: str) -> bool:
        """Tell whether a module and the block have a part in common.

        Args:
            module: Name of the module.

        Returns:
            Whether one of them lies in the other.
        """
        return any(_lies_in(module, own) or _lies_in(own, module) for own in self.modules)


def find_blocks(model: nn.Module, example: Inputs, ignored: Collection[str] = ()) -> list[Block]:
    """Find the residual blocks of a network that can go, one by one and all together.

    Args:
        model: The network; not changed.
        example: One input, ``[1, ...]``, or a tuple or mapping of inputs.
        ignored: Names of modules that must stay as they are, and with them what they lie in.

    Returns:
        The blocks in order of execution, none within another. A network that does not run on the example is an
        ``InputError``.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    tape = record(copy_network(model), repeat_examples(move(example, device), 2), False, SECONDS)
    stays, stages = {*ignored, *_list_sharing(model)}, resolutions_of(tape)

    def make_block(name: str, branch: tuple[str, ...] = ()) -> Block:
        return Block(name, stages.get(name, "1x1"), branch)

    shaken = Shaken(model, example)
    found: list[Block] = []
    for candidates in (
        map(make_block, _list_whole(tape)),
        (make_block(names[-1], names) for names in _list_branches(tape)),
    ):
        left = [block for block in candidates if not any(map(block.meets, stays))]
        while left := [block for block in left if not any(_overlap(block, other) for other in found)]:
            innermost = _choose_innermost(left)
            found = _prove(model, example, shaken, [*found, *innermost])
            left = [block for block in left if block not in innermost]
    order = {run.name: number for number, run in reversed(list(enumerate(tape.modules)))}
    return sorted(found, key=lambda block: order[block.modules[0]])


def remove_blocks(model: nn.Module, blocks: Iterable[Block]) -> nn.Module:
    """Take residual blocks out of a network.

    Args:
        model: The network; not changed.
        blocks: Some of its blocks.

    Returns:
        A copy with the identity in the place of each block, and nothing in that of each branch.
    """
    shallower = copy_network(model)
    replace_blocks(shallower, blocks)
    return shallower


def replace_blocks(model: nn.Module, blocks: Iterable[Block]) -> None:
    """Take residual blocks out of a network in place.

    Args:
        model: The network; changed.
        blocks: Some of its blocks.
    """
    for block in blocks:
        for name in block.modules:
            # A branch hands on what it is given, for shapes, and at its end there is nothing to be added.
            layer = Zeros() if block.branch and name == block.name else nn.Identity()
            model.set_submodule(name, layer.train(model.get_submodule(name).training))


def list_groups_without(groups: Sequence[ChannelGroup], blocks: Collection[Block]) -> list[ChannelGroup]:
    """Describe the channel groups of a network whose residual blocks have been taken out.

    Args:
        groups: The channel groups of the whole network.
        blocks: The blocks that are gone.

    Returns:
        The groups that are left, for :func:`methods.network.channels.cut` on the shallower network: those that lay in
        a block are gone, and others have lost their members there.
    """
    structure = groups[0].structure if groups else None
    if not blocks or structure is None:
        return list(groups)

    def gone(module: str) -> bool:
        return any(block.holds(module) for block in blocks)

    shallower, left = structure.drop_modules(gone), []
    for group in groups:
        members = tuple(member for member in group.members if not gone(member.module))
        if members:
            left.append(replace(group, members=members, structure=shallower))
    return left


def list_groups_within(groups: Iterable[ChannelGroup], block: Block) -> list[str]:
    """Name the channel groups that go with a block: all of their members lie in it.

    Args:
        groups: The channel groups of the whole network.
        block: The block.

    Returns:
        Their names.
    """
    return [group.name for group in groups if all(block.holds(member.module) for member in group.members)]


def _lies_in(name: str, above: str) -> bool:
    """Whether a module is another one or lies in it."""
    return name == above or name.startswith(f"{above}.")


def _list_sharing(model: nn.Module) -> set[str]:
    """Name the modules whose parameters or buffers other modules have, too."""
    names = name_shared(model)
    times = Counter(names.values())
    return {name.rpartition(".")[0] for name, first in names.items() if times[first] > 1}


def _overlap(one: Block, other: Block) -> bool:
    """Whether two blocks have a part in common."""
    return any(one.meets(name) for name in other.modules)


def _choose_innermost(blocks: Sequence[Block]) -> list[Block]:
    """Choose among blocks that lie in each other or share modules: the smallest first, and none that meets it."""
    chosen: list[Block] = []
    for block in sorted(blocks, key=lambda each: (len(each.modules), -each.modules[0].count("."))):
        if not any(_overlap(block, other) for other in chosen):
            chosen.append(block)
    return [block for block in blocks if block in chosen]


def _list_whole(tape: Tape) -> list[str]:
    """List the modules whose output is their input and something more, by the operations of a pass."""
    runs = Counter(run.name for run in tape.modules)
    return [run.name for run in tape.modules if run.name and runs[run.name] == 1 and _adds_to_its_input(tape, run)]


def _adds_to_its_input(tape: Tape, run: ModuleCall) -> bool:
    """Whether the way back from a module's output meets its input, with an addition on the way."""
    if isinstance(run.module, LEAVES) or len(run.inputs) != 1 or len(run.outputs) != 1:
        return False
    (source,), (answer,) = run.inputs, run.outputs
    if source.shape != answer.shape or not source.from_input or not any(True for _ in run.module.parameters()):
        return False
    ops = [op for op in tape.ops if _lies_in(op.module, run.name)]
    return bool(_count_additions(ops, answer, source, len(ops)))


def _count_additions(ops: Sequence[Op], value: Value, source: Value, end: int) -> int | None:
    """Count the additions on the way from a value back to the source.

    Args:
        ops: Operations in order.
        value: Where the way begins.
        source: Where it is to end.
        end: Place in the operations before which the value is looked at: some change a tensor in place.

    Returns:
        How many; None if there is no such way.
    """
    place = _find_producer(ops, value, end)
    if place is None:
        return 0 if value is source else None
    op, read = ops[place], _list_data_read(ops[place])
    if op.name in PASSING:
        return _count_additions(ops, read[0], source, place) if read else None
    if op.name not in ADDING or len(read) != 2:
        return None
    for each in read:
        found = _count_additions(ops, each, source, place)
        if found is not None:
            return found + 1
    return None


def _list_branches(tape: Tape) -> list[tuple[str, ...]]:
    """List what is added to the tensor that it was made of: the modules of each such branch, in order."""
    runs = Counter(run.name for run in tape.modules)
    having = {run.name for run in tape.modules if any(True for _ in run.module.parameters())}
    places: dict[str, set[int]] = defaultdict(set)  # of the operations in each module
    for place, op in enumerate(tape.ops):
        if any(value.from_input for value in op.outputs):
            parts = op.module.split(".") if op.module else []
            for depth in range(1, len(parts) + 1):
                places[".".join(parts[:depth])].add(place)
    found = []
    for end, op in enumerate(tape.ops):
        read = _list_data_read(op)
        if op.name not in ADDING or len(read) != 2 or read[0] is read[1] or read[0].shape != read[1].shape:
            continue
        for source, answer in (read, read[::-1]):
            between = _list_between(tape.ops, answer, source, end)
            if not between:
                continue
            whole = [run.name for run in tape.modules if places[run.name] and places[run.name] <= between]
            outer = [name for name in whole if not any(_lies_in(name, one) for one in whole if one != name)]
            inside = set[int]().union(*(places[name] for name in outer))
            outside = any(tape.ops[place].name in products.RULES for place in between - inside)
            if outer and not outside and having & set(outer) and all(runs[name] == 1 for name in outer):
                found.append(tuple(outer))
    return found


def _list_between(ops: Sequence[Op], value: Value, source: Value, end: int) -> set[int]:
    """List the operations by which a value is made of the source alone; none if it is made of other data, too."""
    found: set[int] = set()
    open_ = [(value, end)]
    while open_:
        each, before = open_.pop()
        if each is source:
            continue
        place = _find_producer(ops, each, before)
        if place is None:
            return set()  # the network's input, by another way
        if place not in found:
            found.add(place)
            open_ += [(one, place) for one in _list_data_read(ops[place])]
    return found


def _find_producer(ops: Sequence[Op], value: Value, end: int) -> int | None:
    """Find the last operation before a place that gave a value, which may be there more than once."""
    return next((k for k in range(end - 1, -1, -1) if any(each is value for each in ops[k].outputs)), None)


def _list_data_read(op: Op) -> list[Value]:
    """List what an operation reads that depends on the network's input."""
    return [each for each in list_tensors(op) if each.from_input]


def _prove(model: nn.Module, example: Inputs, shaken: Shaken, blocks: Sequence[Block]) -> list[Block]:
    """Return the blocks without which the network is the one in which they add nothing, together."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
        warnings.simplefilter("ignore")
        if not blocks or _can_go(model, example, shaken, blocks):
            return list(blocks)
        together: list[Block] = []
        for block in blocks:
            if _can_go(model, example, shaken, [*together, block]):
                together.append(block)
    return together


def _can_go(model: nn.Module, example: Inputs, shaken: Shaken, blocks: Sequence[Block]) -> bool:
    """Whether a network without some blocks is the network in which they add nothing, and can be stored."""
    silent = copy_network(shaken.network)
    for block in blocks:
        for name in block.modules:
            for parameter in silent.get_submodule(name).parameters():
                parameter.zero_()
    try:
        found = outputs_in(call(remove_blocks(shaken.network, blocks), shaken.inputs))
        wanted = outputs_in(call(silent, shaken.inputs))
        shallower = remove_blocks(model, blocks).eval()
        back = rebuild(model, json.loads(json.dumps(describe(model, shallower))), shallower.state_dict())
        first, second = (outputs_in(call(each, example)) for each in (shallower, back))
    except Exception:  # noqa: BLE001  (a network may fail in any way)
        return False
    return _is_alike(found, wanted, shaken.tolerance) and _is_alike(first, second, 0.0)


def _is_alike(found: Sequence[Tensor], wanted: Sequence[Tensor], tolerance: float) -> bool:
    """Whether all tensors are the same, to within a share of the largest number of each."""
    return len(found) == len(wanted) and all(
        one.shape == other.shape
        and float((one - other).abs().max()) <= tolerance * float(other.abs().max().clamp_min(1e-30))
        for one, other in zip(found, wanted, strict=True)
    )
