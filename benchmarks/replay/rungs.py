"""Which early number ranks what comes out at the end, given the FLOPs.

    python -m benchmarks.replay.rungs benchmarks/replay/digits.jsonl.gz

For each method and epoch: the partial rank correlation of an epoch's number (training loss, validation loss, accuracy)
with the final accuracy, given the FLOPs. Ranks of all three; what a quadratic in the rank of the FLOPs tells is taken
from both. The interval is a bootstrap over trials (95 %).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from benchmarks.replay.synthetic import METHODS
from benchmarks.replay.table import read_table
from search.study.samplers.slots import Floats

EPOCHS = (1, 2, 5, 10, 15)
NUMBERS = {"training loss": (2, -1.0), "validation loss": (4, -1.0), "accuracy": (3, 1.0)}
"""Place in a record of the table, and sign with which more is better."""

FEWEST = 20
"""Trials below which nothing is said."""


def correlate_partially(early: Floats, final: Floats, flops: Floats) -> float:
    """Correlate ranks, given the FLOPs.

    Args:
        early: What was read early, ``[trials]``.
        final: What came out, ``[trials]``.
        flops: The FLOPs, ``[trials]``.

    Returns:
        The partial correlation.
    """
    ranks = rankdata(flops)
    basis = np.column_stack([np.ones_like(ranks), ranks, ranks**2])
    rests = []
    for values in (rankdata(early), rankdata(final)):
        rests.append(values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0])
    return float(np.corrcoef(*rests)[0, 1])


def correlate(rows: list[dict[str, Any]], epoch: int, place: int, sign: float) -> tuple[float, float, float] | None:
    """Correlate one number of one epoch with the final accuracy.

    Args:
        rows: Trials of one method.
        epoch: The epoch, from 1.
        place: Place of the number in a record.
        sign: 1 where more is better.

    Returns:
        The correlation, and a 95 % interval; ``None`` where too few trials have it.
    """
    known = [row for row in rows if len(row["rungs"]) > epoch and row["rungs"][epoch - 1][place] is not None]
    if len(known) < FEWEST:
        return None
    early = sign * np.array([row["rungs"][epoch - 1][place] for row in known])
    final = np.array([row["metrics"]["accuracy"] for row in known])
    flops = np.array([row["share"] for row in known])
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(known), size=len(known)) for _ in range(300)]
    low, high = np.quantile(
        [correlate_partially(early[each], final[each], flops[each]) for each in draws], [0.025, 0.975]
    )
    return correlate_partially(early, final, flops), float(low), float(high)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    rows = read_table(parser.parse_args().table)
    print("| method | trials | cut from epoch | number | " + " | ".join(f"epoch {epoch}" for epoch in EPOCHS) + " |")
    print("|---" * (4 + len(EPOCHS)) + "|")
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        cut = int(np.median([next((n for n, each in enumerate(r["rungs"], 1) if each[1]), 99) for r in own]))
        for name, (place, sign) in NUMBERS.items():
            cells = []
            for epoch in EPOCHS:
                found = correlate(own, epoch, place, sign)
                cells.append("" if found is None else f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})")
            print(f"| {method} | {len(own)} | {cut} | {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
