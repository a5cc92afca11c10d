"""Which groups of units a network survives without: they are removed to see, on shapes alone where that is possible.

On the way it is learnt which sizes in the network's code do not follow by themselves, and which numbers its code works
out with sizes that it reads: a factor such as ``x.shape[1] ** -0.5`` must stay what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from methods.contract.inputs import call, move, take
from methods.network.copying import copy_network, shapes_of
from methods.network.labels import test_for
from methods.network.quick_shapes import QuickShapes
from methods.network.sizes import SizedCall
from methods.network.structure import Factors, Structure, cut_network, learn_stale
from spaces.errors import shorten_error

HALF = 0.5
"""The share of units that is removed first, in both modes."""

SHARES = (HALF, 0.0, 1.0, -1.0)
"""Shares that are removed, but for one unit: every unit goes in one of the last two, so every size changes once."""


class Removable(Protocol):
    """A group of units."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def units(self) -> tuple[int, ...]:
        """Classes of its units."""

    def spare_one(self) -> Self:
        """Return the group without its first unit, which stays."""


Group = TypeVar("Group", bound=Removable)


class Survival:
    """Removes units from a network and looks whether it still runs.

    Args:
        model: The network; not changed.
        example: One input.
        structure: What goes with which unit.

    Attributes:
        structure: The same, with what was learnt of sizes in the network's code.
        lost: Reason by name, for groups without which the network does not run.
    """

    def __init__(self, model: nn.Module, example: Any, structure: Structure) -> None:
        self.structure, self.lost = structure, dict[str, str]()
        self._model, self._example = model, example
        self._alike = _is_same_in_both_modes(structure)
        self._names = dict(model.named_modules())

    def narrow_down(self, groups: list[Group]) -> tuple[list[Group], Structure, dict[str, str]]:
        """Leave out the groups whose removal the network does not survive.

        Args:
            groups: The groups.

        Returns:
            Those that can go together, the structure without the others, and the reasons for these.
        """
        if not groups:
            return groups, self.structure, {}
        self._begin()
        for share in SHARES:
            groups = self._narrow(groups, share)
            if not groups:
                break
        is_left = test_for(unit for group in groups for unit in group.units)
        return groups, self.structure.map_classes(lambda labels: labels * is_left(labels)), self.lost

    def _begin(self) -> None:
        """Run the whole network: on shapes alone, or on numbers where it cannot."""
        self._answers: list[Any] = []
        self._shapes, self._inputs = shapes_of(self._model), move(repeat_examples(self._example, 2), "meta")
        try:
            self._answers = self._run(self._shapes)
        except Exception:  # it cannot run on shapes alone: it runs on numbers then
            self._shapes, self._inputs = copy_network(self._model), repeat_examples(self._example, 2)
            self._answers = self._run(copy_network(self._model))
        self._factors = learn_stale(self._shapes, self.structure, (), self._run)[1]

    def _run(self, network: nn.Module, modes: tuple[bool, ...] = (False, True)) -> list[Any]:
        answers = []
        with torch.no_grad(), QuickShapes():
            for training in modes:
                network.train(training)
                answers.append(_answer_shapes(call(network, self._inputs)))
        if self._answers and answers != self._answers[: len(modes)]:
            raise ValueError(f"the answer has shape {answers[0]} instead of {self._answers[0]}")
        return answers

    def _narrow(self, some: Sequence[Group], share: float) -> list[Group]:
        """Return those that can go together."""
        why = self._attempt(some, share)
        if why is None:
            return list(some)
        if len(some) == 1:
            spared = some[0].spare_one()
            if abs(share) == 1 and len(spared.units) > 1 and self._attempt([spared], share) is None:
                self.lost[some[0].name] = f"one channel stays for good, for {why}"
                return [spared]
            self.lost[some[0].name] = why
            return []
        half = len(some) // 2
        left, right = self._narrow(some[:half], share), self._narrow(some[half:], share)
        both = [*left, *right]
        known = sum(len(group.units) for group in both) == sum(len(group.units) for group in some)
        if not known and self._attempt(both, share) is None:
            return both
        if len(both) == len(some):  # each can go, but not both
            self.lost.update({group.name: why for group in right})
        return left

    def _attempt(self, some: Sequence[Group], share: float) -> str | None:
        """Remove a share of the units of some groups; say why that cannot be."""
        removed = [unit for group in some for unit in _part(group.units, share)]
        before = self.structure
        failure, changed = self._try_without(removed, share)
        if (failure is not None or changed) and self.structure.own_numbers:
            self.structure = replace(before, own_numbers=False)  # its code uses the numbers for something else
            without = self._try_without(removed, share)
            if without == (None, frozenset()):
                return None
            if failure is None or without[0] is not None:
                self.structure = replace(before, own_numbers=True)
            failure, changed = self._try_without(removed, share)
        while failure is not None or changed:  # what its code works out with sizes that it reads is no size
            place = None if failure is None else find_failing_frame(failure)[0]
            kinds = {type(self._names[name]) for name in changed} | ({type(place)} if place is not None else set())
            reads = self.structure.list_reads(name for name, module in self._names.items() if type(module) in kinds)
            if reads <= self.structure.stale and failure is not None:
                self.structure = before
                return _say_failure(failure)
            if reads <= self.structure.stale:  # it changes for another reason, such as chance
                return None
            self.structure = replace(self.structure, stale=self.structure.stale | reads)
            failure, changed = self._try_without(removed, share)
        return None

    def _try_without(self, removed: Sequence[int], share: float) -> tuple[Exception | None, frozenset[str]]:
        """Return the network's error, and the modules whose factors change."""
        try:
            known = self._alike and share != HALF  # what happens in training mode is known then
            modes = (False,) if known else (False, True)
            found, factors = learn_stale(
                self._shapes, self.structure, removed, lambda network: self._run(network, modes)
            )
            if self._alike:
                found |= {(name, mode, key, path) for name, _, key, path in found for mode in ("eval", "train")}
            structure = replace(self.structure, stale=self.structure.stale | found)
            if abs(share) == 1:  # norms want more than one number: what two examples have may be too few for one
                with torch.no_grad():
                    call(cut_network(self._shapes, structure, removed).eval(), take(self._inputs, slice(1)))
        except Exception as error:  # a network may fail in any way
            return error, frozenset()
        self.structure = structure
        return None, frozenset(name for name, *_ in _find_differences(self._factors, factors))


