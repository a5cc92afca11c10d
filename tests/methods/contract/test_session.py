"""Sessions: what is kept at a rung, loaded again, and asked."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from methods.contract.session import Decision, Paused, Rung, Saved, TrialAnalyses, Uninterrupted, go_on
from methods.training.hooks import Hook
from methods.training.trainer import Recipe, Trainer
from tests.methods import cases

TRAIN = cases.blobs((5,), 64)


class States(dict[str, bytes]):
    def put(self, name: str, state: bytes) -> None:
        self[name] = state


def phase(steps: int = 12, hook: Hook | None = None, seen: list[dict[str, float]] | None = None) -> Trainer:
    model = cases.seeded(lambda: nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, cases.CLASSES)))
    recipe = Recipe(lr=0.1, batch_size=16)
    report: Callable[[dict[str, float]], None] = (lambda record: None) if seen is None else seen.append
    return Trainer(model, TRAIN, recipe, steps, 3, validation=TRAIN, hook=hook, report=report, comparable=True)


def test_a_phase_goes_on_from_its_last_rung() -> None:
    whole = phase()
    expected = whole.run()
    states, steps = States(), list[int]()

    def second(rung: Rung) -> Decision:
        steps.append(rung.step)
        return "pause" if rung.step == 8 else "continue"

    with pytest.raises(Paused, match=r"told to pause at step 8 \(tune\)"):
        Saved(states, second).train("tune", phase())
    seen: list[dict[str, float]] = []
    again = phase(seen=seen)
    assert Saved(states, second).train("tune", again) == expected == seen
    assert steps == [4, 8, 12], "no epoch ran twice"
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key])
    assert not again.model.training


def test_a_finished_phase_is_loaded_and_nothing_is_asked() -> None:
    states = States()
    Saved(states).train("tune", phase())

    def ask(rung: Rung) -> Decision:
        raise AssertionError("there is no rung left")

    assert len(Saved(states, ask).train("tune", phase())) == 3


def test_steps_are_done_once_and_names_used_once() -> None:
    states, calls = States(), list[int]()

    def compute() -> dict[str, torch.Tensor]:
        calls.append(1)
        return {"x": torch.arange(3)}

    session = Saved(states)
    assert torch.equal(session.compute_once("scores", compute)["x"], torch.arange(3))
    assert torch.equal(Saved(states).compute_once("scores", compute)["x"], torch.arange(3)) and calls == [1]
    with pytest.raises(RuntimeError, match="'scores' of a phase or step was used twice"):
        session.compute_once("scores", compute)
    assert torch.equal(TrialAnalyses(Saved(states), "round 2").get("f", {"a": 1}, compute)["x"], torch.arange(3))
    assert sorted(states) == ["round 2/f/[('a', 1)]", "scores"]


def test_time_of_earlier_runs_is_counted() -> None:
    states, now = States(), [0.0]

    def clock() -> float:
        return now[0]

    first = Saved(states, clock=clock)
    now[0] = 5.0
    first.compute_once("a", dict)
    now[0] = 100.0  # the machine was off
    second = Saved(states, clock=clock)
    second.compute_once("a", dict)
    assert second.earlier_seconds == 5.0
    now[0] = 101.0
    second.compute_once("b", dict)
    third = Saved(states, clock=clock)
    third.compute_once("b", dict)
    assert third.earlier_seconds == 6.0


def test_a_hook_that_has_finished_ends_its_phase_with_the_epoch() -> None:
    class Impatient(Hook):
        def after_step(self, step: int) -> None:
            self.finished = step >= 5

        def load_state_dict(self, state: dict[str, object]) -> None:
            self.finished = bool(state["finished"])

        def state_dict(self) -> dict[str, object]:
            return {"finished": self.finished}

    records = phase(hook=Impatient()).run()
    assert [record["step"] for record in records] == [4, 8]
    states = States()
    assert Saved(states).train("tune", phase(hook=Impatient())) == records
    assert Saved(states).train("tune", phase(hook=Impatient())) == records


def test_rungs_say_what_they_are() -> None:
    rung = Rung("prune", {"step": 7.0, "comparable": 0.0})
    assert (rung.step, rung.comparable, go_on(rung)) == (7, False, "continue")
    copied = pickle.loads(pickle.dumps(Paused(rung, "stop")))
    assert (copied.rung, copied.decision) == (rung, "stop")
    assert Uninterrupted().compute_once("a", lambda: {"x": torch.ones(1)}).keys() == {"x"}
