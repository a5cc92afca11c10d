from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods import load_method, method_names
from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.study.points import make_first_points, refuse_idle_bounds, spread_points
from search.study.samplers.base import Limits
from search.study.schedule import Schedule
from search.study.space import method_space, study_space
from search.study.storage import Storage
from search.study.stored_studies import list_storage_studies
from search.study.study import Study, trial_seed
from spaces import InputError, LayerGroup, Space
from tests.search.cases import outcome

GROUPS = [LayerGroup("conv1", 16, "8x8", 0.0), LayerGroup("conv2", 32, "4x4", 1.0)]
METHODS = ("magnitude", "increg", "random")
SHARES = (0.5, 0.25, 0.125)
TRIALS = 14
SPACE = study_space(METHODS, GROUPS, "flops", {})


def create_study(directory: Path, seed: int = 3, sampler: str = "tpe", space: Space = SPACE) -> Study:
    first = make_first_points(space, METHODS, SHARES)[:4] if space is SPACE else []
    url = f"sqlite:///{directory}/optuna.db"
    return Study.open(url, "s", space, ("accuracy", "flops"), seed, sampler, 24, first, new=True)


def test_first_points_are_the_authors_values_at_halvings() -> None:
    points = make_first_points(SPACE, METHODS, SHARES)
    assert [(p["method"], p[f"{p['method']}.sparsity.flops"]) for p in points] == [
        (method, share) for share in (0.5, 0.25, 0.125) for method in METHODS
    ]
    assert all(SPACE.check(point) == point for point in points)
    assert make_first_points(SPACE, METHODS, SHARES[:1]) == points[: len(METHODS)]


def test_first_points_respect_what_the_user_narrowed() -> None:
    narrow = study_space(METHODS, GROUPS, "flops", {"random": {"sparsity.flops": {"low": 0.3}}})
    shares = [p["random.sparsity.flops"] for p in make_first_points(narrow, METHODS, SHARES) if p["method"] == "random"]
    assert shares == [0.5]


