"""Folders of images: which part comes from where, and that workers make no difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from methods.contract.inputs import get_first_tensor
from search.tasks.data.loader_split import LoaderSplit
from search.tasks.data.parts import Data
from search.tasks.data.sets import load_data
from search.tasks.data.sizes import SplitSizes
from spaces import InputError

CLASSES = ("ant", "bee", "cat")


def fill(folder: Path, per_class: int, side: int = 24, classes: tuple[str, ...] = CLASSES) -> None:
    """Write noise; the green level tells the class."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 256, (side + 8, side, 3), dtype=np.uint8)
            pixels[..., 1] = 60 * label
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def load(root: Path, sizes: SplitSizes | None = None) -> Data:
    data = load_data("imagefolder", root, sizes or SplitSizes())
    for part in (data.train, data.validation, data.test):
        assert isinstance(part, LoaderSplit)
        part.workers = 0  # quick; one test below has workers
    return data


def examples(data: Data) -> list[int]:
    return [part.examples for part in (data.train, data.validation, data.test)]


def test_training_folder_alone_is_split_in_three(tmp_path: Path) -> None:
    fill(tmp_path / "train", 10)
    data = load(tmp_path)
    assert examples(data) == [21, 3, 6]
    assert data.outputs == 3 and get_first_tensor(data.example).shape == (1, 3, 24, 24)


def test_val_folder_is_the_test_set(tmp_path: Path) -> None:
    fill(tmp_path / "train", 10)
    fill(tmp_path / "val", 4)
    assert examples(load(tmp_path)) == [27, 3, 12]
    with pytest.raises(InputError, match=r"the test part is the folder .*val: leave split.test = 5 out"):
        load(tmp_path, SplitSizes(test=5))


def test_val_folder_beside_a_test_folder_is_for_validation(tmp_path: Path) -> None:
    fill(tmp_path / "train", 10)
    fill(tmp_path / "val", 4)
    fill(tmp_path / "test", 5)
    assert examples(load(tmp_path)) == [30, 12, 15]


def test_batches_in_order_and_normalised(tmp_path: Path) -> None:
    fill(tmp_path / "train", 10)
    data = load(tmp_path)
    inputs, labels = (torch.cat(t) for t in zip(*data.validation.batches(2), strict=True))
    assert labels.tolist() == [0, 1, 2]
    green = inputs[:, 1].mean(dim=(1, 2)) * 0.224 + 0.456
    torch.testing.assert_close(green, labels * 60 / 255, atol=0.01, rtol=0)


def test_epochs_follow_from_the_seed_alone(tmp_path: Path) -> None:
    fill(tmp_path / "train", 10)
    data = load(tmp_path)
    assert data.train.steps(4) == 5
    before = torch.random.get_rng_state()
    whole, again = (list(data.train.epoch(4, seed=1)) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert len(whole) == 5 and all(len(y) == 4 for _, y in whole)
    rest = list(data.train.epoch(4, seed=1, start=3))
    for (x, y), (x0, y0) in zip([*again, *rest], [*whole, *whole[3:]], strict=True):
        assert torch.equal(x, x0) and torch.equal(y, y0)
    (x, _), *_ = data.train.epoch(4, seed=2)
    assert not torch.equal(x, whole[0][0])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_make_no_difference(tmp_path: Path) -> None:
    fill(tmp_path / "train", 10)
    data = load(tmp_path)
    alone = list(data.train.epoch(4, seed=1))
    assert isinstance(data.train, LoaderSplit)
    data.train.workers = 2
    for (x, y), (x0, y0) in zip(data.train.epoch(4, seed=1), alone, strict=True):
        assert torch.equal(x, x0) and torch.equal(y, y0)


def test_large_images_are_taken_at_224(tmp_path: Path) -> None:
    fill(tmp_path / "train", 2, side=300)
    data = load(tmp_path, SplitSizes(validation=1, test=1))
    assert get_first_tensor(data.example).shape == (1, 3, 224, 224)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs the folder .*train with one folder of images per class"):
        load(tmp_path)


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "train" / "ant").mkdir(parents=True)
    with pytest.raises(InputError, match=r"train must hold one folder of images per class"):
        load(tmp_path)


def test_folders_that_differ_in_classes(tmp_path: Path) -> None:
    fill(tmp_path / "train", 2)
    fill(tmp_path / "val", 2, classes=("ant", "bee", "dog"))
    with pytest.raises(InputError, match="differ in their classes: cat, dog"):
        load(tmp_path)


def test_fingerprint_follows_the_files(tmp_path: Path) -> None:
    fill(tmp_path / "train", 10)
    first, same, other = (load(tmp_path, SplitSizes(seed=seed)).train.fingerprint() for seed in (0, 0, 1))
    assert first == same != other


def test_folders_of_classes_may_lie_in_the_root_itself(tmp_path: Path) -> None:
    fill(tmp_path, 10)
    data = load(tmp_path)
    assert data.outputs == 3
    assert sum(part.examples for part in (data.train, data.validation, data.test)) == 30


@pytest.mark.parametrize("damage", ["text", "cut", "empty"])
def test_a_broken_image_is_named_at_the_start(tmp_path: Path, damage: str) -> None:
    fill(tmp_path / "train", 10)
    path = sorted((tmp_path / "train").rglob("*.*"))[4]
    whole = path.read_bytes()
    path.write_bytes({"text": b"this is no image", "cut": whole[: len(whole) // 2], "empty": b""}[damage])
    with pytest.raises(InputError, match=rf"images that cannot be read: {path}"):
        load(tmp_path)


def test_augmentation_in_words(tmp_path: Path) -> None:
    fill(tmp_path / "train", 10)
    plain = load_data("imagefolder", tmp_path, SplitSizes(), augment="none").train
    stored = torch.cat([x for x, _ in plain.batches(7)])
    drawn = torch.cat([x for x, _ in plain.epoch(1, seed=0)])
    assert torch.equal(stored.flatten(1).sort(0).values, drawn.flatten(1).sort(0).values)
    usual, word = (load_data("imagefolder", tmp_path, SplitSizes(), augment=a).train for a in (None, "imagenet"))
    for (x, _), (y, _) in zip(usual.epoch(4, 3), word.epoch(4, 3), strict=True):
        assert torch.equal(x, y)
    cropped = load_data("imagefolder", tmp_path, SplitSizes(), augment="cifar").train
    assert len({split.fingerprint() for split in (plain, usual, cropped)}) == 3
    assert not torch.equal(next(cropped.epoch(4, 3))[0], next(plain.epoch(4, 3))[0])
