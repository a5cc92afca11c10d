"""The user's own torch datasets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from methods.contract.classification import Classification
from search.tasks.data.arrays import user_data
from search.tasks.data.datasets import DatasetSplit
from search.tasks.data.parts import Data
from search.tasks.data.sizes import SplitSizes
from search.tasks.data.splits import Augmentation
from search.tasks.regression import Regression
from spaces import InputError


class Noisy(Dataset[Any]):
    """Images of uint8 whose value is their number, changed at random whenever they are read."""

    def __init__(self, examples: int = 60, random: bool = False) -> None:
        self.examples, self.random = examples, random

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.full((1, 2, 2), float(index))
        return image + (torch.rand(1, 2, 2) if self.random else 0), index % 3


class Named(Noisy):
    """Examples as dicts."""

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return {"pixels": image, "age": torch.tensor([float(index)]), "labels": label}


class Endless(IterableDataset[Any]):
    """No length."""

    def __iter__(self) -> Iterator[Any]:
        yield torch.zeros(1), 0


def load(returned: Any, sizes: SplitSizes | None = None, task: Any = None) -> Data:
    return user_data(lambda: returned, "users:data", sizes or SplitSizes(), task or Classification())


def numbers(split: Any) -> list[int]:
    return [int(value) for x, _ in split.batches(7) for value in x[:, 0, 0, 0]]


def test_one_dataset_is_split_in_three_class_by_class() -> None:
    data = load(Noisy())
    parts = [numbers(part) for part in (data.train, data.validation, data.test)]
    assert [len(part) for part in parts] == [42, 6, 12]
    assert sorted(sum(parts, [])) == list(range(60))
    for part in parts:
        assert len({sum(number % 3 == kind for number in part) for kind in range(3)}) == 1
    assert data.outputs == 3 and isinstance(data.train, DatasetSplit)


def test_epochs_follow_from_the_seed_and_not_from_workers_or_global_state() -> None:
    train = load(Noisy(random=True)).train
    assert isinstance(train, DatasetSplit)
    state = torch.random.get_rng_state()
    first = [x for x, _ in train.epoch(8, seed=1)]
    torch.manual_seed(5)
    again = [x for x, _ in train.epoch(8, seed=1)]
    other = [x for x, _ in train.epoch(8, seed=2)]
    assert torch.equal(torch.cat(first), torch.cat(again)) and not torch.equal(torch.cat(first), torch.cat(other))
    assert torch.equal(torch.cat([x for x, _ in train.epoch(8, seed=1, start=2)]), torch.cat(first[2:]))
    assert torch.equal(torch.cat([x for x, _ in train.batches(5)]), torch.cat([x for x, _ in train.batches(9)]))
    torch.random.set_rng_state(state)
    train.workers = 2
    assert torch.equal(torch.cat([x for x, _ in train.epoch(8, seed=1)]), torch.cat(first))


def test_parts_and_loaders_are_taken_as_they_are() -> None:
    loader = DataLoader(Noisy(9), batch_size=2, shuffle=True)
    data = load({"train": DataLoader(Noisy(30)), "validation": Noisy(6), "test": loader})
    assert [part.examples for part in (data.train, data.validation, data.test)] == [30, 6, 9]
    assert numbers(data.test) == list(range(9))
    assert [part.examples for part in (load((Noisy(30), Noisy(6))).validation, load((Noisy(30), Noisy(6))).test)] == [
        3,
        6,
    ]


def test_dicts_become_named_inputs() -> None:
    data = load(Named())
    x, y = next(data.train.batches(4))
    assert set(x) == {"pixels", "age"} and x["age"].shape == (4, 1) and y.dtype == torch.int64
    targets = load([(torch.ones(2), torch.ones(3))] and Pairs(), task=Regression())
    assert targets.outputs == 3 and next(targets.train.batches(2))[1].shape == (2, 3)


class Pairs(Dataset[Any]):
    """Numbers to predict."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.full((2,), float(index)), torch.ones(3) * index


