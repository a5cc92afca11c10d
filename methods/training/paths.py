"""Whether two trained networks lie in the same valley of the training loss.

The loss is measured along the straight line between them, and along a curve: a quadratic Bézier curve whose ends
are the networks and whose one free point is trained so that the loss along the curve is small. A path without a
barrier means one valley. A line may have a barrier where a curve has none.

Timur Garipov, Pavel Izmailov, Dmitrii Podoprikhin, Dmitry Vetrov, Andrew Gordon Wilson: "Loss Surfaces, Mode
Connectivity, and Fast Ensembling of DNNs", NeurIPS 2018, arXiv 1802.10026. As there, batch-norm statistics are
estimated again at every point of a path: between two networks they cannot be had by interpolation.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.contract.classification import Classification
from methods.contract.data import Split
from methods.contract.inputs import call
from methods.contract.recipe import Recipe, derive_seed
from methods.contract.task import Task
from methods.network.channels import ChannelGroup, cut, mask_units
from methods.network.compaction import expand, positions
from methods.network.layers import ZeroPadShortcut
from methods.training.evaluation import evaluate, recalibrate
from spaces import InputError

LINE_POINTS, CURVE_POINTS = 21, 61
"""Where losses are measured; the published comparisons look at 61 points of a curve."""


@dataclass(frozen=True)
class Profile:
    """Training loss along a path.

    Attributes:
        positions: Where, from 0 (first network) to 1 (second network).
        losses: Mean training loss there.
    """

    positions: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def barrier(self) -> float:
        """How far the highest loss lies above the larger end; 0 if nowhere."""
        return max(self.losses) - max(self.losses[0], self.losses[-1])

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        """Positions with their losses."""
        return tuple(zip(self.positions, self.losses, strict=True))


@dataclass(frozen=True)
class Paths:
    """Training loss on the two ways between two networks.

    Attributes:
        line: Along the straight line.
        curve: Along the trained curve.
    """

    line: Profile
    curve: Profile

    @property
    def numbers(self) -> dict[str, float]:
        """The losses in a few numbers.

        The networks' own are ``loss_unpruned`` and ``loss_pruned``. For either way follow the largest loss, and how
        far it lies above the larger end: ``line_max``, ``line_barrier``, ``curve_max``, ``curve_barrier``.
        """
        return {
            "loss_unpruned": self.line.losses[0],
            "loss_pruned": self.line.losses[-1],
            "line_max": max(self.line.losses),
            "line_barrier": self.line.barrier,
            "curve_max": max(self.curve.losses),
            "curve_barrier": self.curve.barrier,
        }

    @property
    def profiles(self) -> dict[str, tuple[tuple[float, float], ...]]:
        """The points of both ways: ``line`` and ``curve``."""
        return {"line": self.line.points, "curve": self.curve.points}


def line(
    one: nn.Module,
    other: nn.Module,
    train: Split,
    *,
    points: int = LINE_POINTS,
    batches: int = 20,
    seed: int = 0,
    task: Task | None = None,
) -> Profile:
    """Measure the training loss along the straight line between two networks of one shape.

    Args:
        one: First network; not changed.
        other: Second network; not changed.
        train: Training data.
        points: How many points, both ends included.
        batches: From how many batches of 128 batch-norm statistics are estimated at every point.
        seed: Decides which batches.
        task: Whose loss is measured; classification by default.

    Returns:
        The losses.
    """
    return _profile(_Path(one, other, None), train, points, batches, seed, task)


def curve(
    one: nn.Module,
    other: nn.Module,
    train: Split,
    *,
    steps: int,
    lr: float = 0.1,
    momentum: float = 0.9,
    batch_size: int = 128,
    points: int = CURVE_POINTS,
    batches: int = 20,
    seed: int = 0,
    task: Task | None = None,
) -> Profile:
    """Train a quadratic Bézier curve between two networks of one shape, and measure the training loss along it.

    Args:
        one: First network; not changed.
        other: Second network; not changed.
        train: Training data.
        steps: Steps of SGD for the control point, which starts in the middle.
        lr: Learning rate of the control point; falls linearly to nothing in the second half.
        momentum: Momentum of the control point.
        batch_size: Examples per step.
        points: How many points are measured, both ends included.
        batches: From how many batches of 128 batch-norm statistics are estimated at every point.
        seed: Decides everything random.
        task: Whose loss is trained and measured; classification by default.

    Returns:
        The losses.
    """
    task = Classification() if task is None else task
    control = [(a.detach() + b.detach()) / 2 for a, b in zip(one.parameters(), other.parameters(), strict=True)]
    path = _Path(one, other, control)
    optimizer = torch.optim.SGD(control, lr=lr, momentum=momentum)
    generator = torch.Generator().manual_seed(derive_seed(seed, 0))
    per_epoch = train.steps(batch_size)
    devices = [control[0].device] if control[0].is_cuda else []
    with torch.random.fork_rng(devices=devices):  # for dropout
        torch.manual_seed(derive_seed(seed, 1))
        path.model.train()
        for step in range(steps):
            if step % per_epoch == 0:
                data = train.epoch(batch_size, derive_seed(seed, 2, step))
            optimizer.param_groups[0]["lr"] = lr * min(1.0, 2 * (1 - step / steps))
            position = float(torch.rand((), generator=generator))
            path.move(position)
            inputs, target = next(data)
            torch.autograd.backward(task.training_loss(call(path.model, inputs), target))
            # d theta(t) / d control = 2 t (1 - t)
            for point, parameter in zip(control, path.model.parameters(), strict=True):
                point.grad = None if parameter.grad is None else 2 * position * (1 - position) * parameter.grad
            optimizer.step()
            path.model.zero_grad()
    return _profile(path, train, points, batches, seed, task)


def paths_between(
    unpruned: nn.Module,
    pruned: nn.Module,
    train: Split,
    recipe: Recipe,
    steps: int,
    seed: int,
    points: tuple[int, int] = (LINE_POINTS, CURVE_POINTS),
    task: Task | None = None,
) -> Paths:
    """Measure the training loss on both ways from a network to a pruned one.

    Args:
        unpruned: Where the ways begin.
        pruned: A pruned network in the shape of the other one (:func:`expand_to_dense_shape`).
        train: Training data.
        recipe: Batch size of the curve's training, and batches for batch-norm statistics (at least one epoch).
        steps: Steps for which the curve is trained.
        seed: Decides everything random.
        points: How many points of the line and of the curve, ends included.
        task: Whose loss is measured; classification by default.

    Returns:
        The losses.
    """
    batches = max(recipe.recalibrate, train.steps(128))
    straight = line(unpruned, pruned, train, points=points[0], batches=batches, seed=seed, task=task)
    bent = curve(
        unpruned,
        pruned,
        train,
        steps=steps,
        batch_size=recipe.batch_size,
        points=points[1],
        batches=batches,
        seed=seed,
        task=task,
    )
    return Paths(straight, bent)


def expand_to_dense_shape(
    dense: nn.Module, smaller: nn.Module, groups: Sequence[ChannelGroup], kept: Mapping[str, Sequence[int]]
) -> nn.Module:
    """Put a pruned network's weights back where they were in the dense one, among zeros.

    Args:
        dense: The dense network; not changed.
        smaller: The network that was cut out of it and trained on; not changed.
        groups: Channel groups of the dense network.
        kept: Units that were kept, by name of group.

    Returns:
        A network of the dense one's shape that computes what the smaller one does. Batch-norm statistics are the
        dense network's: they must be estimated again.

    Raises:
        InputError: If the pruned network is not the dense one less these units.
    """
    if not all(kept.values()):
        raise InputError(
            "the pruned network lacks whole blocks of the dense one; there is no straight line between networks of "
            "different layers"
        )
    twin = cut(dense, groups, kept)
    shapes = [{name: p.shape for name, p in model.named_parameters()} for model in (twin, smaller)]
    if shapes[0] != shapes[1]:
        odd = sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()})
        raise InputError(
            f"the pruned network is not the dense one less some channels: {', '.join(odd[:3])} differ; there is no "
            "straight line between networks of different layers"
        )
    return expand(smaller, mask_units(dense, groups, kept), positions(dense, groups, kept))


class _Path:
    """A network that can be moved along a path between two others.

    Args:
        one: Where the path begins.
        other: Where it ends.
        control: Control point of a quadratic Bézier curve; None for a straight line.
    """

    def __init__(self, one: nn.Module, other: nn.Module, control: Sequence[Tensor] | None) -> None:
        self.model = copy.deepcopy(one).requires_grad_(True)
        self._lanes = _blend_shortcuts(self.model, other)
        self._one = [p.detach() for p in one.parameters()]
        self._other = [p.detach() for p in other.parameters()]
        self._control = control

    @torch.no_grad()
    def move(self, position: float) -> None:
        """Go to a point of the path.

        Args:
            position: From 0 to 1.
        """
        t = position
        weights = (1 - t, 0.0, t) if self._control is None else ((1 - t) ** 2, 2 * t * (1 - t), t**2)
        for lane in self._lanes:
            lane.share.fill_(t)
        here: list[Tensor] = list(self.model.parameters())
        torch._foreach_zero_(here)
        for weight, end in zip(weights, (self._one, self._control, self._other), strict=True):
            if end is not None and weight:
                torch._foreach_add_(here, list(end), alpha=weight)


def _profile(path: _Path, train: Split, points: int, batches: int, seed: int, task: Task | None) -> Profile:
    """Measure the training loss at evenly spaced points."""
    positions = [index / (points - 1) for index in range(points)]
    losses = []
    for position in positions:
        path.move(position)
        recalibrate(path.model, train, batches, 128, derive_seed(seed, 3))
        losses.append(evaluate(path.model, train, task=task).loss)
    return Profile(tuple(positions), tuple(losses))


class _Blend(nn.Module):
    """A mixture of two parameter-free shortcuts: what interpolating their matrices of zeros and ones gives."""

    share: Tensor

    def __init__(self, one: ZeroPadShortcut, other: ZeroPadShortcut) -> None:
        super().__init__()
        self.one, self.other = one, copy.deepcopy(other)
        self.register_buffer("share", torch.zeros((), device=one.source.device))

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = torch.lerp(self.one(x), self.other(x), self.share.to(x.dtype))
        return mixed


def _blend_shortcuts(model: nn.Module, other: nn.Module) -> list[_Blend]:
    """Replace the shortcuts whose lanes differ between two networks."""
    blends = []
    for name, module in list(model.named_modules()):
        if isinstance(module, ZeroPadShortcut):
            twin = other.get_submodule(name)
            assert isinstance(twin, ZeroPadShortcut)
            if not torch.equal(module.source, twin.source):
                blends.append(_Blend(module, twin))
                model.set_submodule(name, blends[-1])
    return blends
