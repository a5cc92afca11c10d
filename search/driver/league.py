"""A league: methods and controls at the same shares of the FLOPs, with the same budget and recipe, over seeds.

Nothing is searched, so every network may be tested, once. A league can be run in pieces: each row is kept as soon as it
is there, and before that after every epoch; seed after seed, so that what is there at any time compares like with like.
In every league are retrained L1, random channels, and a narrower network of the same family that was trained as long in
all as the dense network and its fine-tuning together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, as_completed, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from methods import load_method, method_names
from methods.contract.data import Split
from methods.contract.recipe import Recipe, derive_seed
from search.driver.arms import Arm, read_arm
from search.driver.chance import chance_warning
from search.driver.dense_setting import dense_setting
from search.driver.league_rows import Job, Say, measure_test, row_line, run_row, say_nothing
from search.driver.plan import Plan
from search.driver.prepare import plan
from search.records.environment import versions
from search.records.league import BASELINE, DENSE, SMALLER, LeagueRow, read_csv, sort_rows, write_csv
from search.records.trial_spec import TrialSpec
from search.store.files import json_text, read_object, write_atomically, write_json
from search.study.config import StudyConfig
from search.study.points import make_first_points
from search.study.recipe_space import RECIPE
from search.study.space import METHOD, study_space
from search.tasks.recipes import resolve_recipe
from search.trials.trial import Setting
from spaces import InputError, Value, explain_unknown_name

CONTROLS = (BASELINE, "random", SMALLER)
"""What is in every league."""

TOLERANCE = 1e-9
"""How far a repeated row may be from the kept one on the CPU."""

CHECKED = ("validation", "test", "flops", "params")
"""What a repeated row must have in common with the kept one."""

Key = tuple[str, str, int]
"""Arm, share and seed of a row."""


@dataclass(frozen=True)
class _Base:
    """What the rows of a seed begin with: the plan, what trials share, and how dense networks are trained.

    Attributes:
        planned: The plan.
        setting: What all trials share, the dense network among it.
        test: The test set.
        recipe: How dense networks are trained.
        steps: For how many steps; 0 where weights were given.
        row: The dense network's row.
    """

    planned: Plan
    setting: Setting
    test: Split
    recipe: Recipe
    steps: int
    row: LeagueRow


class League:
    """Runs what is missing of a league.

    Args:
        config: Network, data, budget, recipe and shares; its methods, sampler and trials are not looked at.
        arms: What competes beside the controls.
        name: Name of the league; its files are in ``leagues/NAME`` of the run store.
        seeds: How many seeds there are.
        own_dense: Whether every seed has a dense network of its own, so that intervals know of its chance as well.
        say: Called with a line of text for each row, and now and then for rows that take long; a function that other
            processes can find by its name, if several rows run at a time.

    Raises:
        InputError: If an arm is not known, or a league of this name compared something else.
    """

    def __init__(
        self,
        config: StudyConfig,
        arms: Sequence[str],
        name: str,
        seeds: int = 3,
        own_dense: bool = False,
        say: Say = say_nothing,
    ) -> None:
        self.config, self.name, self.seeds, self.own_dense, self._say = config, name, seeds, own_dense, say
        self._plans: dict[int, Plan] = {}
        self._bases: dict[int, _Base] = {}
        labels = dict.fromkeys([*CONTROLS, *(arm.strip() for arm in arms)])
        self.arms = [read_arm(label) for label in labels]
        self.folder = config.directory / "leagues" / name
        self._check_arms()

    @property
    def _claimed(self) -> Path:
        """What this league compares."""
        return self.folder / "league.json"

    @property
    def csv(self) -> Path:
        """The table of all rows."""
        return self.folder / "rows.csv"

    def rows(self) -> list[LeagueRow]:
        """Read the rows that are there.

        Returns:
            In the order of a table.
        """
        if not self.csv.exists():
            return []
        rows, _ = read_csv(self.csv.read_text(encoding="utf-8"), str(self.csv))
        return sort_rows(rows, [arm.label for arm in self.arms])

    def describe(self) -> dict[str, Any]:
        """Say what is compared.

        Returns:
            JSON's types.
        """
        config = self.config
        recipe, epochs = resolve_recipe(config.finetune, "finetune", config.data)
        dense_recipe, dense_epochs = resolve_recipe(config.dense, "dense", config.data)
        return {
            "name": self.name,
            "model": config.model,
            "data": config.data,
            "quality": config.objectives[0],
            "arms": [arm.label for arm in self.arms],
            "shares": list(config.shares),
            "seeds": self.seeds,
            "own_dense": self.own_dense,
            "epochs": epochs,
            "dense_epochs": dense_epochs,
            "recipe": recipe.model_dump(mode="json"),
            "dense_recipe": dense_recipe.model_dump(mode="json"),
            "versions": versions(),
        }

    def run(self, minutes: float = math.inf, workers: int = 1) -> list[LeagueRow]:
        """Run rows that are missing, seed after seed.

        Args:
            minutes: After so many no row is begun, and those that run pause at their next epoch; the dense networks
                count, and are not paused.
            workers: Rows at a time, each in a process of its own if there are several.

        Returns:
            All complete rows there are now.

        Raises:
            InputError: If another process runs this league, or it compared something else before.
        """
        ends = time.time() + 60 * minutes
        if not self._claimed.exists():
            self._plan(0)  # nothing is written for a league of what cannot be loaded
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(f"league {self.name!r} is being run by another process ({self.folder})") from error
        with lock, ExitStack() as stack:
            self._claim()
            rows = {row.key: row for row in self.rows()}
            missing = self._list_missing(rows, ends)
            if workers == 1:
                for job in missing:
                    self._keep(run_row(job), rows)
            else:
                pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=get_context("spawn")))
                for row in _run_several(missing, pool, workers):
                    self._keep(row, rows)
        return self.rows()

    def check(self, count: int) -> list[tuple[LeagueRow, LeagueRow]]:
        """Run a sample of the rows again.

        Args:
            count: How many, spread evenly over all complete rows.

        Returns:
            The kept row and the new one of each whose numbers differ: by more than :data:`TOLERANCE` on the CPU.
        """
        done = [row for row in self.rows() if row.state == "complete" and row.arm != DENSE]
        chosen = done[:: max(1, len(done) // max(1, count))][:count]
        wrong = []
        for seed in sorted({row.seed for row in chosen}):
            jobs = {job.row.key: job for job in self._jobs(seed, self.folder / "again")}
            for row in (each for each in chosen if each.seed == seed):
                again = run_row(jobs[row.key])
                assert again is not None, "nothing pauses without an end"
                pairs = [(getattr(row, name), getattr(again, name)) for name in CHECKED]
                same = all(math.isclose(a, b, abs_tol=TOLERANCE) or (math.isnan(a) and math.isnan(b)) for a, b in pairs)
                self._say(f"{'same' if same else 'DIFFERENT'}: {row_line(again)}")
                if not same:
                    wrong.append((row, again))
        return wrong

    def _keep(self, row: LeagueRow | None, rows: dict[Key, LeagueRow]) -> None:
        """Write a row, if it is there, into the table."""
        if row is None:
            return
        rows[row.key] = row
        ordered = sort_rows(rows.values(), [arm.label for arm in self.arms])
        write_atomically(self.csv, write_csv(ordered, self.describe()))
        self._say(row_line(row))

    # --- one seed ---

    def _list_missing(self, rows: dict[Key, LeagueRow], ends: float) -> Iterator[Job]:
        """Yield what is to be run, seed after seed, until the time is over; dense networks are rows at once."""
        for seed in range(self.seeds):
            if not self._find_missing(seed, rows.keys()) or time.time() >= ends:
                continue
            for job in self._jobs(seed, self.folder / "weights"):
                if job.row.key in rows:
                    continue
                if job.row.arm == DENSE:
                    self._keep(job.row, rows)
                elif time.time() >= ends:
                    return
                else:
                    yield replace(job, ends=ends, say=self._say)

    def _jobs(self, seed: int, folder: Path) -> Iterator[Job]:
        """Yield the rows of one seed: the dense network, which is complete, and what is to be run."""
        base = self._base(seed)
        yield Job(replace(base.row, seed=seed), None, base.setting, base.test, base.recipe, base.steps, folder)
        outcomes: set[str] = set()
        for share, arm in self._shares_of_arms():
            waiting, spec = LeagueRow(arm.label, share, seed), None
            if arm.method != SMALLER:
                try:
                    point = self._point(arm, share, base.planned)
                    spec = TrialSpec(0, arm.method, point, derive_seed(self.config.seed, seed))
                    target = load_method(arm.method).flops_parameter
                    if target is None or target not in point:  # the sparsity is what comes out: once is enough
                        if arm.label in outcomes:
                            continue
                        outcomes.add(arm.label)
                        waiting = replace(waiting, share=math.nan)
                except InputError as refused:
                    waiting = replace(waiting, error=str(refused))
            yield Job(waiting, spec, base.setting, base.test, base.recipe, base.steps, folder)

    def _plan(self, offset: int) -> Plan:
        """Plan with the seed that is so far from the first; what plans warn of is said by the first."""
        if offset not in self._plans:
            update = {"seed": self.config.seed + offset, "methods": (BASELINE,), "sampler": "auto", "space": {}}
            planned = plan(self.config.model_copy(update=update))
            for warning in () if self._plans else planned.warnings:
                self._say(f"warning: {warning}")
            self._plans = {offset: planned}
        return self._plans[offset]

    def _base(self, seed: int) -> _Base:
        """Return what a seed begins with, which all share unless each has a dense network of its own."""
        offset = seed if self.own_dense else 0
        if offset not in self._bases:
            self._bases = {offset: self._make_base(offset)}
        return self._bases[offset]

    def _make_base(self, offset: int) -> _Base:
        """Train the dense network, unless that was done, measure it and test it."""
        planned = self._plan(offset)
        config = planned.config
        setting, dense = dense_setting(planned, lambda record, epochs: None)
        if (said := chance_warning(setting.model, setting.validation, setting.task)) is not None:
            self._say(f"warning: {said}")
        test = planned.workload.data.test
        recipe, epochs = resolve_recipe(config.dense, "dense", config.data)
        steps = math.ceil(epochs * setting.train.steps(recipe.batch_size)) if config.weights is None else 0
        row = LeagueRow(
            DENSE,
            math.nan,
            0,
            validation=dense.metrics[config.objectives[0]],
            test=measure_test(setting, setting.model, test),
            flops=dense.metrics["flops"],
            params=dense.metrics["params"],
            seconds=dense.metrics["seconds"],
            steps=float(steps),
        )
        return _Base(planned, setting, test, recipe, steps, row)

    @property
    def complete(self) -> bool:
        """Whether all rows of all seeds are there."""
        made = {row.key for row in self.rows()}
        return not any(self._find_missing(seed, made) for seed in range(self.seeds))

    def _find_missing(self, seed: int, made: Collection[Key]) -> list[Key]:
        """List what is missing of one seed, which is known before its dense network is asked for."""
        keys = [(DENSE, "", seed), *(LeagueRow(arm.label, share, seed).key for share, arm in self._shares_of_arms())]
        return [key for key in keys if key not in made and (key[0], "", seed) not in made]  # share "": it comes out

    def _shares_of_arms(self) -> list[tuple[float, Arm]]:
        """List what is run with every seed: all arms at one share, then at the next; what takes longest at the end."""
        pairs = [(share, arm) for share in self.config.shares for arm in self.arms]
        return sorted(pairs, key=lambda pair: pair[1].method == SMALLER)

    def _point(self, arm: Arm, share: float, planned: Plan) -> dict[str, Value]:
        """Return the point of an arm at a share of the FLOPs."""
        config, layers = self.config, [group.layer for group in planned.groups]
        # The controls are what papers compare with: equal shares for all layers, unless the user wants something else.
        pinned = planned.allocation == "auto" and arm.label in CONTROLS
        allocation = "flops" if pinned else planned.allocation
        narrowed = {arm.method: {**config.space.get(arm.method, {}), **arm.bounds}}
        if RECIPE in config.space:
            narrowed[RECIPE] = dict(config.space[RECIPE])
        recipe = resolve_recipe(config.finetune, "finetune", config.data)[0]
        space = study_space((arm.method,), layers, allocation, narrowed, 0.0, config.preset, recipe)
        points = make_first_points(space, (arm.method,), (share,))
        if not points:
            raise InputError(f"{arm.label} cannot be asked for {share:.4g} of the FLOPs")
        return space.split(points[0], METHOD)[1]

    # --- what was compared before ---

    def _check_arms(self) -> None:
        for arm in self.arms:
            if arm.method == SMALLER and arm.bounds:
                raise InputError(f"{SMALLER} has no parameters, got {arm.label!r}")
            if arm.method in (SMALLER, *method_names()):
                continue
            if ":" not in arm.method:
                raise InputError(explain_unknown_name("method", arm.method, [SMALLER, *method_names()]))
            load_method(arm.method)

    def _claim(self) -> None:
        """Refuse to mix two comparisons in one table; more arms, seeds and shares are welcome."""
        path = self._claimed
        own = self.describe()
        fixed = {key: own[key] for key in own if key not in ("arms", "seeds", "shares", "versions")}
        fixed |= {"split": self.config.split.model_dump(mode="json"), "seed": self.config.seed}
        if not path.exists():
            write_json(path, fixed)
            return
        before = read_object(path)
        for key, value in fixed.items():
            if json_text(before.get(key)) != json_text(value):
                raise InputError(
                    f"league {self.name!r} was begun with {key} = {before.get(key)!r}, not {value!r}; give another name"
                )


def _run_several(jobs: Iterable[Job], pool: Executor, workers: int) -> Iterator[LeagueRow | None]:
    """Run jobs in processes, so many at a time; yield each row as soon as it is there."""
    running: set[Future[LeagueRow | None]] = set()
    for job in jobs:
        running.add(pool.submit(run_row, job))
        while len(running) >= workers:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    for future in as_completed(running):
        yield future.result()
