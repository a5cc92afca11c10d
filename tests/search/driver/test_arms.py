"""What competes in a league, as it is written."""

from __future__ import annotations

import pytest

from search.driver.arms import read_arm, split_outside
from spaces import InputError


@pytest.mark.parametrize(
    ("text", "method", "bounds"),
    [
        ("increg", "increg", {}),
        (" a.b:C [x=1, y = two, z=true] ", "a.b:C", {"x": 1, "y": "two", "z": True}),
        ("greedy[tol_scale[8x8]=0.5]", "greedy", {"tol_scale[8x8]": 0.5}),
    ],
)
def test_arms_are_read(text: str, method: str, bounds: dict[str, object]) -> None:
    arm = read_arm(text)
    assert (arm.method, dict(arm.bounds), arm.label) == (method, bounds, text.strip())
    assert split_outside(f"{text},other") == [text.strip(), "other"]


@pytest.mark.parametrize("text", ["", "a b", "a[b", "a[b]", "a[=1]"])
def test_arms_that_cannot_be_read(text: str) -> None:
    with pytest.raises(InputError, match="arm "):
        read_arm(text)
