"""Networks and data that users name as ``package.module:function``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from methods.contract.inputs import get_first_tensor
from search.tasks.data.parts import Data
from search.tasks.data.sets import load_data
from search.tasks.data.sizes import SplitSizes
from search.tasks.data.splits import TensorSplit
from search.tasks.models import build_model
from spaces import InputError

Write = Callable[[str], str]
NUMBERS = count()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module into the working directory and return its name."""
    names: list[str] = []

    def write(source: str) -> str:
        names.append(f"users_own_{next(NUMBERS)}")
        (tmp_path / f"{names[-1]}.py").write_text(source)
        return names[-1]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield write
    for name in names:
        sys.modules.pop(name, None)


def build(reference: str) -> nn.Module:
    return build_model(reference, 5, (1, 3, 4, 4), seed=0)


NET = """
import torch
def plain():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5))
def named(num_classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, num_classes))
def short(width=3, classes=2):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, classes))
def anything(**options):
    return named(**options)
class Net(torch.nn.Sequential):
    def __init__(self, classes):
        super().__init__(torch.nn.Flatten(), torch.nn.LazyLinear(classes))
def two():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
def word():
    return "resnet"
def broken():
    raise ZeroDivisionError("oh")
class Pair(torch.nn.Module):
    def __init__(self):
        super().__init__()
    def forward(self, x):
        return x, x
constant = 3
"""


@pytest.mark.parametrize("function", ["plain", "named", "short", "anything", "Net"])
def test_users_model_is_called_as_its_signature_allows(module: Write, function: str) -> None:
    path = list(sys.path)
    reference = f"{module(NET)}:{function}"
    first, again = build(reference), build(reference)
    assert first(torch.zeros(2, 3, 4, 4)).shape == (2, 5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert sys.path == path


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("named_", r"model 'users_own_\d+:named_': unknown name in users_own_\d+: 'named_'; did you mean 'named'"),
        ("constant", "constant is an int, not a function"),
        ("word", r"must return a torch\.nn\.Module, not str"),
        ("broken", "failed: ZeroDivisionError: oh"),
        ("two", r"gives \[2, 2\] for 2 inputs instead of \[2, 5\]"),
        ("Pair", "returns a tuple of 2; set output_key"),
        ("a b", r"must have the form package\.module:Name"),
    ],
)
def test_what_is_wrong_with_a_users_model_is_said(module: Write, function: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        build(f"{module(NET)}:{function}")


def test_missing_module(module: Write) -> None:
    with pytest.raises(InputError, match="there is no module 'users_absent'; it must be installed or lie in"):
        build("users_absent:net")


@pytest.mark.parametrize(("source", "said"), [("1 / 0", "ZeroDivisionError"), ("import absent_one", "absent_one")])
def test_module_that_does_not_import(module: Write, source: str, said: str) -> None:
    name = module(source)
    with pytest.raises(InputError, match=rf"importing {name} failed: .*{said}"):
        build(f"{name}:net")


HEAD = "import numpy as np, torch\nx = np.arange(60 * 12, dtype=np.uint8).reshape(60, 3, 2, 2); y = np.arange(60) % 3\n"


def load(module: Write, body: str, sizes: SplitSizes | None = None) -> Data:
    return load_data(f"{module(HEAD + body)}:data", Path("data"), sizes or SplitSizes())


def test_users_arrays_are_split_in_three(module: Write) -> None:
    data = load(module, "def data(): return x, y")
    parts = (data.train, data.validation, data.test)
    assert [part.examples for part in parts] == [42, 6, 12]
    assert (data.outputs, get_first_tensor(data.example).shape, get_first_tensor(data.example).dtype) == (
        3,
        (1, 3, 2, 2),
        torch.float32,
    )
    for part in parts:
        ((_, labels),) = part.batches(60)
        assert len(set(torch.bincount(labels).tolist())) == 1  # stratified
    ((inputs, _),) = data.train.batches(60)
    assert inputs.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert (inputs.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-4


def test_users_test_set_is_kept_and_floats_are_taken_as_they_are(module: Write) -> None:
    data = load(module, "def data(): return (torch.tensor(x) / 7, y), (torch.tensor(x[:9]) / 7, y[:9])")
    assert [part.examples for part in (data.train, data.validation, data.test)] == [54, 6, 9]
    ((inputs, labels),) = data.test.batches(60)
    expected: Tensor = torch.arange(9 * 12, dtype=torch.uint8).view(9, 3, 2, 2) / 7
    assert torch.equal(inputs, expected)
    assert labels.tolist() == [0, 1, 2] * 3
    assert isinstance(data.test, TensorSplit) and data.test.inputs.dtype == torch.float32


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def data(): return 3", r"must return \(inputs, labels\) or"),
        ("def data(): return x, y[:5]", r"60 inputs \[60, 3, 2, 2\] for 5 labels \[5\]"),
        ("def data(): return x, y - 1", "labels must be whole numbers from 0"),
        ("def data(): return x, y / 2", "labels must be whole numbers from 0, not torch.float64"),
        ("def data(): return x, y * 2", "labels go up to 4, but no example has label 1"),
        ("def data(): return x, y * 0", "at least 2 classes"),
        ("def data(): return x.astype(np.int64), y", "must be uint8 or floats, not torch.int64"),
        ("def data(): return x / np.float32(0) * 0, y", "NaN or infinite"),
        ("def data(): return ['a'], y", "must be an array of numbers, not a list of words$"),
        ("def data(): return (x, y), (x[:, :2], y)", r"test part are torch.uint8 \[2, 2, 2\]"),
        ("def data(): return (x, y), (x, y + 1)", "test part has label 3, the training part has 3 classes"),
        ("def data(): open('nowhere')", "failed: FileNotFoundError"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*(divide|invalid value).*:RuntimeWarning")
def test_what_is_wrong_with_a_users_data_is_said(module: Write, body: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load(module, body)


def test_test_size_beside_a_test_set(module: Write) -> None:
    with pytest.raises(InputError, match=r"has a test set of its own: leave split.test = 0.5 out"):
        load(module, "def data(): return (x, y), (x, y)", SplitSizes(test=0.5))


def test_a_users_module_that_one_of_our_packages_hides_is_named(
    module: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "methods.py").write_text("scale = 2\n")
    name = module("from methods import scale\ndef net():\n    return None\n")
    wanted = rf"paretoprune has a package 'methods' of its own, which hides yours in {tmp_path}; rename yours"
    with pytest.raises(InputError, match=wanted):
        build(f"{name}:net")
    name = module("from methods import nothing_like_it\ndef net():\n    return None\n")
    (tmp_path / "methods.py").unlink()
    with pytest.raises(InputError, match="ImportError: cannot import name 'nothing_like_it'"):
        build(f"{name}:net")
