from __future__ import annotations

from pathlib import Path

import pytest

from search.driver.ending import Ending
from search.driver.sweep import Sweep
from search.records.listener import NullListener
from search.study.config import StudyConfig
from search.study.config_file import load_config
from search.study.schedule import Schedule
from spaces import InputError
from tests.search.cases import make_quick_config, outcome
from tests.search.study.test_schedule import make_fresh


def test_a_budget_ends_and_stays_ended() -> None:
    now = [100.0]
    ending = Ending(StudyConfig(budget="2min"), lambda: 0, lambda: now[0])
    assert not ending()
    now[0] = 219.9
    assert not ending() and ending.reason is None
    now[0] = 220.0
    assert ending() and ending.reason == "the budget of 2min is spent"
    now[0] = 0.0
    assert ending()


def test_a_flat_front_ends() -> None:
    flat = [0]
    ending = Ending(StudyConfig(patience=3), lambda: flat[0])
    assert not ending()
    flat[0] = 3
    assert ending() and ending.reason == "the front has not grown for 3 trials"


def test_a_schedule_that_is_over_hands_out_nothing_and_keeps_what_runs() -> None:
    study, over = make_fresh(), [False]
    schedule = Schedule(study, 5, 5, lambda _: None, lambda _: None, lambda: over[0])
    assert schedule.next() is not None
    over[0] = True
    assert schedule.next() is None and schedule.exhausted and not schedule.done
    schedule.finish(outcome(0))
    assert study.told_numbers == [0]


@pytest.mark.parametrize("text", ["8", "h", "-1h", "0s", "8 hours", "1e3s"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(InputError, match="budget: .* is no time; write a number with s, min, h or d"):
        load_config(None, [f"budget={text!r}"])


def test_a_sweep_with_a_spent_budget_still_has_its_front(tmp_path: Path) -> None:
    front = Sweep(make_quick_config(tmp_path, trials=6, name="s", patience=1, methods=["random"])).run()
    assert 1 <= len(front.outcomes) < 6
    more = Sweep.resume("s", tmp_path).run()
    assert len(more.outcomes) >= len(front.outcomes)


def test_more_trials_than_points_are_refused(tmp_path: Path) -> None:
    fixed = {"random": {"sparsity.flops": 0.5, "sparsity.tilt": 0.0}}
    with pytest.raises(InputError, match=r"trials = 3, but the space has only 1 point; set trials = 1"):
        Sweep(make_quick_config(tmp_path, trials=3, methods=["random"], space=fixed)).plan()


def test_a_budget_shorter_than_one_trial_lets_that_one_end(tmp_path: Path) -> None:
    heard: list[str] = []

    class Listener(NullListener):
        def warning(self, text: str) -> None:
            heard.append(text)

    front = Sweep(make_quick_config(tmp_path, name="s", device_budget="0.001s", methods=["random"]), Listener()).run()
    assert len(front.outcomes) == 1
    assert "the budget of 0.001s of devices is spent: 2 of 3 trials were not begun" in heard
