"""Data sets by name."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from methods.contract.inputs import get_first_tensor
from search.tasks.data.digits import read_table
from search.tasks.data.download import open_dataset
from search.tasks.data.sets import DATA, load_data
from search.tasks.data.sizes import SplitSizes
from search.tasks.data.splits import TensorSplit
from spaces import InputError

STORED = os.environ.get("PARETOPRUNE_DATA")
needs_files = pytest.mark.skipif(STORED is None, reason="PARETOPRUNE_DATA names no folder with data sets")


def test_digits() -> None:
    data = load_data("digits", Path("nowhere"), SplitSizes())
    assert [part.examples for part in (data.train, data.validation, data.test)] == [1079, 359, 359]
    assert (data.name, data.outputs, tuple(get_first_tensor(data.example).shape)) == ("digits", 10, (1, 1, 8, 8))
    every = torch.cat([x for part in (data.train, data.validation, data.test) for x, _ in part.batches(2000)])
    assert abs(float(every.mean())) < 1e-3 and abs(float(every.std()) - 1) < 1e-3
    assert isinstance(data.train, TensorSplit)
    assert data.train.inputs.dtype == torch.uint8 and int(data.train.inputs.max()) == 240


def test_digits_are_those_that_scikit_learn_loads() -> None:
    from sklearn.datasets import load_digits

    table, bunch = read_table(), load_digits()
    assert np.array_equal(table[:, :-1], bunch.data)
    assert np.array_equal(table[:, -1], bunch.target)


def test_digits_sizes_and_seed() -> None:
    first = load_data("digits", Path(), SplitSizes(validation=100, test=0.5, seed=1))
    assert [part.examples for part in (first.train, first.validation, first.test)] == [799, 100, 898]
    same = load_data("digits", Path(), SplitSizes(validation=100, test=0.5, seed=1))
    other = load_data("digits", Path(), SplitSizes(validation=100, test=0.5, seed=2))
    assert first.train.fingerprint() == same.train.fingerprint() != other.train.fingerprint()


def test_parts_do_not_overlap() -> None:
    data = load_data("digits", Path(), SplitSizes())
    seen: set[bytes] = set()
    for part in (data.train, data.validation, data.test):
        assert isinstance(part, TensorSplit)
        rows = {row.numpy().tobytes() for row in part.inputs}
        assert not seen & rows  # all 1,797 digits differ
        seen |= rows
    assert len(seen) == 1797


def test_impossible_sizes() -> None:
    with pytest.raises(InputError, match=r"split.validation = 1797 takes 1797 of 1797 examples"):
        load_data("digits", Path(), SplitSizes(validation=1797))
    with pytest.raises(InputError, match=r"parts of 1078 \+ 1078 examples leave none of 1797"):
        load_data("digits", Path(), SplitSizes(validation=0.6, test=0.6))


def test_unknown_data_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown data 'cifar11'; did you mean 'cifar10{1,2}'"):
        load_data("cifar11", Path(), SplitSizes())


class Absent:
    """A data set of torchvision whose files are missing, without a connection."""

    def __init__(self, root: Path, train: bool, download: bool) -> None:
        if download:
            print("downloading")
            raise URLError("no connection")
        raise RuntimeError("Dataset not found or corrupted.")


def test_missing_files_without_a_connection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"'sevens' is not in .*no connection.*put its files into .*--data-root"):
        open_dataset(Absent, "sevens", tmp_path, "sevens-raw")
    assert capsys.readouterr().out == ""


@needs_files
@pytest.mark.parametrize(
    ("name", "examples", "shape"),
    [("cifar10", [45000, 5000, 10000], (1, 3, 32, 32)), ("mnist", [54000, 6000, 10000], (1, 1, 28, 28))],
)
def test_stored_sets(name: str, examples: list[int], shape: tuple[int, ...]) -> None:
    assert STORED is not None
    data = load_data(name, Path(STORED), SplitSizes())
    assert [part.examples for part in (data.train, data.validation, data.test)] == examples
    assert tuple(get_first_tensor(data.example).shape) == shape and data.outputs == 10
    inputs = torch.cat([x for x, _ in data.validation.batches(1000)])
    assert abs(float(inputs.mean())) < 0.05 and abs(float(inputs.std()) - 1) < 0.05
    labels = torch.cat([y for _, y in data.validation.batches(1000)])
    assert torch.bincount(labels).min() > 0.08 * examples[1]


def test_every_loader_exists() -> None:
    from importlib import import_module

    for where in DATA.values():
        module, _, function = where.partition(":")
        assert callable(getattr(import_module(module), function))
