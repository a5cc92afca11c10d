"""Inputs of one, several or named tensors are treated alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.contract.inputs import (
    Inputs,
    batch_size,
    call,
    check_inputs,
    get_first_tensor,
    move,
    pieces,
    repeat,
    shapes_of,
    take,
    tensors,
)
from spaces import InputError

ONE, OTHER = torch.arange(8.0).view(4, 2), torch.arange(4)
CASES: dict[str, Inputs] = {"tensor": ONE, "tuple": (ONE, OTHER), "dict": {"a": ONE, "b": OTHER}}


class TwoInputs(nn.Module):
    """Adds its inputs."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b[:, None]


@pytest.mark.parametrize("name", CASES)
def test_batches_are_taken_apart_and_kept_together(name: str) -> None:
    inputs = CASES[name]
    assert batch_size(inputs) == 4
    assert get_first_tensor(inputs) is ONE
    assert type(take(inputs, slice(1, 3))) is type(inputs)
    assert tensors(take(inputs, slice(1, 3)))[0].tolist() == [[2, 3], [4, 5]]
    found = pieces(inputs, 3)
    assert [batch_size(each) for each in found] == [2, 1, 1]
    for position, whole in enumerate(tensors(inputs)):
        assert torch.equal(torch.cat([tensors(each)[position] for each in found]), whole)
        assert torch.equal(tensors(repeat(inputs, 2))[position], torch.cat([whole, whole]))
        assert tensors(move(inputs, "cpu"))[position] is whole


def test_a_network_is_called_with_positions_or_names() -> None:
    expected = ONE + OTHER[:, None]
    assert torch.equal(call(TwoInputs(), (ONE, OTHER)), expected)
    assert torch.equal(call(TwoInputs(), {"b": OTHER, "a": ONE}), expected)
    assert torch.equal(call(nn.Identity(), ONE), ONE)


def test_shapes_are_described_in_json() -> None:
    assert shapes_of(ONE) == [4, 2]
    assert shapes_of((ONE, OTHER)) == [[4, 2], [4]]
    assert shapes_of({"a": ONE, "b": OTHER}) == {"a": [4, 2], "b": [4]}


def test_lists_become_tuples_and_the_rest_stays() -> None:
    assert check_inputs([ONE, OTHER], "inputs") == (ONE, OTHER)
    assert check_inputs(ONE, "inputs") is ONE


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("words", "inputs must be a tensor, a tuple of tensors or a dict of tensors, not str"),
        ((ONE, 3), "not a tuple of Tensor, int"),
        ({"a": 1.0}, "not a dict of float"),
        ((), "not a tuple of nothing"),
        ((ONE, OTHER[:3]), r"the batch as their first dimension, not \[\[4, 2\], \[3\]\]"),
        (torch.tensor(1.0), r"the batch as their first dimension, not \[\]"),
    ],
)
def test_anything_else_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_inputs(given, "inputs")
