"""All directions of a network: analysed, ranked, priced, and removed by rewriting the layers.

One pass of EigenDamage is: covariances of every layer, their eigenbases, the damage of each direction in them
(``methods.eigendamage.kronecker``), a choice (``methods.eigendamage.directions``), three-part layers
(``methods.eigendamage.rotation``). The analysis looks at the network and the data alone; any choice after
it is slicing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from methods.contract.analyses import Analyses, Progress, Tensors, ignore_progress
from methods.contract.data import Split
from methods.contract.task import Task
from methods.curvature.covariances import Factors, collect_factors
from methods.curvature.fisher_sampling import Sampling
from methods.curvature.second_moments import collect_second_moments
from methods.eigendamage.directions import Ranking, limit_ranking
from methods.eigendamage.kronecker import Basis, Directions, damage, directions, eigenbases, predict_from_variances
from methods.eigendamage.marginal import find_marginal_scores
from methods.eigendamage.rotation import Parts, build_three_parts, core_name, core_of, parts, rotations
from methods.eigendamage.rotation_cost import Form, Forms, Shape
from methods.eigendamage.separable import Separated, separable
from methods.network.chains import blocks, groups_of, realise

ScoreNorm = Literal["none", "layer_sum", "per_mac", "per_param", "marginal"]
"""What scores of directions are divided by before layers are compared; ``"marginal"`` is ``"per_mac"`` with what a
direction costs and saves when it is the next to go."""


def analyse(
    model: nn.Module,
    split: Split,
    layers: Sequence[str],
    sampling: Sampling,
    measured: bool,
    analyses: Analyses,
    progress: Progress = ignore_progress,
    task: Task | None = None,
) -> Tensors:
    """Find the eigenbases of layers, and what deleting each entry of their rotated weights costs.

    Args:
        model: The network; layers that were rewritten into three parts are represented by their cores.
        split: Training data.
        layers: Names of the layers in the dense network.
        sampling: What the Fisher matrix is estimated from.
        measured: Whether variances are measured in the eigenbasis (EK-FAC) after it was found.
        analyses: Where known analyses come from.
        progress: Is called with how far it is.
        task: What the network is for; classification by default.

    Returns:
        By name of layer, float64 on the CPU: ``NAME.columns``, ``Q_A [groups, inputs, inputs]``; ``NAME.rows``,
        ``Q_G [groups, outputs, outputs]``; ``NAME.damage``, ``Theta [groups, outputs, inputs]``.
    """
    cores = {name: core_name(model, name) for name in layers}

    def collect() -> Tensors:
        found = collect_factors(
            model,
            sampling.batches(split, "covariances, by example", progress),
            list(cores.values()),
            fisher=sampling.fisher,
            labels=sampling.labels,
            generator=sampling.generator(),
            task=task,
        )
        return {f"{name}.inputs": found[core].inputs.cpu() for name, core in cores.items()} | {
            f"{name}.outputs": found[core].outputs.cpu() for name, core in cores.items()
        }

    def compute() -> Tensors:
        settings = sampling.settings() | {"full": False}
        factors = analyses.get("kronecker_factors", settings, collect)
        progress("eigenbases, by layer", 0, len(layers))
        bases = eigenbases({
            name: Factors(factors[f"{name}.inputs"], factors[f"{name}.outputs"], sampling.samples) for name in layers
        })
        thetas = _measure(bases) if measured else _predict(bases)
        return {
            f"{name}.{part}": tensor
            for name, basis in bases.items()
            for part, tensor in (("columns", basis.inputs), ("rows", basis.outputs), ("damage", thetas[name]))
        }

    def _weight(name: str) -> Tensor:
        core = core_of(model.get_submodule(name))
        return blocks(core.weight, groups_of(core)).cpu()

    def _predict(bases: Mapping[str, Basis]) -> dict[str, Tensor]:
        return {name: damage(_weight(name), basis) for name, basis in bases.items()}

    def _measure(bases: Mapping[str, Basis]) -> dict[str, Tensor]:
        moments = collect_second_moments(
            model,
            sampling.batches(split, "variances in the eigenbasis, by example", progress),
            list(cores.values()),
            {cores[name]: (basis.inputs, basis.outputs) for name, basis in bases.items()},
            fisher=sampling.fisher,
            labels=sampling.labels,
            generator=sampling.generator(),
            task=task,
        )
        return {
            name: predict_from_variances(_weight(name), basis, moments[cores[name]].cpu())
            for name, basis in bases.items()
        }

    return analyses.get("eigenbases", sampling.settings() | {"measured": measured}, compute)


@dataclass(frozen=True)
class Kept:
    """What is kept of one layer.

    Attributes:
        columns: Input directions per group.
        rows: Output directions per group.
        form: How the layer is built; where that is the dense layer, or a side is multiplied out with the core,
            all directions of that side are kept, at no cost.
        damage: Predicted increase of the loss.
    """

    columns: int
    rows: int
    form: Form
    damage: float


class Eigenspace:
    """The directions of a network at one moment.

    A *choice* is a list of kept numbers: input directions, then output directions per group, layer by layer.

    Args:
        model: The network, some of whose layers may have three parts already.
        shapes: Shapes of the dense layers, by name.
        analysis: What :func:`analyse` found.
        forms: Which forms the layers take in the end.
        rest: Multiply-accumulates of everything else.
    """

    def __init__(
        self, model: nn.Module, shapes: Mapping[str, Shape], analysis: Tensors, forms: Forms, rest: int
    ) -> None:
        self.model = model
        self.shapes = dict(shapes)
        self._bases = {name: (analysis[f"{name}.columns"], analysis[f"{name}.rows"]) for name in shapes}
        self._thetas = {name: analysis[f"{name}.damage"] for name in shapes}
        self._directions = {name: directions(theta) for name, theta in self._thetas.items()}
        self._dense = {name: not isinstance(model.get_submodule(name), nn.Sequential) for name in shapes}
        self._forms, self._rest = forms, rest

    def rankings(self, limit: float, norm: ScoreNorm, round_to: int) -> list[Ranking]:
        """Rank the directions on both sides of every layer by the damage of removing one alone.

        Args:
            limit: Largest share of the directions of the dense layer that may go on each side.
            norm: What damages are divided by.
            round_to: Kept directions are multiples of this, over all groups of a layer.

        Returns:
            Two rankings per layer: inputs, outputs.
        """
        ranked = []
        for name, shape in self.shapes.items():
            step = shape.step(round_to)
            sizes = shape.columns, shape.rows
            for scores, size in zip(_compare(shape, self._directions[name], norm), sizes, strict=True):
                ranked.append(Ranking(scores, min(limit_ranking(size, limit), len(scores)), step))
        return ranked

    def flops(self, choice: Sequence[int]) -> int:
        """Count the multiply-accumulates of the network after a choice, without building it.

        Args:
            choice: Kept numbers.

        Returns:
            Exactly what :func:`methods.network.cost.count` finds on the network that is built in the end.
        """
        return self._rest + sum(self._form(name, *pair).cost.flops for name, pair in self._pairs(choice))

    def count_left(self, name: str) -> tuple[int, int]:
        """Count the directions of a layer.

        Args:
            name: The layer.

        Returns:
            Input and output directions per group.
        """
        found = self._directions[name]
        return len(found.column_scores), len(found.row_scores)

    def price(self, name: str, columns: int, rows: int) -> int:
        """Count the multiply-accumulates of one layer.

        Args:
            name: The layer.
            columns: Kept input directions per group.
            rows: Kept output directions per group.

        Returns:
            Those of its cheapest form.
        """
        return self._form(name, columns, rows).cost.flops

    def describe_choice(self, choice: Sequence[int], final: bool = True) -> dict[str, Kept]:
        """Work out what a choice means for every layer.

        Args:
            choice: Kept numbers.
            final: Whether layers take the form of the end, or have three parts because another round follows.

        Returns:
            What is kept, by name of layer.
        """
        decided = {}
        for name, (columns, rows) in self._pairs(choice):
            form, found = self._form(name, columns, rows), self._directions[name]
            whole = self.count_left(name)
            if form.segments is None:
                columns, rows = whole
            elif final:
                # A side that is multiplied out with the core costs the same however much of it is kept.
                columns = columns if form.segments[0] == 1 else whole[0]
                rows = rows if form.segments[-1] == 1 else whole[1]
            decided[name] = Kept(columns, rows, form, found.union(columns, rows))
        return decided

    def rewrite_in_three_parts(self, kept: Mapping[str, Kept]) -> nn.Module:
        """Rewrite the layers into three parts.

        Args:
            kept: What is kept of each.

        Returns:
            A copy of the network.
        """
        smaller = copy.deepcopy(self.model)
        for name, each in kept.items():
            if each.form.segments is not None:
                module = smaller.get_submodule(name)
                smaller.set_submodule(name, build_three_parts(module, self._parts(name, module, each)))
        return smaller

    def rewrite(self, kept: Mapping[str, Kept], sweeps: int, generator: torch.Generator) -> Rewritten:
        """Rewrite the layers into the form of the end.

        Args:
            kept: What is kept of each.
            sweeps: Of the decomposition of depthwise cores.
            generator: Draws its start.

        Returns:
            The rewritten copy of the network.
        """
        smaller, fixed, errors, harm = copy.deepcopy(self.model), [], {}, 0.0
        for name, each in kept.items():
            if each.form.segments is None:
                continue
            module = smaller.get_submodule(name)
            found = self._parts(name, module, each)
            if each.form.rank is not None:
                separated = separable(module, found, each.form.rank, sweeps, generator)
                smaller.set_submodule(name, separated.chain)
                errors[name] = separated.error
                harm += self._separation_damage(name, each, found, separated)
                continue
            built = realise(build_three_parts(module, found), each.form.segments)
            fixed += rotations(built, each.form.segments)
            smaller.set_submodule(name, built)
        return Rewritten(smaller, fixed, errors, harm)

    def _separation_damage(self, name: str, kept: Kept, found: Parts, separated: Separated) -> float:
        """Predict what missing the core costs, beside what was removed: in the eigenbasis damages add up."""
        # An entry that is missed by as much as it is large costs as much as its removal.
        theta, order = self._thetas[name], self._directions[name]
        rows, columns = order.rows[:, : kept.rows], order.columns[:, : kept.columns]
        whole = theta.gather(1, rows[:, :, None].expand(-1, -1, theta.shape[2]))
        whole = whole.gather(2, columns[:, None, :].expand(-1, kept.rows, -1))
        power = found.core.square().sum(2).clamp_min(1e-300)
        return float((whole * (separated.missed / power).to(whole)).sum())

    def _parts(self, name: str, module: nn.Module, kept: Kept) -> Parts:
        found, (inputs, outputs) = self._directions[name], self._bases[name]
        return parts(
            module, _take_first(inputs, found.columns, kept.columns), _take_first(outputs, found.rows, kept.rows)
        )

    def _pairs(self, choice: Sequence[int]) -> zip[tuple[str, tuple[int, int]]]:
        return zip(self.shapes, zip(choice[::2], choice[1::2], strict=True), strict=True)

    def _form(self, name: str, columns: int, rows: int) -> Form:
        return self._forms.choose_best(self.shapes[name], columns, rows, dense=self._dense[name])


def flops_of(shapes: Mapping[str, Shape], choice: Sequence[int], forms: Forms, rest: int) -> int:
    """Count the multiply-accumulates that a choice leaves of a dense network, whatever its scores.

    Args:
        shapes: Shapes of the dense layers, by name.
        choice: Kept numbers: input directions, then output directions per group, layer by layer.
        forms: Which forms the layers take.
        rest: Multiply-accumulates of everything else.

    Returns:
        Multiply-accumulates for one input.
    """
    pairs = zip(shapes.values(), choice[::2], choice[1::2], strict=True)
    return rest + sum(forms.choose_best(shape, columns, rows).cost.flops for shape, columns, rows in pairs)


@dataclass(frozen=True)
class Rewritten:
    """A rewritten network.

    Attributes:
        model: The network.
        rotations: Weights of layers that do nothing but rotate.
        separation_errors: Relative error of each core that was made depthwise, by name of layer.
        separation_damage: What these errors cost in all: predicted increase of the loss.
    """

    model: nn.Module
    rotations: Sequence[nn.Parameter]
    separation_errors: Mapping[str, float]
    separation_damage: float


def list_rotations(model: nn.Module, layers: Sequence[str]) -> list[nn.Parameter]:
    """Return the weights that do nothing but rotate, of layers in three parts.

    Args:
        model: The network.
        layers: Names of layers in the dense network.

    Returns:
        The weights of first and last parts.
    """
    modules = [model.get_submodule(name) for name in layers]
    return [weight for module in modules for weight in rotations(module, (1, 1, 1))]


def _take_first(basis: Tensor, order: Tensor, kept: int) -> Tensor:
    """Take the first directions of every group: ``[groups, n, kept]``."""
    index = order[:, None, :kept].expand(-1, basis.shape[1], -1)
    return basis.gather(2, index)


def _compare(shape: Shape, found: Directions, norm: ScoreNorm) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the scores of input and output directions in a unit that all layers share, each descending."""
    if norm == "marginal":
        return find_marginal_scores(found, lambda columns, rows: _count_flops(shape, columns, rows))
    column, row = _divisors(shape, found, norm)
    return tuple((found.column_scores * (1 / column)).tolist()), tuple((found.row_scores * (1 / row)).tolist())


def _count_flops(shape: Shape, columns: int, rows: int) -> int:
    """Count the multiply-accumulates of three parts."""
    return shape.realisation_costs(columns, rows)[1, 1, 1].flops


def _divisors(shape: Shape, found: Directions, norm: ScoreNorm) -> tuple[float, float]:
    """Return what the scores of input and output directions are divided by."""
    if norm == "none":
        return 1.0, 1.0
    if norm == "layer_sum":
        total = max(float(found.kept_damage[-1, -1]), 1e-300)
        return total, total
    whole = shape.realisation_costs(shape.columns, shape.rows)[1, 1, 1]
    one_less = (
        shape.realisation_costs(shape.columns - 1, shape.rows)[1, 1, 1],
        shape.realisation_costs(shape.columns, shape.rows - 1)[1, 1, 1],
    )
    field = {"per_mac": "flops", "per_param": "params"}[norm]
    column, row = (float(getattr(whole, field) - getattr(less, field)) for less in one_less)
    return column, row
