"""Folders of Hugging Face's datasets: parts, columns, images and numbers, and what is said of the others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from methods.contract.classification import Classification
from methods.contract.task import Task
from search.study.config_file import load_config
from search.tasks.data.datasets import DatasetSplit
from search.tasks.data.loader_split import LoaderSplit
from search.tasks.data.parts import Data
from search.tasks.data.sets import load_data
from search.tasks.data.sizes import SplitSizes
from search.tasks.regression import Regression
from spaces import InputError

datasets = pytest.importorskip("datasets")

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def no_cache_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def picture(label: int, seed: int = 0) -> Image.Image:
    """Noise; the green level tells the class."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 24, 3), dtype=np.uint8)
    pixels[..., 1] = 60 * label
    return Image.fromarray(pixels)


def pictures(count: int) -> Any:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    labels = [number % 3 for number in range(count)]
    images = [picture(label, number) for number, label in enumerate(labels)]
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


def load(folder: Path, sizes: SplitSizes | None = None, task: Task | None = None) -> Data:
    data = load_data(f"hf:{folder}", Path("data"), sizes or SplitSizes(), task or Classification())
    for part in (data.train, data.validation, data.test):
        assert isinstance(part, LoaderSplit | DatasetSplit)
        part.workers = 0
    return data


def examples(data: Data) -> list[int]:
    return [part.examples for part in (data.train, data.validation, data.test)]


def test_one_dataset_is_split_in_three(tmp_path: Path) -> None:
    pictures(30).save_to_disk(tmp_path / "one")
    data = load(tmp_path / "one")
    assert examples(data) == [21, 3, 6] and data.outputs == 3
    assert isinstance(data.example, torch.Tensor) and data.example.shape == (1, 3, 24, 24)
    images, labels = next(data.validation.batches(3))
    assert isinstance(images, torch.Tensor)
    green = images[:, 1].mean(dim=(1, 2)) * 0.224 + 0.456
    torch.testing.assert_close(green, labels * 60 / 255, atol=0.01, rtol=0)


def test_parts_of_a_dict_are_taken_as_they_are(tmp_path: Path) -> None:
    several = datasets.DatasetDict({"train": pictures(30), "valid": pictures(6), "test": pictures(9)})
    several.save_to_disk(tmp_path / "three")
    assert examples(load(tmp_path / "three")) == [30, 6, 9]
    with pytest.raises(InputError, match=r"the test part is part 'test' of .*three: leave split.test = 3 out"):
        load(tmp_path / "three", SplitSizes(test=3))


def test_files_are_read_as_the_library_reads_them(tmp_path: Path) -> None:
    (tmp_path / "files" / "data").mkdir(parents=True)
    pictures(30).to_parquet(tmp_path / "files" / "data" / "train-00000-of-00001.parquet")
    pictures(6).to_parquet(tmp_path / "files" / "data" / "test-00000-of-00001.parquet")
    assert examples(load(tmp_path / "files")) == [27, 3, 6]
    for number in range(30):
        folder = tmp_path / "folders" / "train" / CLASSES[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        picture(number % 3, number).save(folder / f"{number}.png")
    data = load(tmp_path / "folders")
    assert examples(data) == [21, 3, 6]
    assert len(data.train.fingerprint()) == 64


def test_fingerprints_follow_the_images_and_not_the_place(tmp_path: Path) -> None:
    for name in ("one", "other"):
        pictures(30).save_to_disk(tmp_path / name)
    pictures(30).map(lambda row: {"image": picture(row["label"], 99)}).save_to_disk(tmp_path / "third")
    one, other, third = (load(tmp_path / name).train.fingerprint() for name in ("one", "other", "third"))
    assert one == other != third


def test_numbers_are_named_inputs_and_one_column_the_only_one(tmp_path: Path) -> None:
    numbers = np.arange(40.0)
    table = {"x": [[n, 2 * n] for n in numbers], "age": list(range(40)), "target": list(numbers)}
    datasets.Dataset.from_dict(table).save_to_disk(tmp_path / "two")
    data = load(tmp_path / "two", task=Regression())
    inputs, target = next(data.train.batches(4))
    assert isinstance(inputs, dict) and set(inputs) == {"x", "age"}
    assert inputs["x"].dtype == torch.float32 and torch.equal(inputs["x"][:, 1], 2 * target.flatten())
    datasets.Dataset.from_dict({"x": table["x"], "label": [0, 1] * 20}).save_to_disk(tmp_path / "single")
    data = load(tmp_path / "single")
    assert isinstance(data.example, torch.Tensor) and data.outputs == 2


def test_paths_start_where_the_configuration_lies(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text('data = "hf:birds"\n')
    assert load_config(tmp_path / "study.toml").data == f"hf:{tmp_path}/birds"


def broken(count: int = 30) -> Any:
    stored = [{"bytes": b"no image", "path": None}, *[picture(0)] * (count - 1)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    return datasets.Dataset.from_dict({"image": stored, "label": [n % 3 for n in range(count)]}, features=features)


def make_unlabelled() -> Any:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    test = datasets.Dataset.from_dict({"image": [picture(0)], "label": [-1]}, features=features)
    return datasets.DatasetDict({"train": pictures(30), "test": test})


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (broken, r"images that cannot be read: row 0 of part 'train' of .* \(not a known image format\)"),
        (make_unlabelled, r"part 'test' of .* has examples without a label \(-1\)"),
        (
            lambda: datasets.DatasetDict({"train": pictures(9), "extra": pictures(9)}),
            "has the parts 'train', 'extra'; there must be 'train', and beside it nothing but",
        ),
        (
            lambda: datasets.DatasetDict({"train": pictures(9), "val": pictures(9), "dev": pictures(9)}),
            "'val' and 'dev' both look like the validation part",
        ),
        (
            lambda: datasets.DatasetDict({"train": pictures(9), "test": pictures(9).rename_column("image", "img")}),
            r"the columns of part 'test' \(img, label\) are not those of 'train' \(image, label\)",
        ),
        (
            lambda: (
                pictures(9)
                .rename_column("label", "kind")
                .add_column("sort", [0, 1, 2] * 3)
                .cast_column("sort", datasets.ClassLabel(names=list(CLASSES)))
            ),
            r"\(kind and sort are columns of classes\), none of them called 'label'",
        ),
        (
            lambda: datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}),
            r"has columns that are no numbers: text; .*dataset.remove_columns",
        ),
        (
            lambda: datasets.Dataset.from_dict({"x": [1.0, 2.0], "label": ["ant", "bee"]}),
            r"the column 'label' holds no numbers; dataset.class_encode_column\('label'\)",
        ),
        (lambda: datasets.Dataset.from_dict({"label": [0, 1]}), "has no column beside 'label'"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, made: Any, message: str) -> None:
    made().save_to_disk(tmp_path / "set")
    with pytest.raises(InputError, match=message):
        load(tmp_path / "set")


def test_images_are_for_classification(tmp_path: Path) -> None:
    pictures(9).save_to_disk(tmp_path / "set")
    with pytest.raises(InputError, match="of which one column is read for classification"):
        load(tmp_path / "set", task=Regression())


def test_folders_that_are_none_and_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nowhere; where there is a connection, `datasets\."):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="datasets cannot read .*empty: "):
        load(tmp_path / "empty")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="needs the package datasets: pip install 'datasets>=3.0'"):
        load(tmp_path / "empty")
