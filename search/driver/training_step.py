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

LARGE_BATCH = 32
"""Examples in a second one, where steps are fast: much of a small network's step is paid whatever the batch."""

FAST = 0.25
"""Seconds of a step of the smaller batch up to which there is a second one."""

REPEATS = 3
"""Fast steps of either size; the fastest counts, for other work can only slow them."""

MANY_BYTES = 2**30
"""What the larger batch may keep for the backward pass."""


@dataclass(frozen=True)
class Training:
    """What one step of training takes on this machine.

    Attributes:
        seconds: Time of forward and backward pass for each example on the CPU, with as many threads as torch was given.
        bytes: What is kept of the forward pass for the backward pass.
        fixed_bytes: Weights, gradients and one momentum, whatever the batch.
        batch: Examples in the step that was timed, made up where there are no data.
        fixed_seconds: Time of a step whatever the batch; 0 where it was not told apart.
    """

    seconds: float
    bytes: float
    fixed_bytes: int
    batch: int = MEASURED_BATCH
    fixed_seconds: float = 0.0

    def step_seconds(self, batch: int) -> float:
        """Guess the time of one step.

        Args:
            batch: Examples in a step.

        Returns:
            Seconds.
        """
        return self.fixed_seconds + self.seconds * batch

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
            Batch, seconds of a step of it and the part of them that hangs on no batch, and megabytes in all and for
            each further example.
        """
        return {
            "batch": self.batch,
            "seconds_per_step": self.step_seconds(self.batch),
            "fixed_seconds_per_step": self.fixed_seconds,
            "megabytes_per_step": self.megabytes(self.batch),
            "megabytes_per_example": self.bytes / 2**20,
        }


def measure_training(model: nn.Module, example: Inputs) -> Training | None:
    """Time one step of training, and count what it keeps.

    Args:
        model: The network; not changed.
        example: One input.

    Returns:
        Time and memory of steps; None if the network gives nothing that can be trained.
    """
    copied = copy_network(model).train()
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.random.fork_rng(devices=[]):
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            first = _step_seconds(copied, repeat(example, MEASURED_BATCH))
        if first is None:
            return None
        own = {parameter.data_ptr() for parameter in copied.parameters()}
        activations = sum(size for place, size in kept.items() if place not in own) / MEASURED_BATCH
        weights = sum(parameter.numel() * parameter.element_size() for parameter in copied.parameters())
        fixed, each = 0.0, first / MEASURED_BATCH
        if first < FAST and activations * LARGE_BATCH < MANY_BYTES:  # the first step also warmed up
            small, large = (
                min(_step_seconds(copied, repeat(example, size)) or first for _ in range(REPEATS))
                for size in (MEASURED_BATCH, LARGE_BATCH)
            )
            # seconds = fixed + each * batch, through both measurements; neither part is below 0
            each = min(max(0.0, large - small) / (LARGE_BATCH - MEASURED_BATCH), large / LARGE_BATCH)
            fixed = max(0.0, small - each * MEASURED_BATCH)
    return Training(each, activations, 3 * weights, fixed_seconds=fixed)


def _step_seconds(model: nn.Module, batch: Inputs) -> float | None:
    """Time one step; None if the network gives nothing that can be trained."""
    start = time.perf_counter()
    answers = [each for each in outputs_in(call(model, batch)) if each.requires_grad]
    if not answers:
        return None
    torch.stack([each.float().sum() for each in answers]).sum().backward()
    return time.perf_counter() - start