@given(st.integers(0, 99), st.integers(1, 60))
def test_spread_points_are_one_per_method_over_the_whole_band(seed: int, trials: int) -> None:
    points = spread_points(SPACE, METHODS, trials, seed, (0.05, 0.8))
    assert len(points) == min(len(METHODS), max(1, trials // 3))
    assert len({point["method"] for point in points}) == len(points)
    shares = sorted(float(point[f"{point['method']}.sparsity.flops"]) for point in points)
    parts = [math.log(share / 0.05) / math.log(10) * len(points) for share in shares]  # 0.05 to 0.5
    assert [int(part) for part in parts] == list(range(len(points)))
    assert all(SPACE.check(point) == point for point in points)


def test_the_seed_permutes_methods_and_shares() -> None:
    plans = {
        tuple((p["method"], p[f"{p['method']}.sparsity.flops"]) for p in spread_points(SPACE, METHODS, 24, seed))
        for seed in range(40)
    }
    assert {plan[0][0] for plan in plans} == set(METHODS) and len(plans) > 20


def test_spread_points_keep_within_what_the_user_narrowed() -> None:
    narrow = study_space(("random",), GROUPS, "flops", {"random": {"sparsity.flops": {"low": 0.3}}})
    assert [p["random.sparsity.flops"] for p in spread_points(narrow, ("random",), 9, 0)] == [0.3]


@pytest.mark.parametrize("target", ["magnitude.sparsity.flops", "magnitude.sparsity.level", "sdprun.target_flops"])
def test_flops_are_searched_on_a_logarithmic_scale(target: str) -> None:
    assert study_space(("magnitude", "sdprun"), GROUPS, "any", {})[target].to_json()["log"]


@pytest.mark.parametrize("allocation", ["uniform", "stage", "layer", "any"])
def test_first_points_exist_for_every_allocation(allocation: str) -> None:
    space = study_space(METHODS, GROUPS, allocation, {})
    points = make_first_points(space, METHODS, SHARES)
    assert points and all(space.check(point) == point for point in points)


def test_unknown_names_in_narrowing_are_errors() -> None:
    with pytest.raises(InputError, match="unknown method with bounds in .space.: 'incregg'; did you mean 'increg'"):
        study_space(METHODS, GROUPS, "flops", {"incregg": {}})
    with pytest.raises(InputError, match=r"\[space\.increg\]: .*penalty_maxx.*did you mean 'penalty_max'"):
        method_space("increg", GROUPS, "flops", {"penalty_maxx": {"high": 1}})


def test_an_allocation_that_a_method_does_not_have() -> None:
    assert "spp.sparsity.energy" in study_space(("spp",), GROUPS, "energy", {})
    with pytest.raises(InputError, match=r"allocation = 'energy' does not exist for greedy \(it has flops, uniform, "):
        study_space(("spp", "greedy"), GROUPS, "energy", {})
    study_space(("spp", "greedy"), GROUPS, "energy", {"greedy": {"sparsity.mode": "uniform"}})


def test_a_study_keeps_to_one_granularity_unless_told() -> None:
    assert method_space("increg", GROUPS, "flops", {})["granularity"].to_json()["choices"] == ["filter"]
    wanted = {"granularity": {"choices": ["filter", "column"]}}
    assert method_space("increg", GROUPS, "flops", wanted)["granularity"].to_json()["choices"] == ["filter", "column"]


def test_fields_that_are_not_searched_can_be_set() -> None:
    space = method_space("sdprun", GROUPS, "flops", {"start": "scratch"})
    assert space.defaults() == {**(method_space("sdprun", GROUPS, "flops", {}).defaults() or {}), "start": "scratch"}
    with pytest.raises(InputError, match=r"\[space\.sdprun\]: .*start = 'scratchy' is not allowed"):
        method_space("sdprun", GROUPS, "flops", {"start": "scratchy"})
    with pytest.raises(InputError, match=r"\[space\.sdprun\]: unknown parameter 'startt'"):
        method_space("sdprun", GROUPS, "flops", {"startt": "scratch"})


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("increg", "lr_prune_factor", 0.02),  # below what is searched
        ("sdprun", "const_frac", 0.1),
        ("eigendamage", "fisher_samples", 1000),  # between the choices
        ("spp", "weight_decay", 0.0),  # a field that is not searched
        ("greedy", "num_candidates", 5000),
        ("magnitude", "sparsity.flops", 0.01),  # a field of a field
    ],
)
@pytest.mark.parametrize("bare", [True, False])
def test_a_fixed_value_may_lie_outside_what_is_searched(method: str, name: str, value: float, bare: bool) -> None:
    bounds = {name: value if bare else {"value": value}, **({"procedure": "sequential"} if method == "greedy" else {})}
    space = method_space(method, GROUPS, "flops", bounds)
    point = space.defaults()
    assert point is not None and point[name] == value
    assert space.check(point) == point and Space.from_json(space.to_json()) == space
    load_method(method).from_point(point)


@pytest.mark.parametrize(
    ("method", "bounds", "message"),
    [
        ("increg", {"prune_frac": 1.5}, r"prune_frac = 1\.5 is not allowed: Input should be less than 1"),
        ("increg", {"exp_flatness": 1.5}, r"exp_flatness = 1\.5 is not allowed: Input should be less than 1"),
        ("increg", {"prune_frac": 0.98}, r"prune_frac \+ stabilize_frac must be at most 1, got 0\.98"),
        (
            "increg",
            {"prune_frac": {"low": 0.01}},
            r"low of parameter 'prune_frac' = 0\.01 is not allowed",
        ),
        ("increg", {"update_interval": 0}, r"update_interval = 0 is not allowed"),
        ("increg", {"increment": "square"}, r"increment = 'square' is not allowed"),
        ("increg", {"increment": "linear", "exp_flatness": 0.3}, "applies only when increment = 'exp'"),
        ("sdprun", {"steer": "flops", "mu": 0.6}, "applies only when steer = 'off'"),
        ("sdprun", {"steer": "flops", "mu": 0.95}, "applies only when steer = 'off'"),
        ("magnitude", {"sparsity.flops": 1.5}, r"sparsity\.flops = 1\.5 is not allowed"),
    ],
)
def test_fixed_values_that_no_field_allows(method: str, bounds: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=rf"\[space\.{method}\]: .*{message}"):
        method_space(method, GROUPS, "flops", bounds)


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_every_method_has_its_presets(name: str, preset: str) -> None:
    """By name in the configuration, for one method among its bounds; what the user names goes over it."""
    settings = load_method(name).preset(preset)
    space = study_space((name,), GROUPS, "flops", {}, preset=preset)
    assert study_space((name,), GROUPS, "flops", {name: {"preset": preset}}) == space
    points = make_first_points(space, (name,), (0.5,))
    assert len(points) == 1
    _, point = space.split(points[0], "method")
    assert {key: point[key] for key in settings} == settings
    method = load_method(name).from_point(point)
    assert all(getattr(method, key) == value for key, value in settings.items())
    for key, value in settings.items():
        if isinstance(value, float) and value:
            ours = method_space(name, GROUPS, "flops", {"preset": preset, key: 0.9 * value}).defaults()
            assert ours is not None and ours[key] == 0.9 * value


