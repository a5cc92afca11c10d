from __future__ import annotations

import pytest
import torch
from torch import nn

from methods.training.trainer import Diverged
from search.trials.kinds import NotFinite, failure_kind, require_finite
from spaces import InputError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "out_of_memory"),
        (Diverged(3, 0.5), "diverged"),
        (NotFinite("2 of 3"), "diverged"),
        (InputError("no candidate"), "infeasible"),
        (RuntimeError("out of luck"), "failed"),
        (SystemExit(3), "failed"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_every_failure_has_its_kind(error: BaseException, kind: str) -> None:
    assert failure_kind(error) == kind


def test_the_allocator_of_the_cpu_is_known_by_what_it_really_says() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60)
    assert failure_kind(raised.value) == "out_of_memory"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_with_weights_that_are_no_numbers_is_refused(value: float) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    require_finite(model)
    model.state_dict()["1.running_var"][0] = value
    with pytest.raises(NotFinite, match="1 of 6 tensors of the network are not finite, the first is 1.running_var"):
        require_finite(model)
