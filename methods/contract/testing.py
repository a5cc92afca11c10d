"""Contract tests to be imported: what a method, a task and a layer with equal forms of anybody's must do.

A method is tested by a class in a test file, which pytest collects::

    from methods.contract.testing import MethodContract
    from mine import Mine

    class TestMine(MethodContract):
        method = Mine

and a task and a layer by one call: ``check_task(task, output, target)``, ``check_layer(layer, inputs)``. Our own are
tested by the same code. Plain assertions, no dependency on pytest.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.contract.checks import check_layer, check_task
from methods.contract.method import Method, Problem, Pruned, Record, nest_names
from methods.contract.recipe import Recipe
from methods.contract.sample_problem import (
    CLASSES,
    IMAGE,
    ResidualNetwork,
    blobs,
    build_seeded,
    chain_network,
    find_anatomy,
)
from methods.contract.session import Paused, Rung, Saved
from methods.network.architecture import describe, has_settings, rebuild
from methods.network.channels import ChannelGroup
from methods.network.cost import CostModel, count
from methods.training.damage import keep_by_damage
from spaces import ByDamage, InputError, Space, Value

__all__ = ["MethodContract", "MethodItself", "MethodOnNetwork", "assert_same_state", "check_layer", "check_task"]

RECORD = frozenset({"epoch", "step", "loss", "lr", "comparable", "accuracy", "val_loss"})
"""What every record of a classification has."""


@dataclass(frozen=True)
class Case:
    """A method on a network, and what came of it.

    Attributes:
        problem: What it was given.
        dense: A copy of the dense network.
        pruned: What it gave back.
        reports: What it reported on the way.
    """

    problem: Problem
    dense: nn.Module
    pruned: Pruned
    reports: list[Record]


class _Tested:
    """What both halves of the contract of methods stand on."""

    method: ClassVar[type[Method]]
    """The class under test."""
    network: ClassVar[Callable[[], nn.Module]] = staticmethod(chain_network)
    """Builds the network that is pruned: a classifier of 3 x 8 x 8 images into four classes."""
    share: ClassVar[float] = 0.5
    """Share of the FLOPs that is asked of methods that can be asked for one."""
    steps: ClassVar[int] = 20
    """Budget in optimiser steps."""
    settings: ClassVar[Mapping[str, bool | int | float | str]] = {}
    """Parameters that differ from their defaults."""
    _cases: ClassVar[dict[int, Case]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._cases = {}

    @classmethod
    def dense(cls) -> nn.Module:
        """Build the dense network."""
        return build_seeded(cls.network, trained=True)

    @classmethod
    def problem(cls, seed: int = 0, steps: int | None = None, known: bool = True) -> Problem:
        """Make a problem with a fresh network.

        Args:
            seed: Seed of the trial.
            steps: Budget; the usual one by default.
            known: Whether channel groups and costs are handed on, as a sweep does; else each problem finds its own.

        Returns:
            The problem.
        """
        return Problem(
            model=cls.dense(),
            example=torch.zeros(1, *IMAGE),
            train=blobs(IMAGE, 96),
            validation=blobs(IMAGE, 40, seed=1, noise=0),
            recipe=Recipe(lr=0.05, batch_size=32, recalibrate=2),
            steps=cls.steps if steps is None else steps,
            generator=torch.Generator().manual_seed(seed),
            known=find_anatomy(cls.network) if known else None,
        )

    @classmethod
    def groups(cls) -> list[ChannelGroup]:
        """Return the channel groups of the dense network."""
        return list(find_anatomy(cls.network).groups)

    @classmethod
    def space(cls) -> Space:
        """Return the method's space for the network."""
        return cls.method.space([group.layer for group in cls.groups()])

    @classmethod
    def build(cls, settings: Mapping[str, Value] | None = None) -> Method:
        """Build the method as its authors have it; half of the FLOPs, where that can be asked for.

        Args:
            settings: Values of parameters besides those of :attr:`settings`; what no longer applies with them is left
                out.

        Returns:
            The method.
        """
        settings = settings or {}
        space = cls.space().narrow(settings, beyond=settings.keys())
        point = space.defaults()
        assert point is not None, "every parameter needs a default"
        if cls.method.flops_parameter is not None and cls.method.flops_parameter in point:
            point[cls.method.flops_parameter] = cls.share
        return cls.method.from_point({**point, **cls.settings})

    @classmethod
    def case(cls, seed: int = 0) -> Case:
        """Prune once, and remember what came of it.

        Args:
            seed: Seed of the trial.

        Returns:
            The case.
        """
        if seed not in cls._cases:
            reports: list[Record] = []
            problem = replace(cls.problem(seed), report=reports.append)
            cls._cases[seed] = Case(problem, cls.dense(), cls.build().prune(problem), reports)
        return cls._cases[seed]


