"""Fronts: dominance, hypervolume and knee against slow obvious versions; limits; choosing; export."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search.fronts.dominance import find_non_dominated, hypervolume, knee
from search.fronts.front import PICKS, Front, Member
from search.objectives import OBJECTIVES, Objective, load_objectives
from search.records.outcome import DenseRow, Outcome
from spaces import InputError
from tests.search.cases import outcome

DENSE = DenseRow.from_metrics(accuracy=0.98, flops=1000, params=200, seconds=8.0, test_metrics={"accuracy": 0.97})
SIDE = 5  # integer coordinates 0..SIDE make ties and duplicates common

patient = settings(deadline=None, max_examples=60)


@st.composite
def clouds(draw: st.DrawFn, objectives: int | None = None) -> tuple[np.ndarray, list[bool]]:
    """Points on a small grid, and what is maximised."""
    count = objectives or draw(st.integers(2, 4))
    point = st.tuples(*[st.integers(0, SIDE)] * count)
    points = draw(st.lists(point, max_size=12))
    maximise = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return np.array(points, dtype=float).reshape(-1, count), maximise


def convert_to_losses(points: np.ndarray, maximise: list[bool]) -> np.ndarray:
    return np.where(maximise, SIDE - points, points)


def count_covered_cells(losses: np.ndarray, worst: int) -> int:
    """Count the unit cells between the points and the reference, one by one."""
    cells = itertools.product(range(worst), repeat=losses.shape[1])
    return sum(any((point <= cell).all() for point in losses) for cell in map(np.array, cells))


@patient
@given(clouds())
def test_non_dominated_points_are_those_that_none_beats(cloud: tuple[np.ndarray, list[bool]]) -> None:
    points, maximise = cloud
    losses = convert_to_losses(points, maximise)
    expected = [
        not any(
            (other <= one).all() and ((other < one).any() or earlier < index)
            for earlier, other in enumerate(losses)
            if earlier != index
        )
        for index, one in enumerate(losses)
    ]
    assert find_non_dominated(points, maximise).tolist() == expected


def test_of_duplicates_the_first_counts() -> None:
    points = [[0.5, 3.0], [0.9, 7.0], [0.5, 3.0], [0.9, 7.0], [0.9, 8.0]]
    assert find_non_dominated(points, [True, False]).tolist() == [True, True, False, False, False]


def test_a_front_of_nothing_is_empty() -> None:
    assert find_non_dominated([], [True, False]).shape == (0,)
    assert hypervolume([], [0.0, 1.0], [True, False]) == 0.0
    with pytest.raises(ValueError, match="a front without points has no knee"):
        knee([], [True, False])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        find_non_dominated([[0.5, bad]], [True, False])
    with pytest.raises(ValueError, match="must be finite"):
        hypervolume([[0.5, 1.0]], [0.0, bad], [True, False])


@patient
@given(clouds())
def test_hypervolume_is_the_number_of_unit_cells_covered(cloud: tuple[np.ndarray, list[bool]]) -> None:
    points, maximise = cloud
    reference = np.where(maximise, 0, SIDE).astype(float)
    expected = count_covered_cells(convert_to_losses(points, maximise), SIDE)
    assert hypervolume(points, reference.tolist(), maximise) == expected


unit_points = st.integers(2, 4).flatmap(
    lambda count: st.lists(st.tuples(*[st.floats(0, 1)] * count), min_size=1, max_size=10)
)


@patient
@given(unit_points)
def test_hypervolume_agrees_with_optuna(points: list[tuple[float, ...]]) -> None:
    # A private function of optuna: where it is gone, the other oracles remain.
    theirs = pytest.importorskip("optuna._hypervolume").compute_hypervolume
    axes = len(points[0])
    expected = theirs(np.array(points), np.ones(axes))
    assert hypervolume(points, [1.0] * axes, [False] * axes) == pytest.approx(expected, abs=1e-12)


@patient
@given(clouds(), st.data())
def test_hypervolume_never_falls_when_a_point_is_added(
    cloud: tuple[np.ndarray, list[bool]], data: st.DataObject
) -> None:
    points, maximise = cloud
    more = data.draw(st.tuples(*[st.integers(-1, SIDE + 1)] * len(maximise)))
    reference = np.where(maximise, 0, SIDE).astype(float).tolist()
    before = hypervolume(points, reference, maximise)
    after = hypervolume([*points.tolist(), more], reference, maximise)
    assert after >= before


@patient
@given(clouds(), st.randoms(use_true_random=False))
def test_order_and_dominated_points_do_not_change_the_hypervolume(
    cloud: tuple[np.ndarray, list[bool]], rng: Any
) -> None:
    points, maximise = cloud
    reference = np.where(maximise, 0, SIDE).astype(float).tolist()
    front = points[find_non_dominated(points, maximise)].tolist()
    rng.shuffle(front)
    assert hypervolume(front, reference, maximise) == hypervolume(points, reference, maximise)


def distance_above_chord(front: np.ndarray) -> np.ndarray:
    """Signed distance of ``(cost, accuracy)`` points from the line through the cheapest and the best one."""
    scaled = (front - front.min(axis=0)) / np.ptp(front, axis=0)
    return np.asarray((scaled[:, 1] - scaled[:, 0]) / math.sqrt(2))


@patient
@given(clouds(objectives=2))
def test_the_knee_is_farthest_from_the_chord(cloud: tuple[np.ndarray, list[bool]]) -> None:
    points, _ = cloud
    front = points[find_non_dominated(points, [False, True])]
    assume(len(front) >= 2)
    distances = distance_above_chord(front)
    assert distances[knee(front, [False, True])] == pytest.approx(distances.max())


@patient
@given(clouds(), st.data())
def test_units_and_signs_do_not_move_the_knee(cloud: tuple[np.ndarray, list[bool]], data: st.DataObject) -> None:
    points, maximise = cloud
    front = points[find_non_dominated(points, maximise)]
    assume(len(front))
    # Powers of two and whole offsets keep the arithmetic exact, and with it ties.
    factors = np.array([2.0 ** data.draw(st.integers(-8, 8)) for _ in maximise])
    offsets = np.array([float(data.draw(st.integers(-8, 8))) for _ in maximise])
    expected = knee(front, maximise)
    assert knee((front + offsets) * factors, maximise) == expected
    assert knee(-front, [not larger for larger in maximise]) == expected


def test_ties_for_the_knee_go_to_the_first() -> None:
    assert knee([[5.0, 0.5]], [False, True]) == 0
    assert knee([[5.0, 0.5], [9.0, 0.9]], [False, True]) == 0
    hollow = [[0.0, 0.0], [0.8, 0.1], [1.0, 1.0]]
    assert knee(hollow, [False, True]) == 0


def trial(number: int, accuracy: float, flops: int, params: int = 100, method: str = "magnitude") -> Outcome:
    metrics = {"accuracy": accuracy, "flops": float(flops), "params": float(params), "seconds": 2.0 + number}
    return outcome(number, method=method, metrics=metrics, point={"sparsity.ratio": flops / 1000})


def make_front(**changes: Any) -> Front:
    """Dense: 98 %, 1000 FLOPs. Trials 4, 1, 3, 0 are the front; 2 is dominated, 5 repeats 3."""
    outcomes = [
        trial(0, 0.979, 600, 150, "increg"),
        trial(1, 0.96, 200, 60),
        trial(2, 0.95, 400, 90, "random"),
        trial(3, 0.975, 300, 80, "increg"),
        trial(4, 0.70, 100, 40),
        trial(5, 0.975, 300, 80, "random"),
    ]
    fields: dict[str, Any] = {"study": "small", "dense": DENSE, "outcomes": outcomes}
    return Front(**(fields | {"objectives": load_objectives("accuracy,flops")} | changes))


def numbers(front: Front) -> list[int]:
    return [member.trial for member in front.members]


def test_members_come_by_ascending_flops() -> None:
    front = make_front()
    assert numbers(front) == [4, 1, 3, 0]
    assert [member.trial for member in front.dominated] == [5, 2]


def test_among_equal_flops_the_best_comes_first() -> None:
    outcomes = (trial(0, 0.90, 500, params=100), trial(1, 0.95, 500, params=150), trial(2, 0.85, 400, params=160))
    front = make_front(outcomes=outcomes, objectives=load_objectives("accuracy,flops,params"))
    assert numbers(front) == [2, 1, 0]


def test_other_objectives_make_another_front() -> None:
    outcomes = [trial(0, 0.96, 200, 80), trial(1, 0.97, 300, 90), trial(2, 0.96, 250, 70)]
    assert numbers(make_front(outcomes=outcomes)) == [0, 1]
    assert numbers(make_front(outcomes=outcomes, objectives=load_objectives("accuracy,params"))) == [2, 1]
    assert numbers(make_front(outcomes=outcomes, objectives=load_objectives("accuracy,flops,params"))) == [0, 2, 1]


def test_shares_are_of_the_dense_network() -> None:
    member = make_front().members[1]
    assert (member.flops, member.flops_share, member.params, member.params_share) == (200, 0.2, 60, 0.3)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_flops": "30%"}, [4, 1, 3]),
        ({"max_flops": 0.3}, [4, 1, 3]),
        ({"max_flops": 299}, [4, 1]),
        ({"min_accuracy": "97.5%"}, [3, 0]),
        ({"min_accuracy": 0.95, "max_flops": 400}, [1, 3]),
        ({"max_params": 79}, [4, 1]),
        ({"method": "random"}, [5]),
        ({"max_flops": 50}, []),
    ],
)
def test_filters_keep_what_meets_all_limits(limits: dict[str, Any], expected: list[int]) -> None:
    assert numbers(make_front().filter(**limits)) == expected


@st.composite
def fronts(draw: st.DrawFn) -> Front:
    rows = draw(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 12), st.integers(1, 12)), max_size=12))
    methods = ("magnitude", "increg")
    outcomes = [
        trial(number, accuracy / 20, 100 * flops, 20 * params, methods[number % 2])
        for number, (accuracy, flops, params) in enumerate(rows)
    ]
    return make_front(outcomes=outcomes)


@patient
@given(fronts(), st.integers(1, 12), st.integers(1, 20), st.integers(1, 12))
def test_a_filtered_front_is_the_front_of_what_was_kept(front: Front, flops: int, accuracy: int, params: int) -> None:
    shown = front.filter(max_flops=100 * flops, min_accuracy=accuracy / 20, max_params=20 * params)
    kept = [
        each
        for each in front.outcomes
        if each.metrics["flops"] <= 100 * flops
        and each.metrics["accuracy"] >= accuracy / 20
        and each.metrics["params"] <= 20 * params
    ]
    assert list(shown.outcomes) == kept
    assert numbers(shown) == numbers(make_front(outcomes=kept))
    # Front members that meet the limits stay on the front.
    assert {m.trial for m in front.members} & {each.number for each in kept} <= set(numbers(shown))
    assert shown.hypervolume() <= front.hypervolume() + 1e-12


@patient
@given(fronts(), st.integers(1, 12), st.integers(1, 12))
def test_filters_can_be_chained(front: Front, first: int, second: int) -> None:
    chained = front.filter(max_flops=100 * first).filter(max_flops=100 * second)
    assert numbers(chained) == numbers(front.filter(max_flops=100 * min(first, second)))


def test_a_method_that_no_trial_used_is_refused() -> None:
    with pytest.raises(InputError, match="unknown method of this study 'incregg'; did you mean 'increg'"):
        make_front().filter(method="incregg")


def test_picks() -> None:
    front = make_front()
    assert front.best().trial == 0
    assert front.knee().trial == 1
    # Exactly half a percentage point is within half a percentage point.
    assert front.cheapest(drop=0.5).trial == 3
    assert front.cheapest(drop=0.49).trial == 0
    assert front.cheapest(drop=100).trial == 4
    assert [front.pick(rule).trial for rule in PICKS] == [1, 0, 3]


def test_of_two_members_the_more_accurate_is_the_knee() -> None:
    assert make_front(outcomes=[trial(0, 0.1, 10), trial(1, 0.97, 300)]).knee().trial == 1


def test_picks_that_cannot_be_teach() -> None:
    front = make_front()
    with pytest.raises(InputError, match="unknown rule 'kneee'; did you mean 'knee'"):
        front.pick("kneee")
    with pytest.raises(InputError, match=r"within 0.05 percentage points of the dense one; .* lost 0.10"):
        front.pick("cheapest", drop=0.05)
    with pytest.raises(InputError, match=r"drop: -1 is not in 0..100"):
        front.cheapest(drop=-1)
    for rule in PICKS:
        with pytest.raises(InputError, match="study 'small' has no complete trial within these limits"):
            front.filter(max_flops=1.0, min_accuracy=1.0).pick(rule)


def test_sorting() -> None:
    front = make_front()
    orders = {by: [member.trial for member in front.sort(by)] for by in front.orders}
    assert orders == {
        "accuracy": [0, 3, 1, 4],
        "flops": [4, 1, 3, 0],
        "params": [4, 1, 3, 0],
        "seconds": [0, 1, 3, 4],
        "method": [3, 0, 4, 1],
        "trial": [0, 1, 3, 4],
    }
    with pytest.raises(InputError, match="unknown order 'acuracy'; did you mean 'accuracy'"):
        front.sort("acuracy")


def test_linear_hypervolume_is_the_area_between_the_dense_network_and_the_ideal() -> None:
    # Strips of the unit square of accuracy against 1 - share, from the cheapest to the dearest member.
    expected = 0.70 * (0.2 - 0.1) + 0.96 * (0.3 - 0.2) + 0.975 * (0.6 - 0.3) + 0.979 * (1 - 0.6)
    assert make_front().linear_hypervolume() == pytest.approx(expected)
    assert make_front(outcomes=[]).linear_hypervolume() == 0
    assert make_front(outcomes=[trial(0, 0.99, 1000)]).linear_hypervolume() == 0


def test_json_is_what_others_build_on() -> None:
    front = make_front()
    data = front.to_json()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert list(data) == ["study", "objectives", "dense", "hypervolume", "linear_hypervolume", "members"]
    assert data["dense"] == {"accuracy": 0.98, "flops": 1000, "params": 200}
    assert data["hypervolume"] == front.hypervolume()
    assert data["members"][1] == {
        "trial": 1,
        "method": "magnitude",
        "accuracy": 0.96,
        "flops": 200,
        "flops_share": 0.2,
        "params": 60,
        "params_share": 0.3,
        "seconds": 3.0,
        "point": {"sparsity.ratio": 0.2},
    }
    assert all(isinstance(member[name], int) for member in data["members"] for name in ("flops", "params"))


def test_test_accuracy_is_told_once_it_is_known() -> None:
    tested = outcome(0, metrics=trial(0, 0.9, 100).metrics, test_metrics={"accuracy": 0.89})
    assert make_front(outcomes=[tested]).to_json()["members"][0]["test_accuracy"] == 0.89


def test_csv_starts_with_the_dense_network() -> None:
    rows = list(csv.DictReader(io.StringIO(make_front().to_csv())))
    assert [row["trial"] for row in rows] == ["", "4", "1", "3", "0"]
    assert (rows[0]["method"], rows[0]["flops_share"], rows[0]["test_accuracy"]) == ("dense", "1.0", "0.97")
    assert (rows[3]["drop"], rows[3]["point.sparsity.ratio"]) == ("0.5", "0.3")


@pytest.mark.parametrize("limit", ["100%", 50])
def test_table_starts_with_the_dense_network(limit: str | int) -> None:
    front = make_front().filter(max_flops=limit)
    table = front.table()
    assert len(table) == 1 + len(front.members)
    assert table["method"].iloc[0] == "dense"
    assert bool(table["trial"].isna().iloc[0])
    assert table["trial"].iloc[1:].tolist() == numbers(front)
    assert table["flops"].iloc[0] == 1000


def test_members_rebuild_their_network() -> None:
    networks: dict[int, Any] = {3: object(), 1: object()}
    front = make_front(rebuild=networks.__getitem__)
    assert front.filter(max_flops="50%").best().model() is networks[3]
    assert front.knee().model() is networks[1]
    with pytest.raises(ValueError, match="load_front gives one that can rebuild networks"):
        make_front().best().model()


def test_only_complete_measured_trials_make_a_front() -> None:
    with pytest.raises(ValueError, match="trial 7 of study 'small' is failed"):
        make_front(outcomes=[outcome(7, error="boom")])
    latency = replace(OBJECTIVES["seconds"], name="latency")
    with pytest.raises(ValueError, match="trial 0 was not measured for 'latency'"):
        make_front(objectives=(*load_objectives("accuracy,flops"), latency))


ENERGY = Objective(name="energy", title="energy", direction="minimise", unit="mJ", style=".3g", measure=lambda _: 1.0)


def make_outcome(number: int, damage: float, flops: int, energy: float, method: str = "greedy") -> Outcome:
    measured = trial(number, 0.5, flops, method=method).metrics
    return outcome(number, method=method, metrics=measured | {"predicted_damage": damage, "energy": energy})


def sketch() -> Front:
    """A study over what is predicted, FLOPs, and a measurement of the user's own; 3 repeats 1."""
    outcomes = [
        make_outcome(0, 0.02, 800, 6.0),
        make_outcome(1, 0.30, 300, 2.0),
        make_outcome(2, 0.50, 500, 7.0),
        make_outcome(3, 0.30, 300, 2.0, "random"),
    ]
    dense = DenseRow(DENSE.metrics | {"energy": 8.0})
    return Front("sketch", dense, outcomes, (*load_objectives("predicted_damage,flops"), ENERGY))


