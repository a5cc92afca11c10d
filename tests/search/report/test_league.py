"""The table of a league against numbers by hand."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from search.records.intervals import half_width
from search.records.league import DENSE, LeagueRow
from search.report.league import league_table

ABOUT = {"quality": "accuracy", "arms": ["magnitude", "random", "mine"]}


def row(arm: str, seed: int, test: float, share: float = 0.5, **more: object) -> LeagueRow:
    fields = {"validation": 0.5, "test": test, "flops": 500.0, "params": 50.0, "seconds": 2.0} | more
    return LeagueRow(arm, share, seed, **fields)  # type: ignore[arg-type]


def rows() -> list[LeagueRow]:
    dense = [row(DENSE, seed, 0.95, math.nan, flops=1000.0, params=100.0) for seed in range(3)]
    base = [row("magnitude", seed, 0.80 + 0.02 * seed, before=0.3) for seed in range(3)]
    by: dict[str, object] = {"sparsity.mode": "damage"}
    mine = [row("mine", n, 0.83 + 0.02 * n + 0.001 * (n == 1), channel_share=0.6, point=by) for n in range(3)]
    worse = [row("random", seed, 0.79 - 0.05 * seed) for seed in range(2)]
    failed = [LeagueRow("random", 0.5, 2, state="failed", error="ValueError: a | b")]
    return [*dense, *base, *mine, *worse, *failed]


def test_half_widths_are_students() -> None:
    # t(0.975, 2) = 4.302653, s = 0.02, n = 3
    assert half_width([0.80, 0.82, 0.84]) == pytest.approx(4.302653 * 0.02 / math.sqrt(3), rel=1e-6)
    assert math.isnan(half_width([0.8]))


def test_means_differences_and_remarks() -> None:
    text = league_table(rows(), ABOUT)
    cells = {
        c[0].strip("` "): c
        for c in ([x.strip() for x in r[1:-1].split("|")] for r in text.splitlines() if r.startswith("| `"))
    }
    assert list(cells) == ["magnitude", "random", "mine"]
    assert cells["magnitude"][1:5] == ["3", "82.00 ± 4.97", "", "80.00 to 84.00"]
    assert cells["magnitude"][5:9] == ["30.00 ± 0.00", "50.0 %", "50.0 %", "2.0"]
    assert cells["mine"][3] == "+3.03 ± 0.14" and cells["mine"][9] == "60% by removing channels; widths by damage"
    assert cells["random"][1] == "2" and "1 failed: ValueError: a / b" in cells["random"][9]
    assert "Dense network: accuracy 95.00 ± 0.00 (test), 1,000 FLOPs, 100 parameters." in text
    assert re.search(r"above L1 `mine`; below none", text), "random's two seeds are within its interval"


def test_pairs_share_their_seed() -> None:
    """A difference is taken seed by seed: dense networks that differ by much do not blur it."""
    shifted = [replace(each, test=each.test + 0.1 * each.seed) for each in rows()]
    line = next(text for text in league_table(shifted, ABOUT).splitlines() if text.startswith("| `mine`"))
    assert "+3.03 ± 0.14" in line
