"""Limits as people write them, and what is asked back."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from search.objectives.limits import parse_limit, parse_share
from spaces import InputError


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("50%", 61_500),
        ("0.5", 61_500),
        (0.5, 61_500),
        (1, 123_000),
        ("100 %", 123_000),
        ("1e-1", 12_300),
        ("2000", 2000),
        ("123", 123),
        ("61500", 61_500),
        (61_500.0, 61_500),
        ("20k", 20_000),
        ("0.5 k", 500),
        ("20M", 20_000_000),
        ("1.5g", 1_500_000_000),
    ],
)
def test_limits_are_shares_or_counts(text: str | float, limit: int) -> None:
    assert parse_limit(text, 123_000, "max-flops") == limit


def test_a_handful_of_flops_is_asked_back() -> None:
    with pytest.raises(InputError, match=r"max-flops: 50 of the dense network's 123,000 .* did you mean '50%'\?"):
        parse_limit(50, 123_000, "max-flops")
    assert parse_limit(50, 200, "max-params") == 50, "a tiny network may have so few"


@given(st.integers(1, 100), st.integers(1, 10**12))
@example(29, 100)
def test_shares_are_exact(percent: int, dense: int) -> None:
    assert parse_limit(f"{percent}%", dense, "max-flops") == percent * dense // 100
    assert parse_limit(percent / 100, dense, "max-flops") == percent * dense // 100


@pytest.mark.parametrize(
    "text",
    ["0", 0, "0%", "0.0", "-5", -0.5, "-50%", "150%", "100.1%", "1.5", "half", "", "%", "50%%", "5x", "nan"]
    + ["inf", "1e999999999", "1_000", "0x10", "0.0005k", True, math.nan, math.inf],
)
def test_limits_that_mean_nothing_teach(text: str | float) -> None:
    with pytest.raises(InputError, match=r"^max-flops: .* \('50%' or '0.5'\) or a count \('20M'\)$"):
        parse_limit(text, 123_000, "max-flops")


@pytest.mark.parametrize(("text", "share"), [("0.95", 0.95), ("95%", 0.95), (0.95, 0.95), ("1", 1.0), ("100%", 1.0)])
def test_shares_of_accuracy(text: str | float, share: float) -> None:
    assert parse_share(text, "min-accuracy") == share


@pytest.mark.parametrize("text", ["95", "0", "-1", "101%", "1.01", "0.9k", "good", "nan", 95])
def test_shares_of_accuracy_that_mean_nothing_teach(text: str | float) -> None:
    with pytest.raises(InputError, match=r"^min-accuracy: .* '0.95', '95%' or '97.5%'$|leaves nothing"):
        parse_share(text, "min-accuracy")
