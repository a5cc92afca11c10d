"""Splits in memory against a slow loop, and their promises to training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from search.tasks.data.splits import Augmentation, TensorSplit, augment
from search.tasks.data.stratify import part_size, stratify
from spaces import InputError


def images(examples: int, channels: int = 3, height: int = 6, width: int = 5) -> Tensor:
    values = torch.randint(0, 256, (examples, channels, height, width), generator=torch.Generator().manual_seed(1))
    return values.to(torch.uint8)


def split(examples: int, augmentation: Augmentation | None = None) -> TensorSplit:
    """A split whose labels tell the examples apart."""
    return TensorSplit(images(examples), torch.arange(examples), (0.5, 0.4, 0.3), (0.2, 0.3, 0.1), augmentation)


def loop(batch: Tensor, augmentation: Augmentation, seed: int) -> Tensor:
    """Crop and mirror one image after the other."""
    generator = torch.Generator().manual_seed(seed)
    p = augmentation.padding
    top, left = torch.randint(2 * p + 1, (2, len(batch), 1), generator=generator)
    mirrored = torch.rand((len(batch), 1), generator=generator) < (0.5 if augmentation.flip else 0.0)
    out = []
    for image, y, x, mirror in zip(batch, top, left, mirrored, strict=True):
        padded = F.pad(image, (p, p, p, p))
        crop = padded[:, int(y) : int(y) + image.shape[1], int(x) : int(x) + image.shape[2]]
        out.append(crop.flip(-1) if mirror else crop)
    return torch.stack(out)


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_augmentation_equals_a_loop_over_images(padding: int, flip: bool, dtype: torch.dtype) -> None:
    batch = images(64).to(dtype)
    augmentation = Augmentation(padding, flip)
    found = augment(batch, augmentation, torch.Generator().manual_seed(9))
    assert torch.equal(found, loop(batch, augmentation, 9))
    assert found.dtype == dtype


def test_augmentation_reaches_every_corner_and_both_sides() -> None:
    ramp = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3).expand(2000, 1, 3, 3)
    found = augment(ramp, Augmentation(padding=1, flip=True), torch.Generator().manual_seed(0))
    assert len(found.flatten(1).unique(dim=0)) == 3 * 3 * 2


def test_batches_hold_every_example_once_in_order() -> None:
    data = split(10, Augmentation(padding=2, flip=True))
    batches = list(data.batches(4))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(10))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.1)))
    expected = (images(10) / 255 - mean) / std
    torch.testing.assert_close(torch.cat([inputs for inputs, _ in batches]), expected)


def test_epoch_is_a_permutation_without_the_incomplete_batch() -> None:
    data = split(11)
    batches = list(data.epoch(4, seed=5))
    assert data.steps(4) == len(batches) == 2
    labels = torch.cat([labels for _, labels in batches])
    assert len(labels.unique()) == 8
    plain = torch.cat([inputs for inputs, _ in data.batches(11)])
    torch.testing.assert_close(torch.cat([inputs for inputs, _ in batches]), plain[labels])


def test_small_split_makes_one_batch_of_all() -> None:
    data = split(5)
    assert data.steps(128) == 1
    ((inputs, labels),) = data.epoch(128, seed=0)
    assert inputs.shape == (5, 3, 6, 5) and sorted(labels.tolist()) == list(range(5))


def test_epoch_continues_in_the_middle() -> None:
    data = split(40, Augmentation(padding=1, flip=True))
    whole = list(data.epoch(8, seed=3))
    for start in range(6):
        rest = list(data.epoch(8, seed=3, start=start))
        assert len(rest) == 5 - start
        for (x, y), (x0, y0) in zip(rest, whole[start:], strict=True):
            assert torch.equal(x, x0) and torch.equal(y, y0)


def test_seed_decides_everything_and_global_state_is_left_alone() -> None:
    data = split(40, Augmentation(padding=1, flip=True))
    before = torch.random.get_rng_state()
    first, again, other = (list(data.epoch(8, seed)) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, again, strict=True))
    assert [y.tolist() for _, y in first] != [y.tolist() for _, y in other]


def test_batches_are_augmented_differently_within_an_epoch() -> None:
    same = images(1).expand(16, -1, -1, -1).contiguous()
    data = TensorSplit(same, torch.zeros(16, dtype=torch.int64), (0, 0, 0), (1, 1, 1), Augmentation(padding=3))
    (first, _), (second, _) = data.epoch(8, seed=0)
    assert not torch.equal(first, second)


def test_float_inputs_are_not_scaled_and_not_changed() -> None:
    inputs = torch.randn(4, 2, 7)
    kept = inputs.clone()
    data = TensorSplit(inputs, torch.arange(4), (1.0, 2.0), (2.0, 4.0))
    ((found, _),) = data.batches(4)
    torch.testing.assert_close(found, (kept - torch.tensor([[1.0], [2.0]])) / torch.tensor([[2.0], [4.0]]))
    assert torch.equal(inputs, kept)


def test_fingerprint_tells_contents_apart() -> None:
    data = split(10)
    changed = TensorSplit(data.inputs.clone(), data.targets.clone(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.1))
    assert changed.fingerprint() == data.fingerprint()
    changed.inputs[3, 0, 0, 0] += 1
    assert changed.fingerprint() != data.fingerprint()
    assert split(10, Augmentation(flip=True)).fingerprint() != data.fingerprint()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_a_gpu_are_those_on_the_cpu() -> None:
    data = split(40, Augmentation(padding=1, flip=True))
    for (x, y), (x0, y0) in zip(data.to("cuda").epoch(8, seed=3), data.epoch(8, seed=3), strict=True):
        assert x.is_cuda and torch.equal(y.cpu(), y0)
        torch.testing.assert_close(x.cpu(), x0)


def test_to_the_same_device_shares_the_data() -> None:
    data = split(10, Augmentation(padding=1))
    assert data.to("cpu").inputs.data_ptr() == data.inputs.data_ptr()
    assert data.to("cpu").augmentation == data.augmentation


def test_tensors_that_do_not_belong_together() -> None:
    with pytest.raises(ValueError, match=r"\[3, 3, 6, 5\] do not belong to labels \[4\]"):
        TensorSplit(images(3), torch.arange(4), (0, 0, 0), (1, 1, 1))
    with pytest.raises(ValueError, match="need a mean and a std per channel"):
        TensorSplit(images(3), torch.arange(3), (0,), (1,))


class CountOperations(TorchDispatchMode):
    """Counts the operations of torch that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not type it
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


