"""The rows of a comparison as a table, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.allocation.arms import ARMS


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a comparison.

    Args:
        path: The file, which need not be there.

    Returns:
        The rows.
    """
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def make_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write a comparison as Markdown.

    Args:
        rows: The rows of its file.

    Returns:
        A table, and what follows from it.
    """
    common, made = rows[0], [row for row in rows if "arm" in row]
    lines = [
        f"The dense network has {common['dense']['accuracy']:.2%} on validation ({common['validated']} images).",
        "",
        "| FLOPs | allocation | seeds | before fine-tuning | validation | test | parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    for share in sorted({row["share"] for row in made}, reverse=True):
        for arm in ARMS:
            own = [row for row in made if (row["arm"], row["share"]) == (arm, share)]
            if not own:
                continue
            cells = [_show([row[name] for row in own]) for name in ("cut", "accuracy", "test")]
            tilts = {row["point"]["sparsity.tilt"] for row in own} if arm == "tilt" else set()
            name = f"{arm} ({', '.join(f'{tilt:+g}' for tilt in sorted(tilts))})" if tilts else arm
            params = np.mean([row["params"] for row in own])
            lines.append(f"| {share:.1%} | {name} | {len(own)} | {' | '.join(cells)} | {params:.1%} |")
    return "\n".join([*lines, "", *_compare(made)])


def _show(values: Sequence[float]) -> str:
    """Write the mean of some seeds, and their range."""
    if len(values) == 1:
        return f"{values[0]:.2%}"
    return f"{np.mean(values):.2%} ({100 * min(values):.2f} to {100 * max(values):.2f})"


def _compare(made: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where damage is ahead before fine-tuning, and how it stands to each other arm after it, seed by seed."""
    lines = []
    for share in sorted({row["share"] for row in made}, reverse=True):
        at = {(row["arm"], row["seed"]): row for row in made if row["share"] == share}
        for arm in (each for each in ARMS if each != "damage"):
            seeds = [seed for name, seed in at if name == arm and ("damage", seed) in at]
            if not seeds:
                continue
            parts = []
            for name, said in (("cut", "before"), ("accuracy", "validation"), ("test", "test")):
                gaps = 100 * np.array([at["damage", seed][name] - at[arm, seed][name] for seed in seeds])
                error = f" ± {gaps.std(ddof=1) / len(gaps) ** 0.5:.2f}" if len(gaps) > 1 else ""
                parts.append(f"{said} {gaps.mean():+.2f}{error}")
            lines.append(f"- {share:.1%}, `damage` less `{arm}`, in points: {', '.join(parts)}.")
    return lines
