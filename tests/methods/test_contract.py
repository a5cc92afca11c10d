"""What every registered method must do, on every kind of network; a new method is tested by being registered."""

from __future__ import annotations

import json
import pickle
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from random import Random

import pytest
import torch
from torch import Tensor, nn

import methods
from methods import load_method, method_names
from methods.contract import named
from methods.contract.method import Method, Problem, Pruned, Record, nested
from methods.contract.session import Paused, Rung, Saved
from methods.network.architecture import describe, rebuild
from methods.network.channels import channel_groups
from methods.network.cost import CostModel, count
from methods.training.trainer import Recipe
from spaces import InputError, Space
from tests.methods import cases

EXAMPLE = torch.zeros(1, *cases.IMAGE)
TRAIN = cases.blobs(cases.IMAGE, 96)
VALIDATION = cases.blobs(cases.IMAGE, 40, seed=1, noise=0)
STEPS = 20
TARGET = 0.5
ALWAYS = {"epoch", "step", "loss", "lr", "comparable", "accuracy", "val_loss"}


@dataclass(frozen=True)
class Case:
    """One method on one network, and what came of it."""

    method: Method
    dense: nn.Module
    problem: Problem
    pruned: Pruned
    reports: list[Record]


def default_method(name: str, net: str) -> Method:
    """The authors' settings; half of the FLOPs, where that is an input."""
    cls = load_method(name)
    groups = channel_groups(dense_net(net), EXAMPLE)
    point = cls.space([group.layer for group in groups]).defaults()
    assert point is not None, "every parameter needs a default"
    if cls.flops_parameter is not None:
        point[cls.flops_parameter] = TARGET
    return cls.from_point(point)


def dense_net(net: str) -> nn.Module:
    return cases.seeded(cases.NETS[net], trained=True)


def problem_for(net: str, seed: int = 0, steps: int = STEPS) -> Problem:
    return Problem(
        model=dense_net(net),
        example=EXAMPLE,
        train=TRAIN,
        validation=VALIDATION,
        recipe=Recipe(lr=0.05, batch_size=32, recalibrate=2),
        steps=steps,
        generator=torch.Generator().manual_seed(seed),
    )


@cache
def case(name: str, net: str, seed: int = 0) -> Case:
    reports: list[Record] = []
    problem = replace(problem_for(net, seed), report=reports.append)
    method = default_method(name, net)
    return Case(method, dense_net(net), problem, method.prune(problem), reports)


every = pytest.mark.parametrize(("name", "net"), [(name, net) for net in cases.NETS for name in method_names()])
each = pytest.mark.parametrize("name", method_names())


def assert_same_state(one: nn.Module, other: nn.Module) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for key in mine:
        assert torch.equal(mine[key], theirs[key]), key


@every
def test_dense_network_is_untouched(name: str, net: str) -> None:
    done = case(name, net)
    assert_same_state(done.problem.model, done.dense)
    assert not any(module.training for module in done.problem.model.modules())
    assert all(p.requires_grad and p.grad is None for p in done.problem.model.parameters())


@each
def test_settled_parameters_are_of_the_space_and_have_a_default(name: str) -> None:
    cls = load_method(name)
    space = cls.space([group.layer for group in channel_groups(dense_net("vgg"), EXAMPLE)])
    assert all(space[name].default is not None for name in cls.fixed_by_default)


@every
@pytest.mark.filterwarnings("default")  # a check may warn of what is likely to go wrong
def test_what_can_be_pruned_passes_the_check_and_nothing_changes(name: str, net: str) -> None:
    problem = problem_for(net)
    seeds = problem.generator.get_state()
    default_method(name, net).check(problem)
    assert torch.equal(problem.generator.get_state(), seeds)
    assert_same_state(problem.model, dense_net(net))
    assert not any(module.training or module._forward_hooks for module in problem.model.modules())


