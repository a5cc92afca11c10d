"""What a network does is noted operation by operation, as long as that takes a reasonable time."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from methods.network.tape import record
from spaces import InputError


class Endless(nn.Module):
    """A network that never comes to an end."""

    def forward(self, x: Tensor) -> Tensor:
        while True:
            x = x + 1


class Waiting(nn.Module):
    """A network that waits for something else, as every process does on a busy machine."""

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.2)
        return x + 1


def test_a_network_without_end_is_given_up() -> None:
    network = nn.Sequential(nn.Identity(), Endless())
    with pytest.raises(InputError, match=r"followed for 0\.1 seconds and is not at its end \(in 1\); give a smaller"):
        record(network, torch.zeros(1, 2), False, seconds=0.1)


def test_time_in_which_the_processor_does_something_else_does_not_count() -> None:
    assert record(Waiting(), torch.zeros(1, 2), False, seconds=0.1).ops