def test_presets_that_are_not_there() -> None:
    with pytest.raises(InputError, match=r"\[space\.increg\]: unknown preset of IncReg: 'papr'; did you mean 'paper'"):
        study_space(("increg",), GROUPS, "flops", {}, preset="papr")
    with pytest.raises(InputError, match=r"unknown preset of IncReg: 'papr'"):
        method_space("increg", GROUPS, "flops", {"preset": "papr"})


def test_bounds_that_no_default_point_looks_at_are_refused() -> None:
    bounds: dict[str, dict[str, Any]] = {"sdprun": {"mu": 0.6}, "increg": {"penalty_max": 2}}
    space = study_space(("sdprun", "increg"), GROUPS, "flops", bounds)
    points = make_first_points(space, ("sdprun", "increg"), (0.5,))
    with pytest.raises(InputError, match=r"\[space\.sdprun\]: mu = 0\.6 would change nothing.*steer = 'off'"):
        refuse_idle_bounds(space, points, bounds)
    bounds["sdprun"]["steer"] = "off"
    space = study_space(("sdprun", "increg"), GROUPS, "flops", bounds)
    refuse_idle_bounds(space, make_first_points(space, ("sdprun", "increg"), (0.5,)), bounds)


def test_same_seed_asks_the_same_points_and_others_do_not(tmp_path: Path) -> None:
    def points(name: str, seed: int) -> list[tuple[object, ...]]:
        (tmp_path / name).mkdir()
        study = create_study(tmp_path / name, seed)
        asked: list[tuple[object, ...]] = []
        for _ in range(16):
            spec = study.ask()
            asked.append((spec.method, spec.point, spec.seed))
            study.tell(outcome(spec.number, metrics=METRICS | {"accuracy": 0.5 + 0.01 * len(spec.method)}))
        return asked

    METRICS = {"accuracy": 0.9, "flops": 500.0, "params": 50.0, "seconds": 1.5}
    first = points("a", 3)
    assert first == points("b", 3)
    assert first[4:] != points("c", 4)[4:]


def test_a_study_can_be_loaded_again_and_by_stock_optuna(tmp_path: Path) -> None:
    study = create_study(tmp_path)
    study.tell(outcome(study.ask().number))
    study.tell(outcome(study.ask().number, error="Traceback\nValueError: no"))
    open_spec = study.ask()
    url = f"sqlite:///{tmp_path}/optuna.db"
    again = Study.open(url, "s", SPACE, ("accuracy", "flops"), 3, "tpe", 24, new=False)
    assert again.count_told() == 2
    assert again.open_trials() == [open_spec]
    stock = optuna.load_study(storage=url, study_name="s")
    assert [t.state.name for t in stock.trials] == ["COMPLETE", "FAIL", "RUNNING"]
    assert stock.trials[0].values == [0.9, 500.0]
    assert stock.trials[0].user_attrs["params"] == 50.0
    assert stock.trials[1].user_attrs["error"] == "ValueError: no"
    assert stock.metric_names == ["accuracy", "flops"]
    assert [d.name for d in stock.directions] == ["MAXIMIZE", "MINIMIZE"]