@every
def test_result_runs_and_is_smaller(name: str, net: str) -> None:
    done = case(name, net)
    model = done.pruned.model
    assert not any(module.training for module in model.modules())
    assert all(p.requires_grad and p.is_contiguous() for p in model.parameters())
    answers = model(VALIDATION.inputs)
    assert answers.shape == (VALIDATION.examples, cases.CLASSES) and bool(answers.isfinite().all())
    dense, left = count(done.dense, EXAMPLE), count(model, EXAMPLE)
    assert left.params < dense.params
    if type(done.method).flops_parameter is not None:
        assert 0.3 < left.flops / dense.flops <= TARGET
    else:
        assert left.flops < dense.flops


@every
def test_preview_is_exact_and_touches_nothing(name: str, net: str) -> None:
    done, problem = case(name, net), problem_for(net)
    seeds = problem.generator.get_state()
    seen = done.method.preview(problem)
    assert torch.equal(problem.generator.get_state(), seeds)
    assert_same_state(problem.model, done.dense)
    assert seen is not None or not done.method.predicts_damage
    if seen is not None:
        left = count(done.pruned.model, EXAMPLE)
        assert (seen.flops, seen.params) == (left.flops, left.params)
        assert (seen.damage is not None) == done.method.predicts_damage
        assert seen.damage == done.pruned.extra.get("predicted_damage")


@each
def test_declarations_fit_the_space_and_the_fields(name: str) -> None:
    cls = load_method(name)
    space = cls.space([group.layer for group in channel_groups(dense_net("vgg"), EXAMPLE)])
    if cls.flops_parameter is not None:
        bounds = space[cls.flops_parameter].to_json()
        assert 0 < bounds["low"] < bounds["high"] <= 1
    assert cls.rounds_widths == ("round_to" in cls.model_fields)
    assert all(issubclass(layer, nn.Module) for layer in cls.layers)


@every
def test_kept_units_are_what_the_widths_show(name: str, net: str) -> None:
    done = case(name, net)
    groups = channel_groups(done.dense, EXAMPLE)
    kept = done.pruned.kept
    assert kept.keys() == {group.name for group in groups}
    lost: dict[tuple[str, str], int] = defaultdict(int)
    for group in groups:
        units = list(kept[group.name])
        assert units == sorted(set(units)) and units
        assert 0 <= units[0] and units[-1] < group.channels
        for member in group.members:
            lost[member.module, member.side] += (group.channels - len(units)) * member.index.shape[1]
    modules = {module for module, _ in lost}
    before, after = (widths(model, modules) for model in (done.dense, done.pruned.model))
    for place, channels in lost.items():
        assert before[place] - after[place] == channels, place
    by_widths = CostModel(done.dense, EXAMPLE, groups).flops({key: len(units) for key, units in kept.items()})
    flops = count(done.pruned.model, EXAMPLE).flops
    if describe(done.dense, done.pruned.model)["replaced"]:
        assert flops < by_widths, "layers that were replaced are cheaper than plain ones of the same widths"
    else:
        assert flops == by_widths


def widths(model: nn.Module, names: Collection[str]) -> dict[tuple[str, str], int]:
    """Channels that go into modules and come out, as they run: also of layers that were replaced."""
    found: dict[tuple[str, str], int] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            found[name, "in"], found[name, "out"] = inputs[0].shape[1], output.shape[1]

        return hook

    handles = [model.get_submodule(name).register_forward_hook(note(name)) for name in names]
    model(EXAMPLE)
    for handle in handles:
        handle.remove()
    return found


@every
def test_budget_and_history(name: str, net: str) -> None:
    done = case(name, net)
    history = done.pruned.history
    assert done.pruned.steps <= STEPS
    assert history[-1]["step"] == done.pruned.steps
    for record in history:
        assert record.keys() >= ALWAYS
        assert all(type(value) in (int, float) for value in record.values())
        assert 0 <= record["accuracy"] <= 1
    for counted in ("epoch", "step"):
        numbers = [record[counted] for record in history]
        assert numbers == sorted(set(numbers)), counted
    assert done.reports == list(history)
    assert all(isinstance(value, float) for value in done.pruned.extra.values())


