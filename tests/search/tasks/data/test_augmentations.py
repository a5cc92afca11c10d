"""Augmentation by words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from methods.contract.classification import Classification
from search.driver.prepare import plan
from search.tasks.data.augmentations import PaddedCrop, ResizedCrop, UserAugmentation, load_augmentation
from search.tasks.data.sets import load_data
from search.tasks.data.sizes import SplitSizes
from search.tasks.data.splits import Augmentation, TensorSplit
from search.tasks.segmentation import Segmentation
from spaces import InputError
from tests.search.cases import make_quick_config


def pictures(batch: int = 64, side: int = 16) -> tuple[Tensor, Tensor]:
    """Images whose red channel is the label of the pixel."""
    labels = torch.randint(3, (batch, side, side), generator=torch.Generator().manual_seed(0))
    images = torch.stack([50 * labels, labels, labels], dim=1).to(torch.uint8)
    return images, labels


def apply_change(
    change: PaddedCrop | ResizedCrop, images: Tensor, labels: Tensor, seed: int = 0
) -> tuple[Tensor, Tensor]:
    x, y = change(images, labels, generator(seed))
    assert isinstance(x, Tensor) and isinstance(y, Tensor)
    return x, y


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_maps_of_labels_are_cropped_with_their_images() -> None:
    images, labels = pictures()
    x, y = apply_change(PaddedCrop(255), images, labels)
    inside = y != 255
    assert x.dtype == torch.uint8 and x.shape == images.shape and y.shape == labels.shape
    assert bool((~inside).any()) and torch.equal(x[:, 0][inside].long(), 50 * y[inside])
    assert bool((x[:, 0][~inside] == 0).all())


def test_a_resized_crop_reads_labels_and_images_at_the_same_places() -> None:
    coarse = torch.randint(3, (64, 2, 2), generator=generator())
    labels = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)
    images = (50 * labels)[:, None].float()
    x, y = apply_change(ResizedCrop(255), images, labels)
    assert set(y.unique().tolist()) <= {0, 1, 2}
    # Away from the borders of the patches a mixture of neighbours is the value itself.
    whole = x[:, 0].frac() == 0
    assert float(whole.float().mean()) > 0.7
    agree = (x[:, 0].round().long() == 50 * y)[whole]
    assert float(agree.float().mean()) > 0.99


def test_crops_follow_from_the_generator_alone() -> None:
    images, labels = pictures()
    for change in (PaddedCrop(None), ResizedCrop(None)):
        one, other, again = (apply_change(change, images, labels, seed)[0] for seed in (1, 2, 1))
        assert torch.equal(one, again) and not torch.equal(one, other)
        assert change(images, labels, generator())[1] is labels


def test_a_resized_crop_reaches_all_places_and_both_sides() -> None:
    ramp = torch.linspace(0, 1, 32).expand(500, 1, 32, 32)
    x, _ = apply_change(ResizedCrop(None), ramp, torch.zeros(500))
    rising = x[:, 0, 0, -1] > x[:, 0, 0, 0]
    assert 0.4 < float(rising.float().mean()) < 0.6
    spans = (x.flatten(1).amax(1) - x.flatten(1).amin(1)).sort().values
    assert float(spans[0]) < 0.4 and float(spans[-1]) > 0.9
    assert float(x.min()) >= 0 and float(x.max()) <= 1


def test_words_are_read() -> None:
    task = Classification()
    assert load_augmentation(None, task) is None
    assert load_augmentation("none", task) == Augmentation()
    found = load_augmentation("cifar", Segmentation(ignore_index=7))
    assert isinstance(found, PaddedCrop) and found.fill == 7
    assert isinstance(load_augmentation("imagenet", task), ResizedCrop)
    with pytest.raises(InputError, match="did you mean 'cifar'"):
        load_augmentation("cifr", task)
    with pytest.raises(InputError, match=r"only images .* not \[2, 5\]; set augment = 'none'"):
        ResizedCrop(None)(torch.zeros(2, 5), torch.zeros(2), generator())


def test_a_word_replaces_what_the_data_set_does() -> None:
    plain = load_data("digits", Path(), SplitSizes(), augment="none").train
    assert isinstance(plain, TensorSplit)
    ((x, y),) = plain.epoch(plain.examples, seed=0)
    stored = {row.numpy().tobytes() for batch, _ in plain.batches(100) for row in batch}
    assert all(row.numpy().tobytes() in stored for row in x)
    usual = load_data("digits", Path(), SplitSizes()).train
    assert usual.fingerprint() != plain.fingerprint()


def test_a_function_of_the_users_changes_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_augmentation.py").write_text(
        "def double(inputs, targets, generator): return inputs * 2, targets\n"
        "def wrong(inputs, targets, generator): return inputs\n"
        "def fewer(inputs, targets, generator): return inputs[:1], targets[:1]\n"
        "def broken(inputs, targets, generator): return inputs.nothing, targets\n"
    )
    monkeypatch.chdir(tmp_path)
    change = load_augmentation("users_augmentation:double", Classification())
    assert isinstance(change, UserAugmentation)
    x, y = change(torch.ones(2, 1), torch.zeros(2), generator())
    found: Any = x
    assert found.tolist() == [[2.0], [2.0]] and y.tolist() == [0.0, 0.0]
    with pytest.raises(InputError, match=r"must return \(inputs, targets\), not a Tensor"):
        UserAugmentation("users_augmentation:wrong")(torch.ones(2, 1), torch.zeros(2), generator())
    with pytest.raises(InputError, match="made 1 inputs of 2; it must keep their number"):
        UserAugmentation("users_augmentation:fewer")(torch.ones(2, 1), torch.zeros(2), generator())
    with pytest.raises(InputError, match="'users_augmentation:broken' failed on a batch: AttributeError"):
        UserAugmentation("users_augmentation:broken")(torch.ones(2, 1), torch.zeros(2), generator())
    with pytest.raises(InputError, match="users_augmentation"):
        load_augmentation("users_augmentation:nothing", Classification())


def test_an_augmentation_that_the_network_cannot_take_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wide_augmentation.py").write_text(
        "def wide(inputs, targets, generator): return inputs.repeat(1, 2, 1, 1), targets\n"
        "def fine(inputs, targets, generator): return inputs.flip(3), targets\n"
    )
    monkeypatch.chdir(tmp_path)
    plan(make_quick_config(tmp_path, augment="wide_augmentation:fine"))
    with pytest.raises(InputError, match=r"augment gives inputs of shape \[2, 2, 8, 8\], on which the network fails"):
        plan(make_quick_config(tmp_path, augment="wide_augmentation:wide"))
