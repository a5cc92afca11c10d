"""RandAugment of whole batches: decided by the seed, different from piece to piece, for images alone."""

from __future__ import annotations

import pytest
import torch

from methods.contract.classification import Classification
from search.tasks.data.augmentations import load_augmentation
from search.tasks.data.rand_augment import InTurn, RandAugmented
from search.tasks.segmentation import Segmentation
from spaces import InputError

IMAGES = torch.randint(256, (24, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(24)


def make_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_seed_decides_and_the_global_generator_stays() -> None:
    before = torch.random.get_rng_state()
    change = RandAugmented(piece=4)
    (one, labels), (same, _), (other, _) = (change(IMAGES, LABELS, make_generator(seed)) for seed in (1, 1, 2))
    assert isinstance(one, torch.Tensor) and isinstance(same, torch.Tensor) and isinstance(other, torch.Tensor)
    assert one.dtype == torch.uint8 and one.shape == IMAGES.shape and labels is LABELS
    assert torch.equal(one, same) and not torch.equal(one, other) and not torch.equal(one, IMAGES)
    assert torch.equal(before, torch.random.get_rng_state())


def test_pieces_are_changed_differently_and_an_image_within_one_alike() -> None:
    alike = IMAGES[:1].repeat(24, 1, 1, 1)
    changed, _ = RandAugmented(piece=4)(alike, LABELS, make_generator(0))
    assert isinstance(changed, torch.Tensor)
    pieces = changed.split(4)
    assert all(torch.equal(piece, piece[:1].expand_as(piece)) for piece in pieces)
    assert len({piece[0].numpy().tobytes() for piece in pieces}) > 1


def test_words_in_turn() -> None:
    change = load_augmentation("cifar+randaugment", Classification())
    assert isinstance(change, InTurn) and [type(part).__name__ for part in change.parts] == [
        "PaddedCrop",
        "RandAugmented",
    ]
    changed, _ = change(IMAGES, LABELS, make_generator(0))
    assert isinstance(changed, torch.Tensor) and changed.shape == IMAGES.shape
    with pytest.raises(InputError, match="randaugment"):
        load_augmentation("cifar+randaugmnt", Classification())


def test_what_it_cannot_change_is_refused() -> None:
    with pytest.raises(InputError, match="moves images and not"):
        load_augmentation("randaugment", Segmentation())
    for images in (IMAGES.float(), IMAGES[:, :2]):
        with pytest.raises(InputError, match="uint8"):
            RandAugmented()(images, LABELS, make_generator(0))
