"""What a step of training takes on this machine: measured before anything is trained, to guess what a trial takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs, call, outputs_in, repeat
from methods.network.copying import copy_network

MEASURED_BATCH = 4
"""Examples in the step of training that is timed."""


@dataclass(frozen=True)
class Training:
    """What one step of training takes on this machine, for one example.

    Attributes:
        seconds: Time of forward and backward pass on the CPU, with as many threads as torch was given.
        bytes: What is kept of the forward pass for the backward pass.
        fixed_bytes: Weights, gradients and one momentum, whatever the batch.
        batch: Examples in the step that was timed, made up where there are no data.
    """

    seconds: float
    bytes: float
    fixed_bytes: int
    batch: int = MEASURED_BATCH

    def megabytes(self, batch: int) -> float:
        """Guess the memory of training.

        Args:
            batch: Examples in a step.

        Returns:
            MB.
        """
        return (self.fixed_bytes + self.bytes * batch) / 2**20

    def to_json(self) -> dict[str, float]:
        """Return the measurement in JSON's types.

        Returns:
            Batch, seconds of a step of it, and megabytes in all and for each further example.
        """
        return {
            "batch": self.batch,
            "seconds_per_step": self.seconds * self.batch,
            "megabytes_per_step": self.megabytes(self.batch),
            "megabytes_per_example": self.bytes / 2**20,
        }


def measure_training(model: nn.Module, example: Inputs) -> Training | None:
    """Time one step of training, and count what it keeps.

    Args:
        model: The network; not changed.
        example: One input.

    Returns:
        Time and memory for one example; None if the network gives nothing that can be trained.
    """
    copied = copy_network(model).train()
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch = repeat(example, MEASURED_BATCH)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), torch.random.fork_rng(devices=[]):
        start = time.perf_counter()
        answers = [each for each in outputs_in(call(copied, batch)) if each.requires_grad]
        if not answers:
            return None
        torch.stack([each.float().sum() for each in answers]).sum().backward()
        seconds = time.perf_counter() - start
    own = {parameter.data_ptr() for parameter in copied.parameters()}
    activations = sum(size for place, size in kept.items() if place not in own)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in copied.parameters())
    return Training(seconds / MEASURED_BATCH, activations / MEASURED_BATCH, 3 * weights)
