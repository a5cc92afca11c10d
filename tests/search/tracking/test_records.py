from __future__ import annotations

import math
import posixpath
import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from search.objectives import Objective
from search.records.outcome import DenseRow, Outcome
from search.tracking.records import (
    MetricPoint,
    clean_names,
    clip_markdown,
    dense_metrics,
    dense_name,
    flatten,
    run_name,
    shares,
    split_finite,
    trial_metrics,
    trial_params,
)

DENSE = DenseRow.from_metrics(accuracy=0.99, flops=1_000_000, params=80_000, seconds=12.0)
COMPLETE = Outcome(
    number=7,
    method="increg",
    point={"sparsity.mode": "layer", "sparsity.ratios[stage1.0]": 0.25, "penalty_step": 3.2e-4},
    state="complete",
    metrics={"accuracy": 0.98607, "flops": 310_000.0, "params": 20_000.0, "seconds": 4.5},
    history=[{"epoch": 0.0, "loss": 2.0}, {"epoch": 1.0, "loss": 1.0, "accuracy": 0.9}],
    widths={"stage1.0": (4, 16)},
    extra={"forced": 1.0},
    seed=42,
    error=None,
    started=1000.0,
    seconds=10.0,
)
FAILED = replace(COMPLETE, number=8, state="failed", metrics={}, history=[], extra={}, error="Traceback\nOSError: full")


def test_names_start_with_what_matters() -> None:
    assert run_name(COMPLETE, 0.31) == "0007 98.61% 0.31x increg"
    assert run_name(COMPLETE, None) == "0007 98.61% increg"
    assert run_name(FAILED, None) == "0008 failed increg"


def test_shares_of_the_dense_network() -> None:
    assert shares(COMPLETE, DENSE) == {"flops_share": 0.31, "params_share": 0.25}
    assert shares(COMPLETE, None) == shares(FAILED, DENSE) == {}


def test_params_are_method_seed_and_point() -> None:
    assert trial_params(COMPLETE) == {
        "method": "increg",
        "seed": "42",
        "sparsity.mode": "layer",
        "sparsity.ratios/stage1.0": "0.25",
        "penalty_step": "0.00032",
    }


def test_final_numbers_at_the_end_and_epochs_before_it() -> None:
    points = trial_metrics(replace(COMPLETE, test_metrics={"accuracy": 0.97}), DENSE)
    final = {point.name: point.value for point in points if not point.name.startswith("epoch/")}
    assert final == {
        **COMPLETE.metrics,
        "flops_share": 0.31,
        "params_share": 0.25,
        "drop": 0.393,
        "extra/forced": 1.0,
        "test_accuracy": 0.97,
    }
    assert {(p.time, p.step) for p in points if p.name in final} == {(1_010_000, 0)}
    assert [point for point in points if point.name not in final] == [
        MetricPoint("epoch/loss", 2.0, 1_005_000, 0),
        MetricPoint("epoch/loss", 1.0, 1_010_000, 1),
        MetricPoint("epoch/accuracy", 0.9, 1_010_000, 1),
    ]


def test_values_that_are_no_numbers_are_named_not_sent() -> None:
    points = [MetricPoint(name, value, 0, 0) for name, value in {"a": 1.0, "c": math.nan, "b": -math.inf}.items()]
    assert split_finite(points) == (points[:1], "b, c")


def test_flattening() -> None:
    given_values = {"a": {"b": {"c": True}}, "d": [1, 2], "e": None, "f": 1e-5, "g": "x" * 9000}
    flat = flatten(given_values)
    assert flat == {"a.b.c": "True", "d": "[1, 2]", "e": "None", "f": "1e-05", "g": "x" * 6000}


def test_clipping_keeps_whole_lines() -> None:
    assert clip_markdown("short", 10) == "short"
    text = "\n".join(f"| row {n} |" for n in range(100))
    cut = clip_markdown(text, 200)
    assert len(cut) <= 200
    assert cut.endswith("(cut here; the whole table is in front/)")
    assert set(cut.splitlines()[:-2]) <= set(text.splitlines())


NAMES = st.lists(st.text(st.sampled_from("ab./[]* :é\\\n"), max_size=300) | st.text(max_size=12), unique=True)


@settings(deadline=None)  # the machine may be busy
@given(NAMES)
def test_cleaned_names_are_accepted_by_mlflow_and_stay_apart(names: list[str]) -> None:
    clean = clean_names({name: name for name in names})
    assert list(clean.values()) == names
    for name in clean:
        assert re.fullmatch(r"[/\w.\- ]{1,250}", name)
        assert posixpath.normpath(name) == name and not name.startswith(("/", "..")) and name != "."


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.from_regex(r"\A[a-z_][a-z0-9_]{0,10}(\.[a-z0-9_]{1,10}){0,2}\Z"), unique=True))
def test_ordinary_names_stay_as_they_are(names: list[str]) -> None:
    assert list(clean_names(dict.fromkeys(names))) == names


def test_runs_are_named_and_measured_by_what_is_searched_for() -> None:
    iou = Objective(
        name="mean_iou", title="mean IoU", direction="maximise", style=".1%", ideal=1.0, quality=True, trained=True
    )
    measured = {"mean_iou": 0.55, "flops": 500.0, "params": 50.0, "seconds": 1.0, "energy": 2.0}
    each = replace(COMPLETE, metrics=measured, timings={}, test_metrics={"mean_iou": 0.5})
    dense = DenseRow({"mean_iou": 0.6, "flops": 1000.0, "params": 100.0, "seconds": 3.0, "energy": 8.0})
    assert run_name(each, 0.25, iou) == "0007 55.0% 0.25x increg"
    assert dense_name(dense, iou) == "dense 60.0% 1.00x"
    values = {point.name: point.value for point in trial_metrics(each, dense, iou, ("energy", "flops"))}
    assert (values["energy_share"], values["flops_share"], values["drop"]) == (0.25, 0.5, 5.0)
    assert values["test_mean_iou"] == 0.5
    assert dense_metrics(dense, ("energy",))["energy_share"] == 1.0
    assert run_name(each, None) == "0007 increg", "without an accuracy there is none in the name"