def test_every_objective_is_in_json_and_csv() -> None:
    front = sketch()
    data = front.to_json()
    assert data["objectives"] == ["predicted_damage", "flops", "energy"]
    assert data["dense"]["energy"] == 8.0
    first = data["members"][0]
    assert (first["predicted_damage"], first["energy"], first["energy_share"]) == (0.30, 2.0, 0.25)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    rows = list(csv.DictReader(io.StringIO(front.to_csv())))
    assert [(row["predicted_damage"], row["energy"], row["drop"]) for row in rows] == [
        ("", "8.0", "0.0"),
        ("0.3", "2.0", "0.3"),
        ("0.02", "6.0", "0.02"),
    ]


def test_every_objective_is_an_order_and_a_limit() -> None:
    front = sketch()
    assert [member.trial for member in front.sort("predicted_damage")] == [0, 1]
    assert [member.trial for member in front.sort("energy")] == [1, 0]
    assert numbers(front.filter(limits=["predicted_damage<=0.1"])) == [0]
    assert numbers(front.filter(limits=["energy<=50%", "accuracy >= 10%"])) == [1]
    assert numbers(front.filter(limits=["predicted_damage>0.3"])) == [2], "the front of what is left"
    with pytest.raises(InputError, match="limit 'enrgy<1': unknown measurement of study 'sketch': 'enrgy'; did"):
        front.filter(limits=["enrgy<1"])
    with pytest.raises(InputError, match="limit 'energy' is not of the form NAME<=VALUE or NAME>=VALUE, such as 'pred"):
        front.filter(limits=["energy"])