class MethodOnNetwork(_Tested):
    """What a method must do on every network."""

    def test_dense_network_is_untouched(self) -> None:
        """The method works on a copy."""
        done = self.case()
        assert_same_state(done.problem.model, done.dense)
        assert not any(module.training for module in done.problem.model.modules())
        assert all(p.requires_grad and p.grad is None for p in done.problem.model.parameters())

    def test_what_can_be_pruned_passes_the_check_and_nothing_changes(self) -> None:
        """``check`` looks, and does nothing."""
        problem = self.problem()
        seeds = problem.generator.get_state()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a check may warn
            self.build().check(problem)
        assert torch.equal(problem.generator.get_state(), seeds)
        assert_same_state(problem.model, self.dense())
        assert not any(module.training or module._forward_hooks for module in problem.model.modules())

    def test_result_runs_and_is_smaller(self) -> None:
        """The network is in eval mode, can be trained on, answers, and costs at most what was asked for."""
        done = self.case()
        model = done.pruned.model
        assert not any(module.training for module in model.modules())
        assert all(p.requires_grad and p.is_contiguous() for p in model.parameters())
        inputs = blobs(IMAGE, 40, seed=1, noise=0).inputs
        answers = model(inputs)
        assert answers.shape == (len(inputs), CLASSES) and bool(answers.isfinite().all())
        dense, left = count(done.dense, done.problem.example), count(model, done.problem.example)
        assert left.params < dense.params and left.flops < dense.flops
        if self.method.flops_parameter is not None:
            assert 0.6 * self.share < left.flops / dense.flops <= self.share

    def test_preview_is_exact_and_touches_nothing(self) -> None:
        """What ``preview`` says before training is what ``prune`` comes to."""
        done, problem = self.case(), self.problem()
        seeds = problem.generator.get_state()
        seen = self.build().preview(problem)
        assert torch.equal(problem.generator.get_state(), seeds)
        assert_same_state(problem.model, done.dense)
        assert seen is not None or not self.method.predicts_damage
        if seen is not None:
            left = count(done.pruned.model, done.problem.example)
            assert (seen.flops, seen.params) == (left.flops, left.params)
            assert (seen.damage is not None) == self.method.predicts_damage
            assert seen.damage == done.pruned.extra.get("predicted_damage")

    def test_kept_units_are_what_the_widths_show(self) -> None:
        """``kept`` lists units of every group, and the layers have the widths that follow."""
        done = self.case()
        example = torch.zeros(1, *IMAGE)
        groups, kept = self.groups(), done.pruned.kept
        assert kept.keys() == {group.name for group in groups}
        lost: dict[tuple[str, str], int] = defaultdict(int)
        for group in groups:
            units = list(kept[group.name])
            assert units == sorted(set(units)) and units
            assert 0 <= units[0] and units[-1] < group.channels
            for member in group.members:
                lost[member.module, member.side] += (group.channels - len(units)) * member.index.shape[1]
        modules = {module for module, _ in lost}
        before, after = (_widths(model, modules, example) for model in (done.dense, done.pruned.model))
        for place, channels in lost.items():
            assert before[place] - after[place] == channels, place
        by_widths = CostModel(done.dense, example, groups).flops({key: len(units) for key, units in kept.items()})
        flops = count(done.pruned.model, example).flops
        if describe(done.dense, done.pruned.model)["replaced"]:
            assert flops < by_widths, "layers that were replaced are cheaper than plain ones of the same widths"
        else:
            assert flops == by_widths

    def test_budget_and_history(self) -> None:
        """One record per epoch with all that is promised, reported as it comes; never more steps than given."""
        done = self.case()
        history = done.pruned.history
        assert done.pruned.steps <= self.steps
        assert history[-1]["step"] == done.pruned.steps
        for record in history:
            assert record.keys() >= RECORD
            assert all(type(value) in (int, float) for value in record.values())
            assert 0 <= record["accuracy"] <= 1
        for counted in ("epoch", "step"):
            numbers = [record[counted] for record in history]
            assert numbers == sorted(set(numbers)), counted
        assert done.reports == list(history)
        assert all(isinstance(value, float) for value in done.pruned.extra.values())

    def test_same_seed_same_result(self) -> None:
        """The problem's generator is the only source of randomness."""
        first = self.case()
        torch.manual_seed(99)
        before = torch.random.get_rng_state()
        again = self.build().prune(self.problem())
        assert torch.equal(torch.random.get_rng_state(), before), "the global generator was used"
        assert again.history == first.pruned.history
        assert again.kept == first.pruned.kept
        assert_same_state(again.model, first.pruned.model)

    def test_architecture_round_trip(self) -> None:
        """The network can be described, and rebuilt from the description and its weights."""
        done = self.case()
        text = json.dumps(describe(done.dense, done.pruned.model))
        weights = done.pruned.model.state_dict()
        rebuilt = rebuild(type(self).network(), json.loads(text), weights, self.method.layers)
        assert_same_state(rebuilt, done.pruned.model)
        inputs = blobs(IMAGE, 40, seed=1, noise=0).inputs
        assert torch.equal(rebuilt(inputs), done.pruned.model(inputs))


