"""The comparison of allocations: widths that keep to the share, rows that are made once, and what its table says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.allocation.__main__ import Comparison, parse
from benchmarks.allocation.arms import choose_trial, raise_level
from benchmarks.allocation.table import make_table, read_rows
from methods.contract.sample_problem import chain_network, find_anatomy
from search.records.outcome import Outcome
from spaces import InputError
from spaces.sparsity import PerLayer
from tests.search.cases import outcome


def trial(number: int, flops: float, accuracy: float) -> Outcome:
    """A complete trial of a network with 1,000 FLOPs."""
    return outcome(number, metrics={"accuracy": accuracy, "flops": flops, "params": 1.0, "seconds": 1.0})


def row(arm: str, seed: int, cut: float, accuracy: float) -> dict[str, Any]:
    """One network at half of the FLOPs."""
    point = {"sparsity.tilt": 0.2}
    measured = {"cut": cut, "accuracy": accuracy, "test": accuracy - 0.01, "params": 0.4}
    return {"arm": arm, "share": 0.5, "seed": seed, "point": point, **measured}


def test_the_trial_that_speaks_for_a_share_spends_most_of_it() -> None:
    trials = [trial(0, 500, 0.8), trial(1, 400, 0.85), trial(2, 300, 0.9), trial(3, 501, 0.99)]
    assert choose_trial(trials, 1000, 0.5).number == 1
    assert choose_trial(trials, 1000, 0.8).number == 3
    assert choose_trial(trials, 2000, 0.3).number == 3
    with pytest.raises(InputError, match=r"no trial of the search has at most 20\.0%"):
        choose_trial(trials, 1000, 0.2)


def test_where_no_trial_is_near_the_share_the_most_accurate_cheaper_one_speaks() -> None:
    assert choose_trial([trial(0, 100, 0.8), trial(1, 90, 0.7)], 1000, 0.5).number == 0


def test_a_level_is_raised_until_the_share_is_spent() -> None:
    anatomy = find_anatomy(chain_network)
    cost, layers = anatomy.cost, [group.layer for group in anatomy.groups]
    offsets = {layer.name: 0.5 * (-1) ** place for place, layer in enumerate(layers)}
    point = {f"sparsity.layer_offsets[{name}]": value for name, value in offsets.items()}
    level = raise_level({**point, "sparsity.level": 0.1}, layers, cost, 0.4)
    spent = [
        cost.flops(PerLayer(level=each, layer_offsets=offsets).keep(layers, cost.flops))
        for each in (level, level + 2e-6)
    ]
    assert spent[0] <= 0.4 * cost.dense < spent[1]


def test_the_table_compares_seed_by_seed() -> None:
    common = {"dense": {"accuracy": 0.9}, "validated": 100}
    rows = [common]
    for seed, more in ((0, 0.01), (1, 0.03)):
        rows += [row("tilt", seed, 0.3, 0.80), row("damage", seed, 0.5, 0.80 + more)]
    rows.append(row("search", 0, 0.4, 0.82))
    said = make_table(rows)
    assert "| 50.0% | tilt (+0.2) | 2 | 30.00% (30.00 to 30.00) | 80.00% (80.00 to 80.00) |" in said
    assert "| 50.0% | damage | 2 | 50.00% (50.00 to 50.00) | 82.00% (81.00 to 83.00) |" in said
    assert "- 50.0%, `damage` less `tilt`, in points: before +20.00 ± 0.00, validation +2.00 ± 1.00" in said
    assert "- 50.0%, `damage` less `search`, in points: before +10.00, validation -1.00, test -1.00." in said


@pytest.mark.slow
def test_a_comparison_that_is_begun_again_makes_what_is_missing(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    words = ["--model", "digits_resnet", "--data", "digits", "--store", str(tmp_path / "mlruns"), "--to", str(rows)]
    words += ["--dense-epochs", "2", "--epochs", "0.5", "--search-epochs", "0.25", "--search-trials", "5"]
    words += ["--shares", "0.5,0.35", "--seeds", "2"]
    Comparison(parse([*words, "--minutes", "0"])).run()
    assert [each.get("arm") for each in read_rows(rows)] == [None]
    Comparison(parse(words)).run()
    made = read_rows(rows)[1:]
    assert len({(each["arm"], each["share"], each["seed"]) for each in made}) == len(made) == 5 * 2 * 2
    assert all(0.8 * each["share"] < each["flops"] <= each["share"] for each in made)
    at = {(each["arm"], each["share"], each["seed"]): each for each in made}
    assert at["damage", 0.35, 0]["widths"] != at["uniform", 0.35, 0]["widths"]
    assert at["uniform", 0.35, 0]["widths"] == at["uniform", 0.35, 1]["widths"]
    assert at["uniform", 0.35, 0]["accuracy"] != at["uniform", 0.35, 1]["accuracy"]  # another order of training
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-1]))
    Comparison(parse(words)).run()
    assert read_rows(rows)[1:-1] == made[:-1]
    assert read_rows(rows)[-1]["accuracy"] == made[-1]["accuracy"]
    assert "| 35.0% | search | 2 |" in make_table(read_rows(rows))
