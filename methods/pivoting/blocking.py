"""How many blocks each layer gets: the choices that a layer has, and a budget of FLOPs shared out over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log

from methods.pivoting.block_matrices import Structure

MOST_BLOCKS = 32
"""A layer is cut into at most so many clusters of rows; real networks are too narrow for more."""


@dataclass(frozen=True)
class Choice:
    """One way to block a layer.

    Attributes:
        row_clusters: Clusters of rows.
        column_clusters: Clusters of columns.
        blocks: Blocks that are kept.
    """

    row_clusters: int
    column_clusters: int
    blocks: int

    @property
    def density(self) -> float:
        """Share of the coefficients that is kept."""
        return self.blocks / (self.row_clusters * self.column_clusters)

    def count_left(self, count: int) -> int:
        """Return what is left of a number of coefficients or multiply–accumulates, exactly.

        Args:
            count: A multiple of the layer's coefficients.

        Returns:
            The share that is kept.
        """
        return count * self.blocks // (self.row_clusters * self.column_clusters)


DENSE = Choice(1, 1, 1)


@dataclass(frozen=True)
class Shape:
    """A layer as far as blocks are concerned.

    Attributes:
        name: Name of the layer.
        rows: Output channels.
        columns: Input channels.
        flops: Multiply–accumulates of the dense layer.
        depth: Place in the network from 0 to 1.
    """

    name: str
    rows: int
    columns: int
    flops: int
    depth: float


def choices(
    rows: int, columns: int, structure: Structure, min_side: int, degree: int, side: int | None = None
) -> list[Choice]:
    """List the ways to block a layer, from dense to sparse.

    Args:
        rows: Output channels.
        columns: Input channels.
        structure: Which blocks may be kept.
        min_side: Blocks are at least so high and so wide.
        degree: Clusters of columns that a cluster of rows reads (on average with ``"bsr"``), where the side of
            the blocks follows from the density. Not used for ``"block_diag"``.
        side: Side of the blocks; then the degree follows from the density, and ``degree`` is its least value.

    Returns:
        The choices; the first one is :data:`DENSE`.
    """
    found = [DENSE]
    if structure == "block_diag":
        found += [Choice(g, g, g) for g in _powers(rows, columns, min_side) if g > 1]
    elif side is None:
        for common in range(min_side, min(rows, columns) + 1):
            if rows <= MOST_BLOCKS * common:
                found += _list_sparse(common, rows, columns, range(degree, degree + 1))
    elif side >= min_side:
        found += _list_sparse(side, rows, columns, range(columns // side - 1, degree - 1, -1))
    return sorted(set(found), key=lambda choice: (-choice.density, choice.blocks))


def _powers(rows: int, columns: int, min_side: int) -> list[int]:
    """Numbers of clusters that divide both sides into clusters that are large enough."""
    powers = [2**e for e in range(MOST_BLOCKS.bit_length())]
    return [g for g in powers if rows % g == columns % g == 0 and min(rows, columns) >= g * min_side]


def _list_sparse(side: int, rows: int, columns: int, degrees: Sequence[int]) -> list[Choice]:
    """Square blocks of one side; every cluster of columns is read, and something is left out."""
    if side < 1 or rows % side or columns % side:
        return []
    row_clusters, column_clusters = rows // side, columns // side
    return [
        Choice(row_clusters, column_clusters, k * row_clusters)
        for k in degrees
        if k < column_clusters <= k * row_clusters
    ]


Allowed = Callable[[Mapping[str, Choice]], bool]
Damage = Callable[[str, Choice], float]


def allocate(
    shapes: Sequence[Shape],
    options: Mapping[str, Sequence[Choice]],
    damage: Damage,
    rest: int,
    target: float,
    allowed: Allowed,
) -> dict[str, Choice] | None:
    """Share out a budget of multiply–accumulates: block where that does least damage per operation saved.

    Args:
        shapes: The layers that can be blocked.
        options: Choices of each layer, from dense to sparse.
        damage: What a choice costs, 0 for :data:`DENSE`.
        rest: Multiply–accumulates of everything else.
        target: Most multiply–accumulates of the whole network.
        allowed: Whether choices go together.

    Returns:
        A choice for each layer, with a total as near below the target as single changes can bring it, or None
        if the target cannot be reached.
    """
    by_name = {shape.name: shape for shape in shapes}
    if rest + sum(min(option.count_left(shape.flops) for option in options[shape.name]) for shape in shapes) > target:
        return None
    chosen = {shape.name: DENSE for shape in shapes}

    def total(trial: Mapping[str, Choice]) -> int:
        return rest + sum(trial[name].count_left(by_name[name].flops) for name in trial)

    def changes(sparser: bool) -> list[tuple[float, str, Choice]]:
        listed = []
        for name, now in chosen.items():
            for option in options[name]:
                saved = now.count_left(by_name[name].flops) - option.count_left(by_name[name].flops)
                if (saved > 0) == sparser and saved != 0 and allowed({**chosen, name: option}):
                    listed.append(((damage(name, option) - damage(name, now)) / saved, name, option))
        return listed

    while total(chosen) > target:
        steps = changes(sparser=True)
        if not steps:
            return None
        _, name, option = min(steps, key=lambda step: step[0])
        chosen[name] = option
    while fitting := [step for step in changes(sparser=False) if total({**chosen, step[1]: step[2]}) <= target]:
        # Most damage undone per operation given back.
        _, name, option = max(fitting, key=lambda step: step[0])
        chosen[name] = option
    return chosen


def choose_nearest(
    shapes: Sequence[Shape], options: Mapping[str, Sequence[Choice]], densities: Mapping[str, float], allowed: Allowed
) -> dict[str, Choice]:
    """Choose for each layer what is nearest to a density.

    Args:
        shapes: The layers that can be blocked, in order; where choices do not go together, earlier ones win.
        options: Choices of each layer.
        densities: Share of the coefficients to keep; layers without one stay dense.
        allowed: Whether choices go together.

    Returns:
        A choice for each layer.
    """
    chosen = {shape.name: DENSE for shape in shapes}
    for name, density in densities.items():
        if name not in chosen:
            continue
        fitting = [option for option in options[name] if allowed({**chosen, name: option})]
        chosen[name] = min(fitting, key=lambda option: (abs(log(option.density / density)), -option.density))
    return chosen