class MethodItself(_Tested):
    """What a method must be, whatever the network."""

    def test_declarations_fit_the_space_and_the_fields(self) -> None:
        """What the class declares is there."""
        space = self.space()
        if self.method.flops_parameter is not None:
            bounds = space[self.method.flops_parameter].to_json()
            assert 0 < bounds["low"] < bounds["high"] <= 1
        assert self.method.rounds_widths == ("round_to" in self.method.model_fields)
        assert all(has_settings(layer) for layer in self.method.layers)
        assert all(space[fixed].default is not None for fixed in self.method.fixed_by_default)

    def test_presets_are_methods(self) -> None:
        """Every preset is a setting that the method takes."""
        for name in {"default", "paper", *self.method.presets}:
            settings = self.method.preset(name)
            space = self.space()
            of_space = {key: value for key, value in settings.items() if key in space}
            point = space.narrow(of_space, beyond=of_space.keys()).defaults()
            fields = self.method.from_point({**(point or {}), **settings}).model_dump()
            assert all(_lookup(fields, key) == value for key, value in settings.items()), name

    def test_widths_follow_from_damage_where_the_method_says_so(self) -> None:
        """With ``by_damage`` units are kept where measured damage says; other layers than plain ones meet the FLOPs."""
        if not self.method.by_damage:
            return
        assert self.method.flops_parameter is not None, "damage gives out a share of the FLOPs"
        problem = self.problem()
        pruned = self.build(self.method.by_damage).prune(problem)
        if describe(problem.model, pruned.model)["replaced"]:
            assert count(pruned.model, problem.example).flops <= self.share * problem.cost.dense
            return
        wanted = keep_by_damage(problem, ByDamage(flops=self.share), problem.groups, 1)
        assert {name: len(units) for name, units in pruned.kept.items()} == wanted

    def test_preview_is_exact_where_the_method_says_so(self) -> None:
        """With ``exact_with`` the cost is known before training, wherever a share of the FLOPs is asked for."""
        if not self.method.exact_with:
            return
        asked = self.method.flops_parameter
        space, rng = self.space().narrow(self.method.exact_with), Random(1)
        points = [space.sample(rng) for _ in range(60)]
        points = [point for point in points if asked in point and self.method.exact_with.keys() <= point.keys()][:4]
        assert points, "where sparsity is asked for, these settings apply"
        for point in points:
            method, problem = self.method.from_point({**point, **self.settings}), self.problem()
            try:
                seen = method.preview(problem)
            except InputError:
                assert _refusal(lambda: method.prune(problem)) is not None, "what has no preview is refused"  # noqa: B023
                continue
            left = count(method.prune(problem).model, problem.example)
            assert seen is not None and (seen.flops, seen.params) == (left.flops, left.params)

    def test_residual_blocks_go_where_the_method_says_so(self) -> None:
        """A block that is named goes as a whole, with its groups; where none can go, asking for it is refused."""
        network = build_seeded(ResidualNetwork, trained=True)
        problem = replace(self.problem(known=False), model=network)
        point = self.method.space([group.layer for group in problem.groups]).defaults() or {}
        point = {name: value for name, value in point.items() if not name.startswith("sparsity.")}
        asked: dict[str, Value] = {"sparsity.mode": "layer", "sparsity.level": 0.75, "sparsity.without[block1]": True}

        def prune() -> Pruned:
            return self.method.from_point({**point, **asked}).prune(problem)

        if not self.method.removes_blocks:
            assert _refusal(prune) is not None, "blocks cannot go"
            return
        pruned = prune()
        gone = {group for group in pruned.kept if group.startswith("block1.")}
        assert gone and not any(len(pruned.kept[group]) for group in gone)
        assert all(len(pruned.kept[group]) for group in pruned.kept if group not in gone)
        assert not any(isinstance(module, nn.Conv2d) for module in pruned.model.get_submodule("block1").modules())

    def test_what_is_known_of_the_network_changes_nothing(self) -> None:
        """Groups and costs that are handed on are those that the problem would find."""
        first, again = self.case(), self.build().prune(self.problem(known=False))
        assert (again.history, again.kept) == (first.pruned.history, first.pruned.kept)
        assert_same_state(again.model, first.pruned.model)

    def test_widths_are_rounded(self) -> None:
        """A method that rounds does so for whatever it keeps."""
        if self.method.rounds_widths:
            method = self.build().model_copy(update={"round_to": 4})
            assert all(len(units) % 4 == 0 for units in method.prune(self.problem()).kept.values())

    def test_seed_matters(self) -> None:
        """Another seed trains on other batches."""
        assert self.case().pruned.history != self.case(seed=1).pruned.history

    def test_ignored_modules_keep_their_channels(self) -> None:
        """What the problem says is to be ignored is not cut."""
        problem = self.problem()
        name = self.groups()[0].name
        pruned = self.build().prune(replace(problem, ignored=frozenset({name})))
        assert name not in pruned.kept
        before, after = (_widths(model, [name], torch.zeros(1, *IMAGE)) for model in (problem.model, pruned.model))
        assert before[name, "out"] == after[name, "out"]

    def test_other_ways_of_training(self) -> None:
        """AdamW, distillation, bfloat16, channels last, pieces: whatever the recipe says."""
        recipe = Recipe(
            optimizer="adamw", lr=3e-3, batch_size=32, accumulate=2, distill=0.5, bf16=True, channels_last=True
        )
        problem = replace(self.problem(), recipe=recipe)
        pruned = self.build().prune(problem)
        assert_same_state(problem.model, self.dense())
        assert all(p.is_contiguous() for p in pruned.model.parameters())

    def test_tiny_budgets_are_used_or_refused_in_words(self) -> None:
        """With no step or one, the method works or says that it needs more steps."""
        for steps in (0, 1):
            try:
                pruned = self.build().prune(self.problem(steps=steps))
            except InputError as error:
                assert "steps" in str(error)
            else:
                assert pruned.steps <= steps

    def test_a_trial_paused_at_every_rung_gives_the_same_bit_for_bit(self) -> None:
        """Replaying with what was kept at the rungs changes nothing."""
        whole, states, rungs = self.case(), _InMemory(), list[Rung]()
        while (done := self._run_to_next_rung(states, rungs)) is None:
            assert len(rungs) <= len(whole.pruned.history), "every run gets one rung further"
        pruned, reports = done
        records = [dict(rung.record) for rung in rungs]
        assert records == list(whole.pruned.history) == list(pruned.history) == reports, "train by problem.session"
        assert (pruned.kept, pruned.extra) == (whole.pruned.kept, whole.pruned.extra)
        assert_same_state(pruned.model, whole.pruned.model)
        comparable = [rung.comparable for rung in rungs]
        assert comparable == sorted(comparable), "once cut, a network stays cut"

    def _run_to_next_rung(self, states: _InMemory, rungs: list[Rung]) -> tuple[Pruned, list[Record]] | None:
        reports: list[Record] = []
        session = Saved(states, lambda rung: "pause")
        try:
            return self.build().prune(replace(self.problem(), session=session, report=reports.append)), reports
        except Paused as paused:
            rungs.append(paused.rung)
            return None

    def test_methods_are_data(self) -> None:
        """Frozen, equal to what is pickled or written as JSON, every point of the space a method."""
        assert self.method.title and self.method.source
        space, rng = self.space(), Random(0)
        for _ in range(20):
            point = space.sample(rng)
            method = self.method.from_point(point)
            assert pickle.loads(pickle.dumps(method)) == method
            assert self.method.model_validate_json(method.model_dump_json()) == method
            fields = method.model_dump()
            for key, value in point.items():
                assert _lookup(fields, key) == value
        for field in list(self.method.model_fields)[:1]:
            assert _refusal(lambda: setattr(method, field, None)) is not None, "a method is frozen"  # noqa: B023

    def test_bad_points_are_explained(self) -> None:
        """A name that does not exist, and a share of the FLOPs that cannot be, are refused in one sentence."""
        point = self.space().defaults()
        assert point is not None
        assert "unknown" in (_refusal(lambda: self.method.from_point({**point, "sparsityy": 1})) or "")
        if (asked := self.method.flops_parameter) is not None:
            assert "is not allowed" in (_refusal(lambda: self.method.from_point({**point, asked: 1.5})) or "")


