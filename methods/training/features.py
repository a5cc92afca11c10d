"""Distillation of features: a student looks where its teacher looks, whatever number of channels it has left.

Attention transfer: S. Zagoruyko, N. Komodakis, ICLR 2017, arXiv 1612.03928, equations (1) and (2) with p = 2. An
attention map sums the squares of all channels, so that a network without half of its channels still has one of the same
shape, and nothing has to be learned to compare the two.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.contract.inputs import Inputs, call
from spaces import InputError

Features = dict[str, Tensor]
"""Outputs ``[batch, channels, height, width]`` by name of module."""


class FeatureMatch:
    """Compares the attention maps of two networks where the teacher is about to halve its maps.

    Args:
        teacher: The dense network, frozen.
        student: The network that learns, with modules under the teacher's names.
        inputs: A batch of inputs, by which the places are found.

    Raises:
        InputError: If no module of both networks gives maps.
    """

    def __init__(self, teacher: nn.Module, student: nn.Module, inputs: Inputs) -> None:
        self.teacher = teacher
        self.places = _find_last_of_each_size(teacher, student, inputs)
        if not self.places:
            raise InputError(
                "recipe.distill_features compares maps [batch, channels, height, width], and no module of this network "
                "gives one; set it to 0"
            )

    def ask_teacher(self, inputs: Inputs) -> tuple[Any, Features]:
        """Ask the teacher.

        Args:
            inputs: A batch.

        Returns:
            Its output, and its features.
        """
        with torch.no_grad(), self.watch(self.teacher) as seen:
            return call(self.teacher, inputs), seen

    @contextmanager
    def watch(self, model: nn.Module) -> Generator[Features]:
        """Collect the features of a network while it runs.

        Args:
            model: Teacher or student.

        Yields:
            The features of its last pass, by name of module.
        """
        seen: Features = {}
        with ExitStack() as hooks:
            for name in self.places:
                hooks.enter_context(_Hooked(model.get_submodule(name), name, seen))
            yield seen

    def distance(self, student: Features, teacher: Features) -> Tensor:
        """Measure how differently the two look at a batch.

        Args:
            student: Its features.
            teacher: Its features for the same inputs.

        Returns:
            A scalar from 0, where all maps agree, to 1, where none overlap.
        """
        apart = []
        for name in self.places:
            ours, theirs = attention(student[name]), attention(teacher[name])
            # eq. (2), squared: || Q_S / ||Q_S|| - Q_T / ||Q_T|| ||^2 <= 2, for no entry is negative
            apart.append((ours - theirs).square().sum(dim=1).mean() / 2)
        return torch.stack(apart).mean()


def attention(features: Tensor) -> Tensor:
    """Sum up where a layer is active (eq. (1)).

    Args:
        features: ``[batch, channels, height, width]``.

    Returns:
        ``[batch, height * width]``, float32 or finer, of length 1 for every example.
    """
    precise = features.to(torch.promote_types(features.dtype, torch.float32))
    return F.normalize(precise.square().sum(dim=1).flatten(1), dim=1)


class _Hooked:
    """A hook on one module that is taken away at the end."""

    def __init__(self, module: nn.Module, name: str, seen: Features) -> None:
        self.module, self.name, self.seen = module, name, seen

    def __enter__(self) -> None:
        self.handle = self.module.register_forward_hook(self._keep)

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _keep(self, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            self.seen[self.name] = output


def _find_last_of_each_size(teacher: nn.Module, student: nn.Module, inputs: Inputs) -> tuple[str, ...]:
    """Find, for every size of maps, the last module that gives such maps and that both networks have."""
    shared = {name for name, _ in student.named_modules()} - {""}
    last: dict[tuple[int, ...], str] = {}
    seen: Features = {}
    with ExitStack() as hooks, torch.no_grad():
        for name, module in teacher.named_modules():
            if name in shared:
                hooks.enter_context(_Hooked(module, name, seen))
        call(teacher, inputs)
    for name, output in seen.items():  # in the order in which they ran, the innermost first
        if output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            last[tuple(output.shape[2:])] = name
    return tuple(last.values())
