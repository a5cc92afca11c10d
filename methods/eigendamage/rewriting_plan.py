"""Which layers of a network are rewritten, which are left dense and why, and what is asked of each of their sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from methods.contract.method import Problem
from methods.eigendamage.allotment import Side
from methods.eigendamage.rotation_cost import Shape, survey
from methods.network.channels import ChannelGroup
from spaces import InputError


@dataclass(frozen=True)
class Plan:
    """What is to be rewritten.

    Attributes:
        groups: Channel groups of the network.
        analysed: All layers that could be rewritten; what is known of them does not depend on the choice.
        shapes: The layers that may be rewritten, by name, in order of execution.
        left: Why the other layers that have weights are left dense, by name.
        dense: Multiply-accumulates of the dense network.
    """

    groups: Sequence[ChannelGroup]
    analysed: Mapping[str, Shape]
    shapes: Mapping[str, Shape]
    left: Mapping[str, str]
    dense: int

    @property
    def rest(self) -> int:
        """Multiply-accumulates of everything that is left dense."""
        return self.dense - sum(shape.dense.flops for shape in self.shapes.values())

    def sides(self, model: nn.Module, ratios: Mapping[str, float]) -> list[Side]:
        """Return what is asked of the two sides of every layer.

        Args:
            model: The dense network.
            ratios: Share that is to be removed, by name of channel group.

        Returns:
            Inputs and outputs, layer by layer.
        """
        listed = []
        for name, shape in self.shapes.items():
            for side, size, width in (("in", shape.columns, shape.inputs), ("out", shape.rows, shape.outputs)):
                ratio = _ratio(self.groups, name, side, width, ratios)
                listed.append(Side(size, shape.depth, ratio or 0.0, coupled=ratio is not None))
        return listed


def plan(problem: Problem, first: bool, last: bool) -> Plan:
    """Find the layers to rewrite.

    Args:
        problem: The network.
        first: Whether the first layer may be rewritten.
        last: Whether the last layer may be rewritten.

    Returns:
        The plan.

    Raises:
        InputError: If there is nothing to rewrite; says why of each layer.
    """
    groups = problem.groups
    found = survey(problem.model, problem.example)
    left = dict(found.left)
    left |= {name: "it is to be ignored" for name in found.shapes if name in problem.ignored}
    if not first and found.shapes:
        left[next(iter(found.shapes))] = "it is the first layer"
    if not last and found.last is not None:
        left[found.last] = "it is the last layer"
    shapes = {name: shape for name, shape in found.shapes.items() if name not in left}
    if not shapes:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left.items())
        raise InputError(f"nothing to rewrite in {type(problem.model).__name__} ({reasons})")
    return Plan(groups, found.shapes, shapes, left, problem.cost.dense)


def _ratio(
    groups: Sequence[ChannelGroup], name: str, side: str, width: int, ratios: Mapping[str, float]
) -> float | None:
    """Return the share to be removed from one side of a layer: that of the channel groups it belongs to."""
    removed, belongs = 0.0, False
    for group in groups:
        for member in group.members:
            if (member.module, member.side) == (name, side):
                removed += ratios[group.name] * member.index.numel()
                belongs = True
    return removed / width if belongs else None
