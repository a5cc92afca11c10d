"""Rows of a league travel through a CSV that needs nothing beside itself."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.records.league import COLUMNS, DENSE, LeagueRow, read_csv, sort_rows, write_csv
from spaces import InputError

numbers = st.floats(allow_nan=True, allow_infinity=False)
rows = st.builds(
    LeagueRow,
    arm=st.sampled_from(["magnitude", "sdprun[const_frac=0.2, finish=recipe]", 'a"b']),
    share=st.one_of(st.just(math.nan), st.floats(0.01, 1)),
    seed=st.integers(0, 9),
    state=st.sampled_from(["complete", "failed"]),
    validation=numbers,
    test=numbers,
    flops=numbers,
    error=st.sampled_from(["", "ValueError: no, none", "x | y"]),
    point=st.dictionaries(st.text(max_size=4), st.one_of(st.booleans(), st.integers(), st.text(max_size=4))),
)


@given(st.lists(rows, max_size=4))
def test_rows_come_back_as_they_were(written: list[LeagueRow]) -> None:
    about = {"arms": ["magnitude"], "seeds": 3, "note": "line\nbreak"}
    read, told = read_csv(write_csv(written, about), "x.csv")
    assert told == about
    assert repr(read) == repr(written)  # NaN is not equal to itself


@pytest.mark.parametrize("text", ["", "# {}", "a,b\n1,2\n", "# {}\narm,share\nmagnitude,0.5\n", "# [\n"])
def test_other_files_are_refused(text: str) -> None:
    if text == "# {}":
        assert read_csv(text, "x.csv") == ([], {})
        return
    with pytest.raises(InputError, match=r"x\.csv is no table of a league"):
        read_csv(text, "x.csv")


def test_rows_are_ordered_by_share_arm_and_seed() -> None:
    given = [LeagueRow(arm, share, seed) for arm in ("b", "a") for share in (0.25, 0.5) for seed in (1, 0)]
    given.append(LeagueRow(DENSE, math.nan, 0))
    found = [(row.arm, row.share, row.seed) for row in sort_rows(given, ["a", "b"])[1:]]
    assert sort_rows(given, ["a", "b"])[0].arm == DENSE
    assert found == [(arm, share, seed) for share in (0.5, 0.25) for arm in ("a", "b") for seed in (0, 1)]
    assert len(COLUMNS) == len(set(COLUMNS))
