"""The page about studies: everything that is known is on it, nothing is loaded, nothing of the user's runs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.fronts.attribution import attribute_methods
from search.fronts.front import Front
from search.fronts.off_the_shelf import OffTheShelf, read_tables, rivals
from search.fronts.quantised import precisions
from search.objectives import load_objectives
from search.records.outcome import DenseRow, Outcome
from search.records.timing import Timing
from search.report.quantised import precision_table
from search.report.study_charts import _split_at_gaps
from search.report.study_page import study_page
from search.report.study_view import StudyView
from search.report.views import ReportViews
from spaces import InputError
from tests.search.cases import outcome

DENSE = DenseRow.from_metrics(accuracy=0.98, flops=1000, params=200, seconds=8.0, test_metrics={"accuracy": 0.97})
HOSTILE = "</script><script>alert(1)</script>"


def trial(number: int, accuracy: float, flops: float, method: str = "magnitude", **changes: Any) -> Outcome:
    fields: dict[str, Any] = {
        "metrics": {"accuracy": accuracy, "flops": flops, "params": flops / 5, "seconds": 2.0},
        "history": [{"epoch": 1.0, "accuracy": accuracy - 0.1}, {"epoch": 2.0, "accuracy": accuracy}],
        "widths": {"conv1": (round(16 * flops / 1000), 16), "conv2": (32, 32)},
        "extra": {"accuracy_cut": accuracy - 0.3},
        "point": {"sparsity.flops": flops / 1000, "norm": "l1" if number % 2 else "l2"},
        "test_metrics": {"accuracy": accuracy - 0.01},
    }
    return outcome(number, method=method, **(fields | changes))


def view(name: str = "digits", **changes: Any) -> StudyView:
    outcomes = [
        trial(0, 0.97, 600.0),
        trial(1, 0.95, 300.0, "increg", point={"sparsity.flops": 0.3, "penalty": 1e-4}),
        trial(2, 0.95, 300.0, "random"),
        trial(3, 0.90, 500.0),
        outcome(4, error=f"Traceback\nValueError: {HOSTILE}\n"),
        trial(5, 0.93, 200.0, "increg", point={"sparsity.flops": 0.2}),
    ]
    complete = [each for each in outcomes if each.state == "complete"]
    front = Front(name, DENSE, complete, load_objectives("accuracy,flops"), views=ReportViews())
    record = {"config": {"model": HOSTILE, "trials": 6, "split": {"seed": 3}}, "versions": {"torch": "2.14"}}
    weights = {"increg": {"accuracy": {"penalty": 0.7, "sparsity.flops": 0.3}}}
    return replace(StudyView(front, outcomes, record, weights), **changes)


def test_networks_off_the_shelf_stand_beside_the_front(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(
        "model,top1,param_count\ntiny,91.5,0.00003\nsmall<b>,96.0,0.0001\nbig,99.0,5\n"
    )
    (tmp_path / "speed.csv").write_text("model,infer_gmacs\ntiny,0.0000001\nsmall<b>,0.00000025\nbig,1.0\n")
    page = study_page([view(shelf=read_tables([tmp_path / "results.csv", tmp_path / "speed.csv"]))])
    assert "Should I prune at all?" in page and "small&lt;b&gt;" in page and "small<b>" not in page
    cells = re.findall(r"<tr>(.*?)</tr>", page.split("Should I prune at all?")[1].split("</table>")[0])[1:]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in cells]
    # On the test set trial 5 reaches 92 % with 200 FLOPs, tiny 91.5 % with 100; trial 1 94 %, small 96 % with 250.
    assert [(row[0], row[4], row[7]) for row in rows] == [
        ("5", "tiny", "+0.50"),
        ("1", "small&lt;b&gt;", "-2.00"),
        ("0", "small&lt;b&gt;", "+0.00"),
    ]
    front = view().front
    assert rivals(front, read_tables([tmp_path / "results.csv"]))[0] == "params"
    assert rivals(front, [OffTheShelf("huge", 1.0, {"flops": 1e9})])[1][0].network is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "has no column model, name, network with names"),
        ("model,top1\nx,80\n", "no network has an accuracy"),
        ("model,params,top1\nx,many,80\n", "no network has an accuracy"),
        ("", "has no column"),
        (None, "cannot be read as a table"),
    ],
)
def test_a_table_that_says_nothing_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        read_tables([tmp_path / "t.csv"])


def test_the_diagnosis_is_told(tmp_path: Path) -> None:
    found = {
        "groups": [{"name": "conv1", "units": 16}, {"name": "conv2", "units": 32}],
        "reachable_flops_share": [0.021, 1.0],
        "reachable_params_share": [0.03, 1.0],
        "difference": 2e-15,
        "stays": {"fc": HOSTILE, "fc2": HOSTILE},
        "left_out": {},
    }
    page = study_page([view(record={**view().record, "diagnosis": found})])
    assert "2 groups with 48 units can be pruned, down to 2.1 % of the FLOPs and 3 % of the parameters" in page
    assert "fc, fc2" in page and HOSTILE not in page
    assert "What can be pruned" not in study_page([view()])


def test_both_precisions_are_drawn() -> None:
    told = {
        1: {
            "metrics": {"accuracy": 0.94},
            "test_metrics": {"accuracy": 0.93},
            "latency": {"whole": 2e-3, "int8": 1e-3},
            "bytes": {"whole": 4000, "int8": 1500},
        },
        3: {},  # not on the front
    }
    front = view().front
    points = precisions(front, told)
    assert [(each.trial, each.bits, each.leading) for each in points] == [(1, 8, True), (1, 32, True)]
    told[1]["metrics"] = {"accuracy": 0.95}  # as good, and faster
    assert [each.leading for each in precisions(front, told)] == [True, False]
    page = study_page([view(precisions=points)])
    assert "In 8 bits" in page and "trial 1 increg, 8 bits" in page and "2 kB" in page
    table = precision_table(front, points)
    assert table.columns[0].cells == ["•1", "•1"] and "In 8 bits" not in study_page([view()])


def test_everything_known_is_on_the_page() -> None:
    page = study_page([view()])
    for heading in (
        "Pareto front",
        "The networks of the front",
        "Which method gives which part",
        "Hypervolume over trials",
        "Widths side by side",
        "Before and after fine-tuning",
        "Validation against test",
        "Learning curves",
        "Parameters and what came of them",
        "What decides",
        "Failed trials",
        "Settings",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "Latency against FLOPs" not in page, "it was not measured"
    for text in (
        "=2",
        "70 %",
        "split.seed",
        "2.14",
        "the same: trial 2 random",
        "test accuracy",
        "conv2: 32 of 32 kept",
    ):
        assert text in page


def test_the_page_is_small_loads_nothing_and_runs_nothing_of_the_users() -> None:
    page = study_page([view(), view("other")])
    assert len(page) < 300_000
    assert "<script>alert" not in page and page.count("<script>") == 1
    assert not re.search(r"""(src=|href="(?!#)|url\(|@import|https?:)""", page)
    assert "prefers-color-scheme:dark" in page