def test_picks_follow_the_objectives() -> None:
    front = sketch()
    assert (front.quality.name, front.cost.name) == ("predicted_damage", "flops")
    assert front.best().trial == 0
    assert front.cheapest(drop=0.5).trial == 1
    assert front.cheapest(drop=0.1).trial == 0
    with pytest.raises(InputError, match=r"within 0.01 \(increase of the loss\) of the dense one; the best lost 0.02"):
        front.cheapest(drop=0.01)


def test_trials_that_reach_the_same_are_ties() -> None:
    front = sketch()
    assert [[tie.trial for tie in front.ties(member)] for member in front.members] == [[3], []]
    assert [member.get("ties") for member in front.to_json()["members"]] == [[3], None]
    assert [[tie.method for tie in make_front().ties(member)] for member in make_front().members] == [
        [],
        [],
        ["random"],
        [],
    ]


@patient
@given(fronts())
def test_every_trial_is_on_the_front_ties_or_is_beaten(front: Front) -> None:
    ties = [tie.trial for member in front.members for tie in front.ties(member)]
    assert len(set(ties)) == len(ties)
    values = {each.number: (each.metrics["accuracy"], -each.metrics["flops"]) for each in front.outcomes}
    for member in front.members:
        assert all(values[tie.trial] == values[member.trial] for tie in front.ties(member))
    best = {values[member.trial] for member in front.members}
    for beaten in {member.trial for member in front.dominated} - set(ties):
        mine = values[beaten]
        assert mine not in best
        assert any(all(a >= b for a, b in zip(other, mine, strict=True)) for other in best)