def test_augmentation_has_no_loop_over_images() -> None:
    counts = []
    for examples in (2, 500):
        batch = images(examples)
        with CountOperations() as counter:
            augment(batch, Augmentation(padding=2, flip=True), torch.Generator().manual_seed(0))
        counts.append(counter.operations)
    assert 0 < counts[0] == counts[1]


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(3, 40), min_size=1, max_size=6),
    shares=st.tuples(st.floats(0.02, 0.3), st.floats(0.02, 0.3)),
    seed=st.integers(0, 2**31),
)
def test_parts_are_disjoint_complete_and_stratified(counts: list[int], shares: tuple[float, float], seed: int) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    sizes = [max(1, round(share * len(labels))) for share in shares]
    if sum(sizes) >= len(labels):
        return
    generator = torch.Generator().manual_seed(seed)
    parts = stratify(labels, sizes, generator)
    assert [len(part) for part in parts] == [*sizes, len(labels) - sum(sizes)]
    assert torch.cat(parts).sort().values.tolist() == list(range(len(labels)))
    left = torch.tensor(counts)
    for part, size in zip(parts, sizes, strict=False):
        drawn = torch.bincount(labels[part], minlength=len(counts))
        exact = left * size / left.sum()
        assert (drawn - exact).abs().max() < 1
        left = left - drawn
    again = stratify(labels, sizes, torch.Generator().manual_seed(seed))
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize(("size", "count"), [(0.1, 10), (0.255, 26), (1, 1), (30, 30), (99.0, 99)])
def test_part_sizes(size: float, count: int) -> None:
    assert part_size(size, 100, "validation") == count


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (100, r"split.test = 100 takes 100 of 100 examples"),
        (0.999, "takes 100 of 100 examples"),
        (0.001, "takes 0 of 100 examples"),
        (2.5, r"split.test = 2.5 must be a share below 1 or a whole number"),
    ],
)
def test_impossible_part_sizes(size: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        part_size(size, 100, "test")


def test_parts_that_leave_nothing_for_training() -> None:
    labels = torch.tensor([0] * 8 + [1] * 2)
    with pytest.raises(InputError, match="leave none of 10 for training"):
        stratify(labels, [5, 5], torch.Generator())
    with pytest.raises(InputError, match=r"class 1 has too few examples \(2\)"):
        stratify(labels, [4, 5], torch.Generator())
