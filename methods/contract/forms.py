"""Equal forms: modules that give the same answer, of which a machine may run the fastest.

A layer that lists its equal forms is timed form by form wherever the latency of a network is measured, and where a
network is exported; what is fastest there is what runs. The network that was trained, counted and stored stays as it
is. Chains of plain layers (:mod:`methods.network.chains`) have equal forms without asking for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class EqualForms(Protocol):
    """A layer, a ``torch.nn.Module`` of one input tensor and one output tensor, that can run in several ways.

    A form made of ``torch.nn`` layers alone counts as plain: it is offered to compilers, which rearrange layers
    themselves, and a network is never run slower than with the plain forms of all its layers.
    """

    def equal_forms(self) -> dict[str, nn.Module]:
        """Build the ways to run this layer.

        Returns:
            By name; the layer as it is (a copy) comes first. All give the same output up to rounding, none shares
            tensors with the layer.
        """


@runtime_checkable
class FormsWithTail(EqualForms, Protocol):
    """A layer some of whose forms also run what follows it (activations and pooling of an image network)."""

    def forms_with_tail(self, tail: Sequence[nn.Module]) -> dict[str, nn.Module]:
        """Build the ways to run this layer together with what follows.

        Args:
            tail: The modules that follow, each reading the one before alone and treating every example by itself;
                may be none. To be copied.

        Returns:
            By name, other names than those of :meth:`equal_forms`; possibly none.
        """


@runtime_checkable
class ScalesOutputs(Protocol):
    """A layer of another kind than ``Conv2d`` and ``Linear`` that a batch norm behind it can be folded into."""

    def scale_outputs(self, scale: Tensor, shift: Tensor) -> None:
        """Multiply every output channel, and add to it; called without gradients on a copy for inference.

        Args:
            scale: ``[channels]``.
            shift: ``[channels]``.
        """