@patient
@given(fronts())
def test_rows_have_the_same_keys_and_every_measurement(front: Front) -> None:
    rows = front.records()
    assert {tuple(row) for row in rows} == {tuple(rows[0])}
    assert set(front.shown) <= set(rows[0])
    for member, row in zip(front.members, rows[1:], strict=True):
        assert row["drop"] == pytest.approx(100 * (DENSE.accuracy - member.accuracy))


def test_a_task_without_accuracy_is_told_by_its_own_metric() -> None:
    shown: dict[str, Any] = {"style": ".1%", "ideal": 1.0, "worst": 0.0, "quality": True, "trained": True}
    iou = Objective(name="mean_iou", title="mean IoU", direction="maximise", **shown)
    measured = {"flops": 500.0, "params": 60.0, "seconds": 1.0}
    outcomes = [outcome(0, metrics={"mean_iou": 0.55, **measured}, test_metrics={"mean_iou": 0.5})]
    dense = DenseRow({"mean_iou": 0.6, "flops": 1000.0, "params": 100.0, "seconds": 3.0}, {"mean_iou": 0.58})
    front = Front("streets", dense, outcomes, (iou, OBJECTIVES["flops"]))
    (member,) = front.to_json()["members"]
    assert (member["mean_iou"], member["test_mean_iou"]) == (0.55, 0.5) and "accuracy" not in member
    assert front.to_json()["dense"] == {"mean_iou": 0.6, "flops": 1000, "params": 100}
    assert [row["drop"] for row in front.records()] == [0.0, 5.0]
    assert front.best().trial == front.cheapest(drop=5).trial == 0
    assert numbers(front.filter(limits=["mean_iou>=60%"])) == []
    with pytest.raises(InputError, match="min-accuracy: unknown measurement of study 'streets': 'accuracy'"):
        front.filter(min_accuracy="90%")


