"""Contract tests to be imported: what an objective, a sampler, a scheduler and an executor of anybody's must do.

Each is one call from a test: ``check_objective(energy)``, ``check_sampler(Mine)``, ``check_scheduler(Mine)``,
``check_executor(Mine, folder)``.
Ours are tested by the same code. Plain assertions, no dependency on pytest.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from methods.contract.classification import Classification
from methods.contract.recipe import Recipe
from methods.contract.sample_problem import IMAGE, blobs, build_seeded, chain_network
from methods.network.cost import count
from search.objectives.base import MeasureContext, Objective
from search.objectives.testing import check_objective as on_any_network
from search.records.outcome import DenseRow, Outcome, State
from search.records.trial_spec import TrialSpec, pauses_at
from search.store.studies import StudyFiles
from search.study.config import Resources
from search.study.samplers.base import Aim, Axis, PointCost, Tried
from search.study.schedule import Schedule
from search.study.schedulers.base import Scheduler
from search.study.schedulers.ladder import Ladder
from search.trials.trial import Setting
from search.workers.pool import Pool
from spaces import Categorical, Condition, Integer, Real, Space, Value


def check_objective(objective: Objective) -> None:
    """Check an objective on a small network, see :func:`search.objectives.testing.check_objective`.

    Args:
        objective: The objective; one that needs another network or data is checked by that function.
    """
    assert isinstance(objective, Objective)
    example, validation = torch.zeros(1, *IMAGE), blobs(IMAGE, 40, seed=1, noise=0)
    context = MeasureContext(build_seeded(chain_network, trained=True), example, validation, Classification())
    cost = count(context.model, example)
    metrics = {**context.metrics, "flops": float(cost.flops), "params": float(cost.params), "seconds": 1.0}
    if objective.measure is not None:
        metrics[objective.name] = float(objective.measure(context))
    on_any_network(objective, context, DenseRow(metrics=metrics))


def check_sampler(make: Callable[[Aim, int], Any], rounds: int = 6) -> None:
    """Check what a sampler promises: valid points, as many as asked for, that follow from its seed and the trials.

    Args:
        make: Makes the sampler, as ``Name(aim, seed)``.
        rounds: How many trials are played.
    """
    space = Space.choose(
        "method",
        {
            "wide": Space({"share": Real(0.1, 0.9, default=0.5)}),
            "deep": Space(
                {"share": Real(0.1, 0.9), "kind": Categorical(("a", "b")), "times": Integer(1, 4)},
                {"times": Condition("kind", ("b",))},
            ),
        },
    )
    aim = Aim((Axis("accuracy", True, True, 1.0, 0.0, 0.98, 1000), Axis("flops", False, False, 0.0, 1e6, 1e6)))

    def cost(method: str, point: Any) -> PointCost | None:
        return PointCost(int(1e6 * point["share"]), int(1e3 * point["share"])) if method == "wide" else None

    def play(sampler: Any, history: Sequence[Tried]) -> list[dict[str, Value]]:
        seen = tuple(history)
        found: list[dict[str, Value]] = sampler.propose(seen, space, cost, 2)
        assert len(found) == 2, "as many points as were asked for"
        assert seen == tuple(history), "the history is not the sampler's to change"
        return [space.check(point) for point in found]

    sampler, history = make(aim, 7), list[Tried]()
    for number in range(rounds):
        first = play(sampler, history)
        resumed = make(aim, 7)
        for trial in history:
            resumed.observe(trial)
        assert play(resumed, history) == first, "a resumed sweep must ask the same points"
        method, own = space.split(first[0], "method")
        share = float(own["share"])
        metrics = {"accuracy": 0.9 + 0.08 * share, "flops": 1e6 * share}
        state = "failed" if number == 2 else "complete"
        history.append(Tried(number, method, own, state, {} if number == 2 else metrics))  # type: ignore[arg-type]
        sampler.observe(history[-1])


def check_scheduler(make: Callable[[Aim, int], Any], trials: int = 12, steps: int = 40) -> None:
    """Check what a scheduler promises: answers that follow from what it is given, whatever workers and kills do.

    Args:
        make: Makes the scheduler, as ``Name(aim, seed)``.
        trials: How many trials are played.
        steps: Budget of a trial.
    """
    aim = Aim((Axis("accuracy", True, True, 1.0, 0.0, 0.98, 1000), Axis("flops", False, False, 0.0, 1e6, 1e6)))

    def cost(method: str, point: Any) -> PointCost | None:
        share = 0.1 + 0.8 * point["place"]
        return None if point["place"] > 0.9 else PointCost(int(1e6 * share), int(1e3 * share))

    def play(workers: int, kill_after: int | None) -> tuple[list[tuple[int, int | None]], dict[int, str]]:
        """Play a sweep; return its legs in order, and how each trial ended."""
        disk: dict[int, Outcome] = {}
        legs: list[tuple[int, int | None]] = []
        draw, events = Random(workers), 0
        while True:
            study = _Played(trials)
            ladder = Ladder(make(aim, 7), steps, cost)
            assert isinstance(ladder.scheduler, Scheduler), "a scheduler has next_rung, decide and promote"

            def stop(outcome: Outcome) -> Outcome:
                disk[outcome.number] = replace(outcome, state="stopped")
                return disk[outcome.number]

            schedule = Schedule(study, trials, 4, disk.get, lambda outcome: None, ladder=ladder, stop=stop)
            killed = False
            while not schedule.done:
                while len(schedule.running) < workers and (spec := schedule.next()) is not None:
                    legs.append((spec.number, spec.until))
                assert schedule.running, "a sweep must not come to a stand"
                number = draw.choice(sorted(schedule.running))
                disk[number] = _play_leg(schedule.running[number], steps)
                events += 1
                if events == kill_after:
                    killed = True
                    break  # on disk, and the driver has not heard of it
                schedule.finish(disk[number])
            if not killed:
                return sorted(set(legs), key=str), {number: disk[number].state for number in sorted(disk)}

    alone = play(1, None)
    assert set(alone[1]) == set(range(trials)), "every trial ends"
    assert "paused" not in alone[1].values(), "no trial waits when the sweep is over"
    assert play(3, None) == alone, "decisions must not depend on the race of workers"
    for kill_after in (2, 5, trials):
        assert play(2, kill_after) == alone, "an interrupted sweep must end as one that was not"


class _Played:
    """A study of trials whose points follow from their numbers."""

    def __init__(self, total: int) -> None:
        self.total, self.number = total, 0

    def open_trials(self) -> list[TrialSpec]:
        return []

    def count_told(self) -> int:
        return 0

    def ask(self) -> TrialSpec:
        number, self.number = self.number, self.number + 1
        place = (number * 0.618) % 1
        return TrialSpec(number, "magnitude" if number % 2 else "random", {"place": place}, seed=number)

    def tell(self, outcome: Outcome) -> None: ...

    def pause(self, outcome: Outcome) -> None: ...


def _play_leg(spec: TrialSpec, steps: int) -> Outcome:
    """Play a trial to the rung that it pauses at, or to its end; every seventh diverges half-way."""
    place = float(spec.point["place"])
    history: list[dict[str, float]] = []
    for epoch in range(1, 11):
        loss = place + 1 / (epoch + spec.number)
        record = {"epoch": epoch, "step": epoch * steps / 10, "comparable": 1.0, "loss": loss, "val_loss": loss}
        history.append({**record, "accuracy": 1 - loss / 4, "lr": 0.1})
        if pauses_at(history[-1], spec.until, steps):
            return _play(spec, "paused", history)
        if epoch == 5 and spec.number % 7 == 6:
            return _play(spec, "diverged", history)
    return _play(spec, "complete", history)


def _play(spec: TrialSpec, state: State, history: list[dict[str, float]]) -> Outcome:
    metrics = {"accuracy": 0.9, "flops": 5e5, "params": 50.0, "seconds": 1.0} if state == "complete" else {}
    error = None if state == "complete" else state
    fields = (spec.number, spec.method, spec.point, state, metrics, history)
    return Outcome(*fields, widths={}, extra={}, seed=spec.seed, error=error, started=0.0, seconds=1.0)


class _FewTrials:
    """A study of a few trials that are known in advance."""

    def __init__(self, specs: Sequence[TrialSpec]) -> None:
        self.left, self.heard = list(specs), list[int]()

    def open_trials(self) -> list[TrialSpec]:
        return []

    def count_told(self) -> int:
        return 0

    def ask(self) -> TrialSpec:
        return self.left.pop(0)

    def tell(self, outcome: Outcome) -> None:
        self.heard.append(outcome.number)

    def pause(self, outcome: Outcome) -> None: ...


def check_executor(make: Callable[[Resources, float, Callable[[str], None]], Any], folder: Path) -> None:
    """Check what an executor promises: every trial runs, and its files are on disk before the schedule hears of it.

    Args:
        make: Makes the pool, as ``Name(resources, gpus_per_trial, warn)``.
        folder: An empty folder to work in.
    """
    setting = Setting(
        model=build_seeded(chain_network, trained=True),
        example=torch.zeros(1, *IMAGE),
        train=blobs(IMAGE, 64),
        validation=blobs(IMAGE, 40, seed=1, noise=0),
        recipe=Recipe(lr=0.05, batch_size=32, recalibrate=1),
        steps=2,
        objectives=("accuracy", "flops"),
    )
    pickle.dumps(setting)
    ratios = (0.25, 0.5, 2.0)  # the last one is impossible: a trial that fails is an outcome like another
    specs = [
        TrialSpec(number, "magnitude", {"sparsity.mode": "uniform", "sparsity.ratio": ratio}, seed=number)
        for number, ratio in enumerate(ratios)
    ]
    files, study, begun = StudyFiles(folder, "contract"), _FewTrials(specs), list[int]()

    def finished(outcome: Outcome) -> None:
        assert files.outcome(outcome.number).state == outcome.state, "an outcome is on disk before it is told"

    files.root.mkdir(parents=True)
    schedule = Schedule(study, len(specs), len(specs), lambda number: None, finished)
    with ExitStack() as stack:
        made = make(Resources(), 0.0, lambda text: None)
        pool = stack.enter_context(made) if isinstance(made, AbstractContextManager) else made
        assert isinstance(pool, Pool) and pool.slots >= 1
        pool.run(schedule, setting, files, lambda spec: begun.append(spec.number))
    assert schedule.done and study.heard == [0, 1, 2] and sorted(begun) == [0, 1, 2]
    assert [files.outcome(number).complete for number in range(3)] == [True, True, False]