def _find_differences(before: Factors, after: Factors) -> set[tuple[str, str, str]]:
    return {place for place in before.keys() & after.keys() if before[place] != after[place]}


def repeat_examples(example: Any, times: int) -> Any:
    """Put every example of a batch several times: batch norms cannot learn from one number.

    Args:
        example: A tensor, a tuple or a mapping of tensors.
        times: How often.

    Returns:
        The longer batch.
    """

    def repeat_leaf(leaf: Any) -> Any:
        return torch.cat([leaf] * times) if isinstance(leaf, Tensor) and leaf.ndim else leaf

    return torch.utils._pytree.tree_map(repeat_leaf, example)


def _is_same_in_both_modes(structure: Structure) -> bool:
    """Whether every call with sizes is made alike in both modes."""
    calls: dict[str, dict[tuple[str, str], SizedCall]] = {"eval": {}, "train": {}}
    for made in structure.sized:
        calls[made.mode][made.module, made.key] = made
    if calls["eval"].keys() != calls["train"].keys():
        return False
    return all(
        [(a.path, a.constant, a.labels.tobytes()) for a in one.sizes]
        == [(b.path, b.constant, b.labels.tobytes()) for b in calls["train"][place].sizes]
        for place, one in calls["eval"].items()
    )


def _part(units: Sequence[int], share: float) -> Sequence[int]:
    """Take a share of all units but one: from the front, or from the back where the share is negative."""
    number = max(1, int(abs(share) * (len(units) - 1)))
    return units[:number] if share >= 0 else units[-number:]


def _answer_shapes(answer: Any) -> list[tuple[int, ...]]:
    leaves = torch.utils._pytree.tree_flatten(answer)[0]
    return [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor)]


def _say_failure(error: Exception) -> str:
    """Say in which module a network failed, and how."""
    owner, line = find_failing_frame(error)
    place = "" if owner is None else f"in the forward pass of a {type(owner).__name__}, line {line}: "
    return f"the network does not run without some of its channels ({place}{shorten_error(error)})"


def find_failing_frame(error: Exception) -> tuple[nn.Module | None, int]:
    """Find the innermost module in whose forward pass an error was raised.

    Args:
        error: The error.

    Returns:
        The module, None if there is none, and the line.
    """
    found: tuple[nn.Module | None, int] = (None, 0)
    trace = error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and trace.tb_frame.f_code.co_name == "forward":
            found = (owner, trace.tb_lineno)
        trace = trace.tb_next
    return found
