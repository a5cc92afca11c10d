"""Arrays of the user's own in all their forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from methods.contract.classification import Classification
from methods.contract.task import Task
from search.tasks.data.arrays import user_data
from search.tasks.data.parts import Data
from search.tasks.data.sizes import SplitSizes
from search.tasks.regression import Regression
from search.tasks.segmentation import Segmentation
from spaces import InputError

IMAGES, LABELS = np.arange(60 * 12, dtype=np.uint8).reshape(60, 3, 2, 2), np.arange(60) % 3


def load(returned: Any, task: Task | None = None) -> Data:
    return user_data(lambda: returned, "users:data", SplitSizes(), task or Classification())


def test_three_parts_are_taken_as_they_are() -> None:
    parts = [(IMAGES[:30], LABELS[:30]), (IMAGES[30:45], LABELS[30:45]), (IMAGES[45:], LABELS[45:])]
    for returned in (tuple(parts), dict(zip(("train", "validation", "test"), parts, strict=True))):
        data = load(returned)
        assert [part.examples for part in (data.train, data.validation, data.test)] == [30, 15, 15]
        ((_, labels),) = data.validation.batches(60)
        assert labels.tolist() == LABELS[30:45].tolist()


@pytest.mark.parametrize("named", [False, True])
def test_several_inputs_stay_together(named: bool) -> None:
    numbers, ids = np.arange(60.0)[:, None], np.arange(60)
    several: Any = {"image": IMAGES, "number": numbers, "id": ids} if named else (IMAGES, numbers, ids)
    data = load((several, np.arange(60.0)), Regression())
    assert data.outputs == 1
    for inputs, target in data.train.epoch(7, seed=0):
        image, number, identity = inputs.values() if named else inputs
        assert image.dtype == number.dtype == torch.float32 and identity.dtype == torch.int64
        assert torch.equal(number, target) and torch.equal(identity.float(), target[:, 0])
    ((inputs, _),) = data.train.batches(60)
    first = next(iter(inputs.values())) if named else inputs[0]
    assert first.mean(dim=(0, 2, 3)).abs().max() < 1e-5  # images of uint8 are normalised, other numbers are not


def test_labels_per_pixel_are_split_at_random() -> None:
    masks = np.zeros((60, 2, 2), dtype=np.int64)
    masks[:, 0] = LABELS[:, None]
    data = load((IMAGES, masks), Segmentation())
    assert data.outputs == 3 and [part.examples for part in (data.train, data.test)] == [42, 12]
    ((_, target),) = data.train.batches(60)
    assert target.shape == (42, 2, 2)


def test_tables_of_pandas_are_arrays() -> None:
    frame = pd.DataFrame(np.arange(180.0).reshape(60, 3))
    data = load((frame, pd.Series(LABELS)))
    assert data.outputs == 3 and isinstance(data.example, torch.Tensor) and data.example.shape == (1, 3)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ((np.zeros((60, 8, 8, 3), dtype=np.uint8), LABELS), r"channels last; .* numpy.moveaxis\(images, -1, 1\)"),
        (((IMAGES, LABELS), (IMAGES, LABELS), (IMAGES, LABELS + 1)), "the test part has label 3"),
        (((IMAGES, IMAGES[:5]), LABELS), "the batch as their first dimension"),
        (({"a": IMAGES}, LABELS[:4]), r"60 inputs \{'a': \[60, 3, 2, 2\]\} for 4 labels \[4\]"),
        ((IMAGES, LABELS, LABELS), "not a tuple of 3"),
        (
            (IMAGES, np.array(["ant", "bee", "cat"])[LABELS]),
            r"an array of words \(numpy.unique\(labels, return_inverse",
        ),
        ((IMAGES, np.eye(3)[LABELS]), r"labels \[60, 3\] must have the shape \[examples\]; .* labels.argmax\(1\)"),
        ((IMAGES.astype(np.int32), LABELS), r"uint8 or floats, not torch.int32: x.astype\('uint8'\) of images"),
    ],
)
def test_what_does_not_fit_is_said(returned: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(returned)
