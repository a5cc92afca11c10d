"""How many directions every layer keeps by measured damage, in place of the same share of each.

Each layer is rewritten alone, with a few shares of the directions on both of its sides, and the rise of the loss is
measured as for channels (``methods.training.damage``). Damages of layers are added up and a budget is spent where they
are least. What the analysis predicts of single directions decides which of them a layer keeps, not how many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.contract.analyses import Settings
from methods.contract.method import Problem
from methods.eigendamage.allotment import Round, explain_unreachable
from methods.eigendamage.directions import limit_ranking
from methods.eigendamage.eigenspace import Eigenspace
from methods.eigendamage.rewriting_plan import Plan
from methods.training.damage import describe_measurement, measure_curves
from spaces import ByDamage, InputError, LayerGroup, round_down_width, round_up_width
from spaces.budget import Curve, choose_best_widths


@dataclass(frozen=True)
class Ranks:
    """The numbers of directions that a layer may keep: one rank stands for both sides.

    Attributes:
        columns: Input directions per group of the convolution.
        rows: Output directions per group.
        turns: Whether input and output directions may go; of the network's inputs and classes none may.
        least: How many input and output directions stay in any case.
        step: Kept numbers are multiples of this, or all.
        most: How many earlier rounds have left.
    """

    columns: int
    rows: int
    turns: tuple[bool, bool]
    least: tuple[int, int] = (1, 1)
    step: int = 1
    most: tuple[float, float] = (inf, inf)

    @property
    def full(self) -> int:
        """The rank at which all directions are kept."""
        return self.rows if self.turns[1] else self.columns

    def count(self, rank: int) -> tuple[int, int]:
        """Return what a rank stands for.

        Args:
            rank: From 1 to :attr:`full`.

        Returns:
            Input and output directions: the same share of both, where both may go.
        """
        kept = []
        for size, turns, least, most in zip((self.columns, self.rows), self.turns, self.least, self.most, strict=True):
            wanted = round(size * rank / self.full) if turns else size
            width = max(round_down_width(wanted, size, self.step), round_up_width(least, size, self.step))
            kept.append(int(min(most, width)))
        return kept[0], kept[1]


def list_ranks(job: Plan, problem: Problem, ratio_limit: float, round_to: int) -> dict[str, Ranks]:
    """List the layers of which directions may go.

    Args:
        job: The layers that may be rewritten.
        problem: The network.
        ratio_limit: Largest share that goes on one side.
        round_to: Kept numbers are multiples of this, over all groups of a convolution.

    Returns:
        Ranks by name of layer, in order of execution.
    """
    sides = job.sides(problem.model, dict.fromkeys((group.name for group in job.groups), 0.0))
    found = {}
    for (name, shape), columns, rows in zip(job.shapes.items(), sides[::2], sides[1::2], strict=True):
        least = limit_ranking(shape.columns, ratio_limit), limit_ranking(shape.rows, ratio_limit)
        turns = columns.coupled, rows.coupled
        found[name] = Ranks(shape.columns, shape.rows, turns, least, shape.step(round_to))
    return {name: ranks for name, ranks in found.items() if any(ranks.turns)}


def measure_rank_damages(
    problem: Problem,
    ranks: Mapping[str, Ranks],
    settings: Settings,
    rewrite: Callable[[str, int, int], nn.Module | None],
) -> dict[str, Curve]:
    """Measure by how much the loss rises when one layer alone keeps fewer directions.

    Args:
        problem: The network and the data; the curves come from its analyses.
        ranks: The layers.
        settings: What decides the directions and the form of rewritten layers.
        rewrite: Gives the network in which one layer keeps so many input and output directions; ``None`` where that
            layer is better left dense.

    Returns:
        Rank and damage by name of layer.
    """
    free = {name: replace(each, least=(1, 1), step=1) for name, each in ranks.items()}

    def measure() -> dict[str, Tensor]:
        return measure_curves(
            problem,
            {name: each.full for name, each in free.items()},
            lambda name, rank: rewrite(name, *free[name].count(rank)),
            "damage of ranks",
        )

    known = {**settings, **describe_measurement(problem), "layers": ",".join(ranks)}
    found = problem.analyses.get("rank_damage_curves", known, measure)
    return {name: [(int(rank), float(damage)) for rank, damage in found[name].tolist()] for name in ranks}


def choose_by_damage(
    sparsity: ByDamage,
    space: Eigenspace,
    job: Plan,
    ranks: Mapping[str, Ranks],
    curves: Mapping[str, Curve],
    present: Round,
) -> list[int]:
    """Decide how many directions are kept.

    Args:
        sparsity: The budget, and what the damage of stages counts.
        space: The directions that there are now.
        job: The layers.
        ranks: What each may keep.
        curves: Rank and damage by name of layer.
        present: Which round it is.

    Returns:
        Kept numbers: input directions, then output directions, layer by layer; as few as there may be, where an early
        round cannot reach its part of the budget.

    Raises:
        InputError: If the budget cannot be reached in the last round, or whole blocks are to go.
    """
    if sparsity.blocks:
        raise InputError("this method keeps every residual block: leave sparsity.blocks out")
    ranks = {name: replace(each, most=space.count_left(name)) for name, each in ranks.items()}
    layers = _describe_layers(job, ranks, curves)
    elsewhere = {group.stage for group in job.groups} - {layer.stage for layer in layers}
    weights = {stage: weight for stage, weight in sparsity.damage_weights.items() if stage not in elsewhere}
    weighted = sparsity.model_copy(update={"damage_weights": weights}).curves(layers)
    allowed = {name: _list_distinct(each) for name, each in ranks.items()}
    table = {name: _list_prices(space, name, each) for name, each in ranks.items()}
    rest = space.flops(_complete(job, ranks, {name: each.full for name, each in ranks.items()}))
    rest -= sum(int(prices[-1]) for prices in table.values())

    def costs(choices: NDArray[np.int64]) -> NDArray[np.int64]:
        spent = [prices[column] for prices, column in zip(table.values(), choices.T, strict=True)]
        total: NDArray[np.int64] = rest + np.sum(spent, axis=0)
        return total

    target = present.share(sparsity.flops) * job.dense
    found = choose_best_widths(weighted, costs, [target], allowed)[0]
    if found is None:
        found = {name: each[0] for name, each in allowed.items()}
        least = int(costs(np.array([[*found.values()]]))[0])
        if present.last:
            raise InputError(explain_unreachable(sparsity.flops, least, job.dense))
    return _complete(job, ranks, found)


def _describe_layers(job: Plan, ranks: Mapping[str, Ranks], curves: Mapping[str, Curve]) -> list[LayerGroup]:
    """Describe layers as a space sees them: each is of the stage of the channel group that it makes, or reads."""
    stages = {(member.module, member.side): group.stage for group in job.groups for member in group.members}
    found = []
    for name, each in ranks.items():
        stage = stages[name, "out" if each.turns[1] else "in"]
        found.append(LayerGroup(name, each.full, stage, job.shapes[name].depth, damages=tuple(curves[name])))
    return found


def _list_distinct(ranks: Ranks) -> list[int]:
    """List the ranks that stand for different numbers of directions, ascending; of equal ones the first."""
    found: dict[tuple[int, int], int] = {}
    for rank in range(1, ranks.full + 1):
        found.setdefault(ranks.count(rank), rank)
    *others, _ = found.values()
    return [*others, ranks.full]


def _list_prices(space: Eigenspace, name: str, ranks: Ranks) -> NDArray[np.int64]:
    """Return the multiply-accumulates of a layer by rank, ``[full + 1]``."""
    prices = [space.price(name, *ranks.count(rank)) for rank in range(1, ranks.full + 1)]
    return np.array([prices[0], *prices], dtype=np.int64)


def _complete(job: Plan, ranks: Mapping[str, Ranks], chosen: Mapping[str, int]) -> list[int]:
    """Return kept numbers of all layers; those without ranks are whole."""
    choice: list[int] = []
    for name, shape in job.shapes.items():
        choice += ranks[name].count(chosen[name]) if name in ranks else (shape.columns, shape.rows)
    return choice