def test_several_studies_are_set_beside_each_other() -> None:
    page = study_page([view(), view("other")])
    assert "2 studies" in page and 'href="#study-1"' in page and "fronts of all studies" in page
    front = Front("third", DENSE, view().front.outcomes, load_objectives("accuracy,params"))
    mixed = study_page([view(), view(front=front)])
    assert "cannot be compared" in mixed and "fronts of all studies" not in mixed


def test_trials_beyond_the_limits_are_named() -> None:
    said = "came out beyond the limits of the study"
    assert said not in study_page([view()])
    for outside, words in (((7,), "Trial 7 "), ((2, 7), "Trials 2, 7 ")):
        assert words + said in study_page([view(front=replace(view().front, outside=outside))])


def test_a_study_with_nothing_has_a_page() -> None:
    empty = view(front=Front("empty", DENSE, [], load_objectives("accuracy,flops")), outcomes=[], importances={})
    page = study_page([empty])
    assert "no complete trial within these limits" in page and "Learning curves" not in page


def test_latency_is_drawn_where_it_was_measured() -> None:
    dense = DenseRow(DENSE.metrics | {"latency": 0.004})
    timing = Timing.from_seconds([0.004] * 4, [0.003] * 4)
    one = trial(0, 0.97, 600.0)
    timed = replace(one, metrics=one.metrics | {"latency": 0.003}, timings={"cpu": timing})
    front = Front("timed", dense, [timed], load_objectives("accuracy,flops,latency"))
    page = study_page([view(front=front, outcomes=[timed])])
    assert "Latency against FLOPs" in page and "efficiency 0.80" in page


def test_hypervolume_grows_and_ends_at_that_of_the_front() -> None:
    growth = view().growth
    volumes = [volume for _, volume in growth]
    assert [count for count, _ in growth] == [1, 2, 3, 4, 5, 6]
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(view().front.hypervolume())


def test_a_method_that_another_one_equals_has_nothing_of_its_own() -> None:
    shares = {share.method: share for share in attribute_methods(view().front)}
    assert (shares["random"].members, shares["random"].trials, shares["random"].lost) == (0, 1, 0.0)
    assert (shares["magnitude"].members, shares["increg"].members) == (1, 2)
    assert shares["increg"].lost > 0 and shares["magnitude"].lost > 0


def test_a_line_stops_where_a_parameter_does_not_apply() -> None:
    points = [(0.0, 0.1), (1.0, None), (2.0, 0.3), (3.0, 0.4)]
    assert list(_split_at_gaps(points)) == [[(0.0, 0.1)], [(2.0, 0.3), (3.0, 0.4)]]


def test_the_page_tells_which_method_gives_which_part() -> None:
    page = study_page([view()])
    assert "Which method gives which part" in page
    assert re.search(r"\d+\.\d %, 2 of 2 trials on the front", page), "both trials of increg are members"
    alone = [trial(0, 0.97, 600.0), trial(1, 0.95, 300.0)]
    single = replace(view(), front=Front("s", DENSE, alone, load_objectives("accuracy,flops")))
    assert "Which method gives which part" not in study_page([single])


def test_intervals_are_told_where_the_front_was_confirmed() -> None:
    spread = {"recorded": 0.97, "mean": 0.92, "half_width": 0.05, "values": [0.90, 0.92, 0.94]}
    member = {"trial": 0, "method": HOSTILE, "verdict": "merged", "into": 5, "validation": {"accuracy": spread}}
    page = study_page([view(confirmation={"members": [member]})])
    assert "92.00 ± 4.97 %" in page and "merged: 5" in page and HOSTILE not in page
    assert "further seeds" in page and "further seeds" not in study_page([view()])
