from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from methods.network.layers import ZeroPadShortcut

X = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))


def test_pads_evenly_and_subsamples() -> None:
    y = ZeroPadShortcut(4, 8, stride=2)(X)
    assert torch.equal(y, F.pad(X[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))


def test_dropping_channels_equals_dropping_them_around_it() -> None:
    shortcut = ZeroPadShortcut(4, 8, stride=1)
    whole = shortcut(X * torch.tensor([1, 0, 1, 0.0])[:, None, None])
    shortcut.drop_outputs([0, 3, 7])
    shortcut.drop_inputs([1, 3])
    assert (shortcut.in_channels, shortcut.out_channels) == (2, 5)
    assert torch.equal(shortcut(X[:, [0, 2]]), whole[:, [1, 2, 4, 5, 6]])


def test_silence_keeps_the_shape() -> None:
    shortcut = ZeroPadShortcut(4, 8, stride=1)
    shortcut.silence(torch.tensor([2]), "out")
    shortcut.silence(torch.tensor([3]), "in")
    y = shortcut(X)
    assert torch.equal(y[:, [0, 1, 2, 5, 6, 7]], torch.zeros(2, 6, 5, 5))
    assert torch.equal(y[:, [3, 4]], X[:, [1, 2]])


def test_narrowing_is_refused() -> None:
    with pytest.raises(ValueError, match="out_channels = 3 must be at least in_channels = 4"):
        ZeroPadShortcut(4, 3, stride=1)