def runs(study: Study, total: int, files: dict[int, Outcome], lag: int = 3, stop: int = 10**9) -> list[TrialSpec]:
    """Run trials in the order of a sweep with two workers that finish out of order; return what was asked."""
    asked = []
    schedule = Schedule(study, total, lag, files.get, lambda _: None)
    while not schedule.done and len(files) < stop:
        pair = [spec for spec in (schedule.next(), schedule.next()) if spec is not None]
        for spec in reversed(pair):
            asked.append(spec)
            files[spec.number] = result(spec)
            schedule.finish(files[spec.number])
    return sorted(asked, key=lambda spec: spec.number)


def result(spec: TrialSpec) -> Outcome:
    """What a trial of these tests gives: decided by its point, as real ones are; every fifth fails."""
    share = spec.point["sparsity.flops"]
    assert isinstance(share, float)
    metrics = {"accuracy": 0.9 + 0.1 * share, "flops": 1000 * share, "params": 50.0, "seconds": 1.5}
    changes = {"error": "ValueError: no"} if spec.number % 5 == 4 else {"metrics": metrics}
    return outcome(spec.number, method=spec.method, point=spec.point, seed=spec.seed, **changes)


def open_study(directory: Path, sampler: str = "tpe") -> Study:
    """Open or create the study, as a driver does when it starts."""
    url = f"sqlite:///{directory}/optuna.db"
    first, new = FIRST[:2], "s" not in list_storage_studies(url)
    return Study.open(url, "s", FEW, ("accuracy", "flops"), 3, sampler, TRIALS, first, "id", new=new)


FEW = study_space(("magnitude", "random"), GROUPS, "flops", {})
FIRST = make_first_points(FEW, ("magnitude", "random"), (0.5, 0.25))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[TrialSpec]:
    return runs(open_study(tmp_path_factory.mktemp("undisturbed")), TRIALS, {})


def resumed(directory: Path, files: dict[int, Outcome], lag: int = 3) -> tuple[list[str], list[TrialSpec]]:
    study = open_study(directory)
    lines = study.reconcile(files, lag)
    return lines, runs(study, TRIALS, files, lag)


def points(files: dict[int, Outcome]) -> list[tuple[object, ...]]:
    return [(o.method, o.point, o.seed) for _, o in sorted(files.items())]


def list_expected(specs: list[TrialSpec]) -> list[tuple[object, ...]]:
    return [(spec.method, spec.point, spec.seed) for spec in specs]


@pytest.mark.parametrize("stop", [1, 4, 7, 12])
def test_a_lost_database_is_rebuilt_from_the_files(tmp_path: Path, undisturbed: list[TrialSpec], stop: int) -> None:
    files: dict[int, Outcome] = {}
    runs(open_study(tmp_path), TRIALS, files, stop=stop)
    (tmp_path / "optuna.db").unlink()
    done = set(files)
    lines, again = resumed(tmp_path, files)
    assert "finished, but not in Optuna's storage; taken up there again" in lines[0]
    assert not done & {spec.number for spec in again}, "a finished trial ran twice"
    assert points(files) == list_expected(undisturbed)
    stock = optuna.load_study(storage=f"sqlite:///{tmp_path}/optuna.db", study_name="s")
    assert [t.user_attrs["number"] for t in stock.trials] == list(range(TRIALS))
    assert open_study(tmp_path).reconcile(files, 3) == []


def test_a_trial_in_a_gap_is_asked_again_as_it_was(tmp_path: Path, undisturbed: list[TrialSpec]) -> None:
    files: dict[int, Outcome] = {}
    runs(open_study(tmp_path), TRIALS, files, stop=10)
    (tmp_path / "optuna.db").unlink()
    del files[8]
    lines, again = resumed(tmp_path, files)
    assert "trial 8: asked, but not kept whole; asked again" in lines
    assert again[0].number == 8 and points(files) == list_expected(undisturbed)


