"""Forward and backward passes recorded once, as a CUDA graph, and replayed for every batch.

On a GPU a small network mostly waits for its kernels to be launched one by one; a graph launches them all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs, Target
from spaces import InputError

WARM_UPS = 3
"""Batches before recording, in which libraries choose their kernels and take their memory."""

TOLERANCE = 0.02
"""How far a replayed loss may be from a computed one, as a share of it: half precision, summed in any order."""

Passes = Callable[[Inputs, Target], Tensor]
"""Computes the loss of a batch, leaves the gradients in the parameters, and returns the loss."""


class RecordedPasses:
    """Computes loss and gradients of batches: the first is recorded, those that follow are replayed.

    What is replayed are the kernels of the first batch on the same memory. So the network must do the same in every
    step. A batch of another shape is computed as usual; weights or statistics that lie elsewhere than before are
    recorded again.

    Args:
        model: The network, on a CUDA device, in training mode when it is called.
        passes: What is recorded; nothing of it may wait for the device.
    """

    def __init__(self, model: nn.Module, passes: Passes) -> None:
        self._model, self._passes = model, passes
        self._graph: torch.cuda.CUDAGraph | None = None
        self._places: list[int] = []

    def __call__(self, inputs: Inputs, target: Target) -> Tensor:
        """Compute the loss of a batch and its gradients.

        Args:
            inputs: ``[batch, ...]``.
            target: ``[batch, ...]``.

        Returns:
            The loss, a scalar that holds until the next call.

        Raises:
            InputError: If inputs or targets are not one tensor each, or the network does not do the same in every step.
        """
        if not isinstance(inputs, Tensor) or not isinstance(target, Tensor):
            raise InputError("recipe.cuda_graph needs inputs and targets that are one tensor each")
        if self._graph is None or self._places != _places(self._model):
            self._record(inputs, target)
        if inputs.shape != self._inputs.shape or target.shape != self._target.shape:
            return self._passes(inputs, target)
        return self._replay(inputs, target)

    def _replay(self, inputs: Tensor, target: Tensor) -> Tensor:
        assert self._graph is not None
        self._inputs.copy_(inputs)
        self._target.copy_(target)
        self._graph.replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._loss

    def _record(self, inputs: Tensor, target: Tensor) -> None:
        """Record the passes of a batch; the statistics of the network are afterwards what they were."""
        self._inputs, self._target = inputs.clone(), target.clone()
        buffers, generator = list(self._model.buffers()), torch.cuda.default_generators[inputs.device.index]
        before, drawn = [buffer.clone() for buffer in buffers], generator.get_state()
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UPS):
                self._model.zero_grad(set_to_none=True)
                generator.set_state(drawn)
                computed = self._passes(self._inputs, self._target).clone()
                _restore(buffers, before)
        torch.cuda.current_stream().wait_stream(beside)
        self._model.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile: only what this one must not do ends the recording.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._loss = self._passes(self._inputs, self._target)
        found = [(parameter, parameter.grad) for parameter in self._model.parameters()]
        self._gradients = [(parameter, gradient) for parameter, gradient in found if gradient is not None]
        self._graph, self._places = graph, _places(self._model)
        generator.set_state(drawn)
        _compare(float(self._replay(inputs, target)), float(computed))
        _restore(buffers, before)
        generator.set_state(drawn)


def _restore(buffers: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for buffer, held in zip(buffers, before, strict=True):
            buffer.copy_(held)


def _places(model: nn.Module) -> list[int]:
    """Where all tensors of a network lie in memory."""
    return [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]


def _compare(replayed: float, computed: float) -> None:
    """Refuse a network that does something else in each step; losses that are no numbers are the trainer's affair."""
    if abs(replayed - computed) > TOLERANCE * abs(computed):
        raise InputError(
            f"recipe.cuda_graph: the same batch has a loss of {replayed:.6g} when replayed and {computed:.6g} when "
            "computed; the network does not do the same in every step; leave cuda_graph out"
        )