@every
def test_same_seed_same_result(name: str, net: str) -> None:
    first = case(name, net)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    again = first.method.prune(problem_for(net))
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was used"
    assert again.history == first.pruned.history
    assert again.kept == first.pruned.kept
    assert_same_state(again.model, first.pruned.model)


@every
def test_architecture_round_trip(name: str, net: str) -> None:
    done = case(name, net)
    text = json.dumps(describe(done.dense, done.pruned.model))
    rebuilt = rebuild(cases.NETS[net](), json.loads(text), done.pruned.model.state_dict())
    assert_same_state(rebuilt, done.pruned.model)
    assert torch.equal(rebuilt(VALIDATION.inputs), done.pruned.model(VALIDATION.inputs))


class InMemory(dict[str, bytes]):
    """States of a trial that survive its interruptions."""

    def put(self, name: str, state: bytes) -> None:
        self[name] = state


@each
def test_a_trial_paused_at_every_rung_gives_the_same_bit_for_bit(name: str) -> None:
    whole, states, rungs = case(name, "zero_pad"), InMemory(), list[Rung]()

    def run() -> tuple[Pruned, list[Record]] | None:
        reports: list[Record] = []
        session = Saved(states, lambda rung: "pause")
        problem = replace(problem_for("zero_pad"), session=session, report=reports.append)
        try:
            return whole.method.prune(problem), reports
        except Paused as paused:
            rungs.append(paused.rung)
            return None

    while (done := run()) is None:
        assert len(rungs) <= len(whole.pruned.history), "every run gets one rung further"
    pruned, reports = done
    assert [dict(rung.record) for rung in rungs] == list(whole.pruned.history) == list(pruned.history) == reports
    assert (pruned.kept, pruned.extra) == (whole.pruned.kept, whole.pruned.extra)
    assert_same_state(pruned.model, whole.pruned.model)
    comparable = [rung.comparable for rung in rungs]
    assert comparable == sorted(comparable), "once cut, a network stays cut"


@each
def test_seed_matters(name: str) -> None:
    one, other = case(name, "vgg"), case(name, "vgg", seed=1)
    assert one.pruned.history != other.pruned.history


@each
def test_ignored_modules_keep_their_channels(name: str) -> None:
    problem = replace(problem_for("vgg"), ignored=frozenset({"2.0"}))
    pruned = default_method(name, "vgg").prune(problem)
    assert "2.0" not in pruned.kept
    assert widths(pruned.model, ["2.0"])["2.0", "out"] == 12


@each
def test_other_ways_of_training(name: str) -> None:
    """AdamW, distillation, bfloat16, channels last, pieces: whatever the recipe says."""
    recipe = Recipe(optimizer="adamw", lr=3e-3, batch_size=32, accumulate=2, distill=0.5, bf16=True, channels_last=True)
    problem = replace(problem_for("projection"), recipe=recipe)
    pruned = default_method(name, "projection").prune(problem)
    assert_same_state(problem.model, dense_net("projection"))
    assert all(p.is_contiguous() for p in pruned.model.parameters())


@each
def test_tiny_budgets_are_used_or_refused_in_words(name: str) -> None:
    for steps in (0, 1):
        try:
            pruned = default_method(name, "plain").prune(problem_for("plain", steps=steps))
        except InputError as error:
            assert "steps" in str(error)
        else:
            assert pruned.steps <= steps


@each
def test_methods_are_data(name: str) -> None:
    cls = load_method(name)
    assert cls.title and "arXiv" in cls.source
    layers = [group.layer for group in channel_groups(dense_net("zero_pad"), EXAMPLE)]
    space = cls.space(layers)
    rng = Random(0)
    for _ in range(20):
        point = space.sample(rng)
        method = cls.from_point(point)
        assert pickle.loads(pickle.dumps(method)) == method
        assert cls.model_validate_json(method.model_dump_json()) == method
        fields = method.model_dump()
        for key, value in point.items():
            assert lookup(fields, key) == value
    with pytest.raises(ValueError, match="frozen"):
        setattr(method, next(iter(cls.model_fields)), None)