@pytest.mark.parametrize("lost", [[0], [1, 5], [9]])
def test_a_trial_whose_folder_is_gone_runs_again(tmp_path: Path, undisturbed: list[TrialSpec], lost: list[int]) -> None:
    files: dict[int, Outcome] = {}
    runs(open_study(tmp_path), TRIALS, files, stop=10)
    for number in lost:
        del files[number]
    lines, again = resumed(tmp_path, files)
    assert [line.partition(": ")[2] for line in lines] == ["finished, but the folder is gone; run again"]
    assert [spec.number for spec in again][: len(lost)] == lost
    assert points(files) == list_expected(undisturbed)
    assert open_study(tmp_path).reconcile(files, 3) == [] and open_study(tmp_path).count_told() == TRIALS


def test_foreign_trials_are_left_and_not_counted(tmp_path: Path, undisturbed: list[TrialSpec]) -> None:
    files: dict[int, Outcome] = {}
    runs(open_study(tmp_path), TRIALS, files, stop=6)
    stock = optuna.load_study(storage=f"sqlite:///{tmp_path}/optuna.db", study_name="s")
    stock.add_trial(optuna.trial.create_trial(values=[1.0, 1.0], params={}, distributions={}))
    stock.ask()
    lines, _ = resumed(tmp_path, files)
    held = len(stock.trials)
    assert len(lines) == 1 and lines[0].endswith("not run by this study, left there and not counted")
    assert points(files) == list_expected(undisturbed)
    assert held == TRIALS + 2 and stock.trials[-1].user_attrs["number"] == TRIALS - 1


def test_points_that_others_queue_are_run(tmp_path: Path) -> None:
    files: dict[int, Outcome] = {}
    runs(open_study(tmp_path), TRIALS, files, stop=4)
    stock = optuna.load_study(storage=f"sqlite:///{tmp_path}/optuna.db", study_name="s")
    point = {"method": "random", "random.sparsity.flops": 0.3125, "random.sparsity.tilt": 0.5}
    stock.enqueue_trial(point)
    resumed(tmp_path, files)
    ran = [o for o in files.values() if o.method == "random" and o.point["sparsity.flops"] == 0.3125]
    assert [o.point["sparsity.tilt"] for o in ran] == [0.5]
    assert sorted(files) == list(range(TRIALS))


