"""Tables give way by whole columns, never by digits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from search.fronts.front import Front
from search.objectives import Objective, load_objectives
from search.records.outcome import DenseRow
from search.report.fitted import Column, FittedTable
from search.report.tables import compare_table, front_table
from tests.search.cases import outcome


def print_table(table: FittedTable, width: int) -> str:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


NUMBERS = st.tuples(st.integers(0, 10**9), st.integers(1, 5))


@given(st.lists(NUMBERS, min_size=1, max_size=9, unique_by=lambda pair: pair[0]), st.integers(24, 90))
def test_numbers_are_whole_or_their_column_is_named(numbers: list[tuple[int, int]], width: int) -> None:
    columns = [Column(f"c{place}", [str(number)], rank) for place, (number, rank) in enumerate(numbers)]
    text = print_table(FittedTable("t", [Column("name", ["magnitude"], words=True), *columns]), width)
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    shown, _, left_out = " ".join(text.split()).partition("left out for want of room:")
    for column, (number, _) in zip(columns, numbers, strict=True):
        assert (str(number) in shown.split()) != (column.heading in left_out.replace(",", " ").split())


def test_columns_of_the_highest_rank_go_first() -> None:
    columns = [Column("a", ["1" * 10]), Column("b", ["2" * 10], 1), Column("c", ["3" * 10], 2)]
    table = FittedTable("t", columns)
    assert [[column.heading for column in table.choose_columns(width)] for width in (34, 33, 21, 5)] == [
        ["a", "b", "c"],
        ["a", "b"],
        ["a"],
        ["a"],
    ]


DENSE = DenseRow.from_metrics(accuracy=0.9861, flops=3_050_000, params=77_850, seconds=9.4, energy=8.0)


def front(study: str = "digits-resnet-001") -> Front:
    measured = {"accuracy": 0.9889, "flops": 1_310_000.0, "params": 33_420.0, "seconds": 5.0, "energy": 2.0}
    one = outcome(0, method="matrix_pivoting", metrics=measured, test_metrics={"accuracy": 0.9722})
    energy = Objective(name="energy", title="energy", direction="minimise", unit="mJ", style=".3g")
    objectives = (*load_objectives("accuracy,flops"), energy)
    return Front(study, DENSE, [one, outcome(1, method="random", metrics=measured)], objectives)


@pytest.mark.parametrize("width", [60, 66, 72, 80])
def test_a_narrow_front_keeps_what_is_searched_for(width: int) -> None:
    text = print_table(front_table(front()), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    for whole in ("98.89 %", "43.0 %", "25.0 %", "matrix_pivoting", "=1"):
        assert whole in text
    assert "…" not in text


def test_an_objective_of_ones_own_is_a_column() -> None:
    text = print_table(front_table(front()), 120)
    assert "energy" in text and "= the same as the trial above it in every objective" in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "dense 98.61 % 3.05 M 100.0 % 77.85 k 8 100.0 % –" in lines
    assert "matrix_pivoting *0 98.89 % -0.28 1.31 M 43.0 % 33.42 k 2 25.0 % 97.22 %" in lines


def test_names_of_studies_are_not_broken_at_sixty_columns() -> None:
    text = print_table(compare_table([front("digits-resnet-001"), front("digits-resnet-002")]), 60)
    assert "digits-resnet-001" in text and "digits-resnet-002" in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 60