class Sketch:
    """Draws nothing, and remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def figure(self, front: Front) -> Any:
        self.seen.append(("figure", front))
        return "drawn"

    def save(self, front: Front, path: object) -> None:
        self.seen.append(("save", path))

    def front_html(self, front: Front) -> str:
        return f"<p>{front.study}, {len(front.members)}</p>"

    def member_html(self, member: Member) -> str:
        return f"<p>trial {member.trial}</p>"


def test_a_front_is_drawn_by_what_it_was_given_also_after_filtering() -> None:
    sketch = Sketch()
    whole = make_front(views=sketch)
    some = whole.filter(limits=["flops<=100%"])
    drawn: object = some.plot("there.svg")
    assert drawn == "drawn"
    assert sketch.seen == [("save", "there.svg"), ("figure", some)]
    assert some._repr_html_() == f"<p>small, {len(some.members)}</p>"
    assert [each._repr_html_() for each in whole.members] == [f"<p>trial {each.trial}</p>" for each in whole.members]


def test_a_front_of_numbers_alone_is_text_in_a_notebook_and_cannot_be_drawn() -> None:
    bare = make_front()
    assert bare._repr_html_() is None and bare.best()._repr_html_() is None
    with pytest.raises(ValueError, match="numbers alone; load_front gives one that can be drawn"):
        bare.plot()


def test_a_hypervolume_of_nothing_is_said_with_a_scale_that_tells() -> None:
    lossy = [outcome(n, metrics={"accuracy": 0.98 - drop, "flops": 100.0 * (n + 1), "params": 5.0, "seconds": 1.0})
             for n, drop in enumerate((0.2, 0.1))]  # fmt: skip
    front = Front("s", DENSE, lossy, load_objectives(("accuracy", "flops")))
    said = front.scale_note()
    assert front.hypervolume() == 0 and said is not None and said.endswith("max_drop = 15 would tell them apart")
    wider = replace(front, worthless=0.15)
    assert wider.hypervolume() > 0 and wider.scale_note() is None