def test_a_result_that_was_changed_on_disk_counts(tmp_path: Path) -> None:
    files: dict[int, Outcome] = {}
    runs(open_study(tmp_path), TRIALS, files)
    files[2] = replace(files[2], metrics=files[2].metrics | {"accuracy": 0.125})
    study = open_study(tmp_path)
    assert study.reconcile(files, 3) == ["trial 2: not the same in Optuna's storage as on disk; what is on disk counts"]
    stock = optuna.load_study(storage=f"sqlite:///{tmp_path}/optuna.db", study_name="s")
    assert [t.values[0] for t in stock.trials if t.user_attrs["number"] == 2][-1] == 0.125


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_kill_while_a_trial_is_written_gives_the_same_point_again(
    tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    real = Storage.add
    allowed = [TRIALS]

    def add(self: Storage, number: int, trial: Any, queued: Any = None) -> None:
        if number > allowed[0]:
            raise Killed
        real(self, number, trial, queued)

    monkeypatch.setattr(Storage, "add", add)

    def play_all(directory: Path, kills: bool) -> list[tuple[object, ...]]:
        directory.mkdir()
        files: dict[int, Outcome] = {}
        while len(files) < TRIALS:
            study = open_study(directory, sampler)
            study.reconcile(files, 3)
            allowed[0] = study.count_told() + len(study.open_trials()) if kills else TRIALS
            with suppress(Killed):
                runs(study, TRIALS, files)
            allowed[0] = TRIALS
        return points(files)

    assert play_all(tmp_path / "a", kills=True) == play_all(tmp_path / "b", kills=False)


def test_another_study_of_the_same_name_is_not_taken_for_ours(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    Study.open(url, "s", FEW, ("accuracy", "flops"), 3, "tpe", TRIALS, (), "one", new=True)
    with pytest.raises(InputError, match="has another study of the name 's'; `paretoprune rename s NEW`"):
        Study.open(url, "s", FEW, ("accuracy", "flops"), 3, "tpe", TRIALS, (), "two", new=False)


def test_a_creation_that_was_cut_short_is_completed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    optuna.create_study(storage=url, study_name="s", directions=["maximize", "minimize"])
    study = open_study(tmp_path)
    assert study.ask().point["sparsity.flops"] == 0.5  # the first of the first points
    stock = optuna.load_study(storage=url, study_name="s")
    assert stock.user_attrs["paretoprune"] == "id" and stock.metric_names == ["accuracy", "flops"]


def test_a_study_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    old = optuna.create_study(storage=url, study_name="s", directions=["maximize", "minimize"])
    for point in FIRST[:3]:
        old.enqueue_trial(point)
    trial = old.ask()  # killed after the first of its parameters
    trial.suggest_categorical("method", ["magnitude", "random"])
    study = Study.open(url, "s", FEW, ("accuracy", "flops"), 3, "tpe", TRIALS, new=False)
    files: dict[int, Outcome] = {}
    study.reconcile(files, 3)
    asked = runs(study, TRIALS, files)
    assert [spec.number for spec in asked] == list(range(TRIALS))
    assert [spec.point["sparsity.flops"] for spec in asked[1:3]] == [0.5, 0.25]


def test_limits_are_constraints_to_optuna(tmp_path: Path) -> None:
    study = create_study(tmp_path)
    study.use(lambda seed: optuna.samplers.RandomSampler(seed=seed), Limits(min_flops=100, max_flops=400))
    study.tell(outcome(study.ask().number))
    study.tell(outcome(study.ask().number, error="ValueError: no"))
    stock = optuna.load_study(storage=f"sqlite:///{tmp_path}/optuna.db", study_name="s")
    assert stock.trials[0].constraints == {"max_flops": 0.25, "min_flops": -4.0}, "500 FLOPs"
    assert stock.trials[1].constraints == {}


def test_telling_twice_changes_nothing(tmp_path: Path) -> None:
    study = create_study(tmp_path)
    number = study.ask().number
    study.tell(outcome(number))
    study.tell(outcome(number))
    assert study.count_told() == 1


def test_names_that_are_taken_or_unknown(tmp_path: Path) -> None:
    create_study(tmp_path)
    with pytest.raises(InputError, match="already has a study 's'"):
        create_study(tmp_path)
    with pytest.raises(InputError, match="has no study 'zzz'"):
        Study.open(f"sqlite:///{tmp_path}/optuna.db", "zzz", SPACE, ("accuracy", "flops"), 3, "tpe", 24, new=False)


@pytest.mark.parametrize("sampler", ["gp", "nsga2", "random", "tpe"])
def test_every_sampler_gives_valid_points_without_a_word(
    tmp_path: Path, sampler: str, capfd: pytest.CaptureFixture[str]
) -> None:
    single = study_space(("magnitude",), GROUPS, "flops", {})
    study = create_study(tmp_path, sampler=sampler, space=single)
    own: Space = method_space("magnitude", GROUPS, "flops", {})
    for _ in range(12):
        spec = study.ask()
        assert own.check(spec.point) == spec.point
        study.tell(outcome(spec.number))
    assert capfd.readouterr() == ("", "")


def test_nsga2_is_no_random_search(tmp_path: Path) -> None:
    single = study_space(("magnitude",), GROUPS, "flops", {})
    asked: dict[str, list[dict[str, object]]] = {}
    for sampler in ("nsga2", "random"):
        (tmp_path / sampler).mkdir()
        study = create_study(tmp_path / sampler, sampler=sampler, space=single)
        asked[sampler] = []
        for number in range(24):
            spec = study.ask()
            asked[sampler].append(dict(spec.point))
            study.tell(outcome(number, metrics={"accuracy": 0.9, "flops": 500.0, "params": 50.0, "seconds": 1.5}))
    assert asked["nsga2"][12:] != asked["random"][12:]


def test_seeds_of_trials_differ() -> None:
    seeds = {trial_seed(seed, number) for seed in range(20) for number in range(50)}
    assert len(seeds) == 1000