class MethodContract(MethodOnNetwork, MethodItself):
    """All that a method must do, on one network; see the module for how it is used."""


def assert_same_state(one: nn.Module, other: nn.Module) -> None:
    """Check that two networks hold the same numbers, bit for bit.

    Args:
        one: A network.
        other: Another.
    """
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for key in mine:
        assert torch.equal(mine[key], theirs[key]), key


class _InMemory(dict[str, bytes]):
    """States of a trial that survive its interruptions."""

    def put(self, name: str, state: bytes) -> None:
        self[name] = state


def _widths(model: nn.Module, names: Collection[str], example: Tensor) -> dict[tuple[str, str], int]:
    """Channels that go into modules and come out, as they run: also of layers that were replaced."""
    found: dict[tuple[str, str], int] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            found[name, "in"], found[name, "out"] = inputs[0].shape[1], output.shape[1]

        return hook

    handles = [model.get_submodule(name).register_forward_hook(note(name)) for name in names]
    model(example)
    for handle in handles:
        handle.remove()
    return found


def _lookup(fields: object, key: str) -> object:
    node: object = nest_names({key: 0})
    while isinstance(node, dict):
        assert isinstance(fields, dict)
        (part, node), *_ = node.items()
        fields = fields[part]
    return fields


def _refusal(act: Callable[[], object]) -> str | None:
    """Return what a refused act says; ``None`` if it is not refused."""
    try:
        act()
    except ValueError as error:
        return str(error)
    return None