def test_fingerprints_tell_parts_apart() -> None:
    data, again, other = load(Noisy()), load(Noisy()), load(Noisy(61))
    assert data.train.fingerprint() == again.train.fingerprint()
    assert len({data.train.fingerprint(), data.test.fingerprint(), other.train.fingerprint()}) == 3


class Broken(Noisy):
    """Cannot be read."""

    def __getitem__(self, index: int) -> Any:
        raise OSError("no such picture")


class Few(Noisy):
    """Two classes."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.zeros(1, 2, 2), index % 2


class Late(Noisy):
    """Breaks at one example."""

    def __getitem__(self, index: int) -> Any:
        if index == 37:
            raise OSError("broken file")
        return super().__getitem__(index)


class Varied(Noisy):
    """Images of two sizes."""

    def __getitem__(self, index: int) -> Any:
        return torch.zeros(1, 2 + index % 2, 2), index % 3


class Pictures(Noisy):
    """Images without a transform."""

    def __getitem__(self, index: int) -> Any:
        return Image.new("RGB", (4, 4)), index % 3


class Triples(Noisy):
    """Three things."""

    def __getitem__(self, index: int) -> Any:
        return torch.zeros(1), 0, 1


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (Endless(), "the dataset has no length"),
        (Noisy(0), "train part: the dataset is empty"),
        (Broken(), "data 'users:data': reading example 0 failed: OSError: no such picture"),
        (Late(), "reading example 37 failed: OSError: broken file"),
        (Varied(), "the examples of a batch differ in their shapes"),
        (Pictures(), r"PIL.*; torchvision.transforms.ToTensor\(\) makes tensors of images"),
        (Triples(), r"each example must be \(input, target\), not list"),
        ((Noisy(), 3), r"must return \(inputs, labels\)"),
        (
            (Noisy(30), (torch.zeros(3, 1), torch.zeros(3))),
            "test part must be a torch Dataset or DataLoader like the others",
        ),
        ({"training": Noisy()}, "did you mean 'train'"),
        ({"test": Noisy()}, "has no part 'train', only 'test'"),
        ((Few(30), Noisy(30)), "the test part has label 2, the training part has 2 classes"),
    ],
)
def test_what_is_wrong_with_a_dataset_is_said(returned: Any, message: str) -> None:
    sizes = SplitSizes(validation=1)
    with pytest.raises(InputError, match=message):
        load(returned, sizes if not isinstance(returned, Noisy) else None)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_example_that_a_worker_cannot_read_is_named() -> None:
    with pytest.raises(InputError, match=r"^data 'users:data': reading example 37 failed: OSError: broken file$"):
        load(DataLoader(Late(), num_workers=1))


@pytest.mark.parametrize("part", [False, True])
def test_a_broken_file_of_torchvisions_folders_is_named_at_the_start(tmp_path: Path, part: bool) -> None:
    for number in range(30):
        (tmp_path / str(number % 3)).mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / str(number % 3) / f"{number}.png")
    whole = (tmp_path / "2" / "20.png").read_bytes()
    (tmp_path / "2" / "20.png").write_bytes(whole[: len(whole) // 2])
    dataset = ImageFolder(str(tmp_path), transform=ToTensor())
    with pytest.raises(InputError, match=r"images that cannot be read: .*/2/20.png"):
        load(Subset(dataset, list(range(20))) if part else dataset)


def test_words_of_augmentation_are_not_for_datasets() -> None:
    with pytest.raises(InputError, match="augment in their own transforms: set augment = 'none', or name a function"):
        user_data(lambda: Noisy(), "users:data", SplitSizes(), Classification(), Augmentation(flip=True))
    with pytest.raises(InputError, match=r"has a test set of its own: leave split.test = 0.5 out"):
        load((Noisy(), Noisy()), SplitSizes(test=0.5))