def lookup(fields: object, key: str) -> object:
    node: object = nested({key: 0})
    while isinstance(node, dict):
        assert isinstance(fields, dict)
        (part, node), *_ = node.items()
        fields = fields[part]
    return fields


@each
def test_bad_points_are_explained(name: str) -> None:
    cls = load_method(name)
    with pytest.raises(InputError, match="unknown .*'sparsityy'"):
        cls.from_point({**default_method(name, "vgg").model_dump(), "sparsityy": 1})
    if "sparsity" in cls.model_fields:
        with pytest.raises(InputError, match="ratio.* = 1.5 is not allowed"):
            cls.from_point({"sparsity.mode": "uniform", "sparsity.ratio": 1.5})


def test_cuda_result_lives_there() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    for name in method_names():
        problem = problem_for("zero_pad")
        problem = replace(
            problem,
            model=problem.model.cuda(),
            example=EXAMPLE.cuda(),
            train=TRAIN.to("cuda"),
            validation=VALIDATION.to("cuda"),
        )
        pruned = default_method(name, "zero_pad").prune(problem)
        assert next(pruned.model.parameters()).is_cuda


# --- the register ------------------------------------------------------------------------------------------


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown method 'incregg'; did you mean 'increg'\?.*magnitude"):
        load_method("incregg")


class Half(Method):
    """A method of somebody else's."""

    title = "half"
    source = "nobody, arXiv"

    @classmethod
    def space(cls, groups: object) -> Space:
        raise NotImplementedError

    def prune(self, problem: Problem) -> Pruned:
        raise NotImplementedError


def register(monkeypatch: pytest.MonkeyPatch, *places: tuple[str, str]) -> None:
    points = [EntryPoint(name, place, methods.GROUP) for name, place in places]

    def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == "paretoprune.methods"
        return [point for point in points if name in (None, point.name)]

    monkeypatch.setattr(named, "entry_points", entry_points)


def test_third_parties_register_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, ("half", "tests.methods.test_contract:Half"))
    assert "half" in method_names() and set(methods.METHODS) <= set(method_names())
    assert load_method("half") is Half


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([("half", "tests.methods.test_contract:Gone")], "method 'half' .*: unknown name in tests.*: 'Gone'"),
        ([("half", "no_such_package:Half")], "method 'half' .*: there is no module 'no_such_package'"),
        ([("half", "tests.methods.test_contract:case")], "no subclass of methods.Method"),
        ([("half", "a:A"), ("half", "b:B")], "method 'half' is registered more than once: a:A, b:B"),
    ],
)
def test_broken_registrations(monkeypatch: pytest.MonkeyPatch, places: list[tuple[str, str]], message: str) -> None:
    register(monkeypatch, *places)
    with pytest.raises(InputError, match=message):
        load_method("half")


def test_taking_one_of_our_names_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, ("increg", "tests.methods.test_contract:Half"))
    with pytest.raises(InputError, match="registered more than once: methods.increg.method:IncReg, tests"):
        load_method("increg")


def test_intruder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find_spec("json")
    monkeypatch.setattr(methods, "find_spec", lambda name: spec)
    with pytest.raises(ImportError, match=r"needs its own package 'spaces'.*json.*pip uninstall spaces"):
        methods._check_neighbour("spaces")
    monkeypatch.setattr(methods, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="Python finds none"):
        methods._check_neighbour("spaces")


def test_lazy_names() -> None:
    assert methods.Problem is Problem and methods.Method is Method and methods.Recipe is Recipe
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        getattr(methods, "Nothing")  # noqa: B009  # mypy knows that it is not there


def test_importing_methods_is_cheap() -> None:
    """The command line imports this package for the names alone."""
    import subprocess
    import sys

    code = "import methods, sys; methods.method_names(); assert not {'torch', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
