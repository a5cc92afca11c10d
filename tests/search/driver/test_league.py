"""Leagues: in pieces, with controls, repeatable, and never mixed with another comparison."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from search.commands.cli import app
from search.driver import league_rows, precision
from search.driver.league import CONTROLS, League
from search.driver.league_rows import run_row
from search.driver.prepare import plan
from search.records.league import DENSE, LeagueRow, read_csv, write_csv
from search.report.league import league_table
from search.store.files import write_atomically
from spaces import InputError
from tests.search.cases import make_quick_config

ARMS = ("random[round_to=2]", "sdprun[preset=paper]")


def league(directory: Path, name: str = "l", arms: tuple[str, ...] = ARMS, seeds: int = 2) -> League:
    return League(make_quick_config(directory, shares=[0.6, 0.4]), arms, name, seeds)


def drop_time(rows: list[LeagueRow]) -> list[LeagueRow]:
    return [replace(row, seconds=0.0) for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> League:
    job = league(tmp_path_factory.mktemp("runs"))
    job.run()
    return job


def test_every_arm_and_control_is_there_with_every_seed(whole: League) -> None:
    rows = whole.rows()
    labels = [*CONTROLS, ARMS[0]]
    expected = {(label, share, seed) for label in labels for share in ("0.6", "0.4") for seed in (0, 1)}
    expected |= {(label, "", seed) for label in (DENSE, ARMS[1]) for seed in (0, 1)}
    assert {row.key for row in rows} == expected and len(rows) == len(expected)
    assert all(row.state == "complete" for row in rows), [row.error for row in rows]
    assert whole.complete and not league(whole.config.directory, seeds=3).complete
    dense = rows[0].flops
    for row in rows:
        if not math.isnan(row.share):
            assert 0.5 * row.share * dense < row.flops <= row.share * dense
        assert 0 <= row.test <= 1 and (whole.folder / "weights").exists()
    rounded = next(row for row in rows if row.arm == ARMS[0])
    assert rounded.point["round_to"] == 2
    longest = {row.arm: row.steps for row in rows}
    assert longest["smaller"] == longest[DENSE] + longest["magnitude"], "trained as long in all"
    assert len(list((whole.folder / "weights").glob("*.safetensors"))) == len(rows) - 2


def test_controls_have_equal_shares_where_methods_go_by_damage(tmp_path: Path) -> None:
    arms = ("increg", "magnitude[sparsity.mode=damage]", "eigendamage", "pivoting")
    config = make_quick_config(tmp_path, shares=[0.5], finetune={"epochs": 60})
    job = League(config, arms, "d", seeds=1)
    planned = plan(config)
    modes = {arm.label: job._point(arm, 0.5, planned)["sparsity.mode"] for arm in job.arms if arm.label != "smaller"}
    assert modes == {"magnitude": "flops", "random": "flops", **dict.fromkeys(arms, "damage")}


@pytest.mark.slow
def test_in_pieces_it_is_the_same(whole: League, tmp_path: Path) -> None:
    pieces = league(tmp_path)
    assert pieces.run(minutes=0) == []
    for seeds in (1, 2):
        pieces = league(tmp_path, seeds=seeds)
        pieces.run()
    assert repr(drop_time(pieces.rows())) == repr(drop_time(whole.rows()))
    before = pieces.csv.read_text(encoding="utf-8")
    pieces.run()
    assert pieces.csv.read_text(encoding="utf-8") == before, "nothing is run twice"


def test_rows_pause_when_the_time_is_over_and_go_on_to_the_same(tmp_path: Path) -> None:
    config = make_quick_config(tmp_path, shares=[0.5], finetune={"epochs": 2}, dense={"epochs": 1})
    *_, method, smaller = League(config, ("increg",), "p", 1)._jobs(0, tmp_path / "weights")
    assert (method.row.arm, smaller.row.arm) == ("increg", "smaller"), "what takes longest comes last"
    for job, epochs in ((method, 3), (smaller, 3)):  # one more where a phase of the method ends within one
        whole = run_row(replace(job, folder=tmp_path / "whole"))
        over, pauses = replace(job, ends=0.0), 0
        while (row := run_row(over)) is None:
            pauses += 1
            assert list(job.folder.glob("*.unfinished")) and pauses < 9
        assert pauses == epochs - 1, "at every epoch but the last"
        assert whole is not None
        assert replace(row, seconds=0.0) == replace(whole, seconds=0.0)
        assert not list(tmp_path.rglob("*.unfinished"))


def test_long_rows_say_how_far_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(league_rows, "SILENCE", 0.0)
    lines: list[str] = []
    config = make_quick_config(tmp_path, shares=[0.5], finetune={"epochs": 2})
    job = League(config, (), "s", 1, say=lines.append)
    job.run()
    steps = next(row.steps for row in job.rows() if row.arm == "magnitude")
    assert f"seed 0  magnitude at 0.5  step {steps / 2:.0f} of {steps:.0f}" in lines
    assert any(line.startswith("seed 0  magnitude at 0.5  test ") for line in lines)


def test_a_new_arm_is_run_beside_more_rows_than_are_asked_for(whole: League) -> None:
    rows, about = read_csv(whole.csv.read_text(encoding="utf-8"), "rows.csv")
    other = League(whole.config, (), "fewer", 1)
    other.folder.mkdir(parents=True)
    others = [replace(row, arm=f"other {number}") for row in rows for number in range(2) if row.arm == "magnitude"]
    known = [row for row in rows if row.seed == 0 and row.key[:2] != ("random", "0.4")]
    write_atomically(other.csv, write_csv([*known, *others], about))
    assert ("random", "0.4", 0) in {row.key for row in other.run()}


@pytest.mark.slow
def test_rows_are_repeatable_and_a_changed_one_is_found(whole: League) -> None:
    assert whole.check(3) == []
    kept = whole.csv.read_text(encoding="utf-8")
    rows, about = read_csv(kept, "rows.csv")
    changed = [replace(row, test=row.test + 0.01) if row.arm == "magnitude" else row for row in rows]
    write_atomically(whole.csv, write_csv(changed, about))
    try:
        wrong = whole.check(len(rows))
        assert {old.arm for old, _ in wrong} == {"magnitude"} and len(wrong) == 4
    finally:
        write_atomically(whole.csv, kept)


def test_the_command_makes_the_table_from_the_csv_alone(whole: League, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["league", "--csv", str(whole.csv), "--to", str(tmp_path / "t.md")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "t.md").read_text(encoding="utf-8") == league_table(whole.rows(), whole.describe())
    missing = CliRunner().invoke(app, ["league", "--csv", str(tmp_path / "no.csv")])
    assert missing.exit_code == 2


def test_another_comparison_is_not_mixed_in(whole: League) -> None:
    other = make_quick_config(whole.config.directory, finetune={"epochs": 1}, shares=[0.6])
    with pytest.raises(InputError, match=r"league 'l' was begun with epochs = 0\.5, not 1\.0; give another name"):
        League(other, (), "l").run()
    with pytest.raises(InputError, match="unknown method 'incregg'; did you mean 'increg'"):
        league(whole.config.directory, arms=("incregg",))


def test_a_league_of_what_cannot_be_loaded_leaves_nothing(tmp_path: Path) -> None:
    job = League(make_quick_config(tmp_path / "runs", model="digits_cnn"), ARMS, "l")
    with pytest.raises(InputError, match="did you mean 'digits_resnet'"):
        job.run()
    assert not (tmp_path / "runs").exists()


def test_seeds_share_one_plan_and_dense_network_and_warn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "measure_half", lambda half: 9.0)
    dense = {"epochs": 0.1, "recipe": {"bf16": True}}
    for own, apart in ((False, 1), (True, 2)):
        said: list[str] = []
        config = make_quick_config(tmp_path, shares=[0.5], dense=dense, finetune={"epochs": 0.1})
        job = League(config, ("magnitude",), f"own-{own}", 2, own, said.append)
        settings = [next(job._jobs(seed, tmp_path)).setting for seed in (0, 0, 1)]
        assert len({id(each) for each in settings}) == apart
        assert len([each for each in said if "bf16 makes training slower" in each]) == 1


def test_a_failure_is_a_row(tmp_path: Path) -> None:
    job = League(make_quick_config(tmp_path, shares=[0.5]), ("eigendamage[variant=nothing]", "increg"), "f", seeds=1)
    job.config = job.config.model_copy(update={"finetune": job.config.finetune.model_copy(update={"epochs": 0.05})})
    rows = {row.arm: row for row in job.run()}
    assert rows["eigendamage[variant=nothing]"].state == "failed"
    assert "nothing" in rows["eigendamage[variant=nothing]"].error
    assert rows["increg"].state == "failed" and "within 1 steps" in rows["increg"].error
    assert rows["magnitude"].state == "complete"
