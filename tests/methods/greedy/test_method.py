"""Greedy forward selection as a method: cutting is masking, stop rules, rounds, sharing of the analysis."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import Bottleneck

from methods.contract.analyses import Settings, Tensors
from methods.contract.method import Problem, Pruned
from methods.greedy.forward_selection import RULES, mask_after
from methods.greedy.layerwise import Accurate, Partial, Width, select_units
from methods.greedy.masked_network import WholeNetwork
from methods.greedy.method import Greedy
from methods.greedy.orderings import order_layers
from methods.greedy.readers import fold
from methods.greedy.selection import OBJECTIVES, Search, layers_of
from methods.network.channels import ChannelGroup, channel_groups, mask_units
from methods.network.cost import CostModel, count
from methods.training.trainer import Recipe, Trainer
from spaces import InputError, LayerGroup
from tests.methods import cases

EXAMPLE = torch.zeros(1, *cases.IMAGE)
TRAIN = cases.blobs(cases.IMAGE, 96)
VALIDATION = cases.blobs(cases.IMAGE, 40, seed=1, noise=0)
HALF: dict[str, Any] = {"sparsity.mode": "uniform", "sparsity.ratio": 0.5}


def bottleneck_net() -> nn.Module:
    block = Bottleneck(8, 4, 2, nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16)))
    return nn.Sequential(
        cases.conv_bn(3, 8), block, Bottleneck(16, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    )


def make_inverted_net() -> nn.Module:
    """Inverted residuals of torchvision: stride 2 and 1, without and with a shortcut; ReLU6."""
    blocks = (InvertedResidual(8, 12, 2, 2), InvertedResidual(12, 12, 1, 2), InvertedResidual(12, 10, 1, 2))
    return nn.Sequential(cases.conv_bn(3, 8), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 4))


NETS = cases.NETS | {"bottleneck": bottleneck_net, "inverted": make_inverted_net}


@cache
def train_network(name: str) -> nn.Module:
    """A network that has learned something."""
    model = cases.seeded(NETS[name])
    Trainer(model, TRAIN, Recipe(lr=0.05, batch_size=32), 24, 0).run()
    return model


def problem_for(name: str, steps: int = 12, seed: int = 0) -> Problem:
    return Problem(
        model=train_network(name),
        example=EXAMPLE,
        train=TRAIN,
        validation=VALIDATION,
        recipe=Recipe(lr=0.05, batch_size=32, recalibrate=2),
        steps=steps,
        generator=torch.Generator().manual_seed(seed),
        known=cases.find_anatomy(NETS[name]),
    )


def greedy(**values: Any) -> Greedy:
    """The authors' steps, few candidates and images, for speed; half of every group unless something else is asked."""
    authors: dict[str, Any] = {"step_rule": "uniform_norepeat", "objective": "global_ce"}
    point = authors | {"num_candidates": 6, "sel_batch": 32} | values
    if point.get("stop_rule") != "tol":
        point = HALF | point
    return Greedy.from_point({name.replace("__", "."): value for name, value in point.items()})


def prune(name: str, steps: int = 12, seed: int = 0, **values: Any) -> Pruned:
    return greedy(**values).prune(problem_for(name, steps, seed))


def groups_of(model: nn.Module) -> list[ChannelGroup]:
    return channel_groups(model, EXAMPLE.to(next(model.parameters()).dtype))


def sizes(pruned: Pruned) -> dict[str, int]:
    return {name: len(units) for name, units in pruned.kept.items()}


# --- oracles --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_oracle_02_all_units_are_the_original_network(name: str) -> None:
    for dtype, close in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        model = cases.seeded(NETS[name], trained=True).to(dtype)
        inputs = VALIDATION.inputs.to(dtype)
        for group in groups_of(model):
            order = torch.randperm(group.channels, generator=torch.Generator().manual_seed(0)).tolist()
            etas = [1 / n for n in range(1, len(order) + 1)]
            network = WholeNetwork(model, group)
            network.load(inputs)
            for rule in ("uniform_norepeat", "norepeat_noscale"):
                mask = mask_after(order, etas, group.channels, RULES[rule])
                torch.testing.assert_close(network.outputs(mask[None])[0], model(inputs), rtol=0, atol=close)


@pytest.mark.parametrize("name", NETS)
def test_oracle_03_cut_is_masked(name: str) -> None:
    for dtype, close in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        model = cases.seeded(NETS[name], trained=True).to(dtype)
        inputs = VALIDATION.inputs.to(dtype)
        groups = groups_of(model)
        masks: dict[str, Tensor] = {}
        silent = copy.deepcopy(model)
        for position, group in enumerate(groups):
            mask = torch.rand(group.channels, generator=torch.Generator().manual_seed(position), dtype=torch.float64)
            mask = torch.where(mask > 0.4, 2 * mask, 0)
            mask[position % group.channels] = 1.7
            masks[group.name] = mask
            # One layer alone: hooks in the whole network.
            network = WholeNetwork(model, group)
            network.load(inputs)
            cut_one = Partial.from_model(model, groups).fold_and_cut({group.name: mask}).model
            expected = network.outputs(mask[None])[0]
            torch.testing.assert_close(cut_one(inputs), expected, rtol=1e-6, atol=close)
            fold(silent, group, mask)
        # All of them: masked weights.
        kept = {key: mask.nonzero().flatten().tolist() for key, mask in masks.items()}
        partial = Partial.from_model(model, groups).fold_and_cut(masks)
        expected = mask_units(silent, groups, kept)(inputs)
        torch.testing.assert_close(partial.model(inputs), expected, rtol=1e-6, atol=close)
        assert partial.kept == kept
        # Layer by layer gives the same as at once.
        one_by_one = Partial.from_model(model, groups)
        for key, mask in reversed(masks.items()):
            one_by_one = one_by_one.fold_and_cut({key: mask})
        torch.testing.assert_close(one_by_one.model(inputs), partial.model(inputs), rtol=1e-6, atol=close)
        assert one_by_one.kept == kept


@pytest.mark.parametrize("rule", ["uniform_norepeat", "uniform_repeat"])
def test_oracle_13_stop_rule_of_one_layer(rule: str) -> None:
    model = train_network("vgg")
    search = Search(rule=rule, candidates=6, batch=32)  # type: ignore[arg-type]
    widths = []
    for tolerance in (0.0, 0.02, 0.1, 0.4, 0.9):
        (layer,) = layers_of(model, [groups_of(model)[1]], TRAIN, search, seed=0)
        whole = float(layer.qualities(torch.ones(1, 12)))
        enough = Accurate((1 - tolerance) * whole, (1 - max(0.05, tolerance)) * whole)
        mask = select_units(layer, ("global_ce",), search, enough, round_to=1)
        widths.append(12 if mask is None else int((mask != 0).sum()))
        if mask is not None:
            assert float(layer.qualities(mask[None])) >= (1 - tolerance) * whole
    assert whole > 0.7
    assert widths == sorted(widths, reverse=True) and widths[-1] == 1 and widths[0] > 1


def test_the_analysis_has_a_quality_for_every_width() -> None:
    """Of the network with the first units alone, up to the whole layer, by which the tolerance is measured."""
    problem = problem_for("vgg")
    groups, search = groups_of(problem.model), Search("uniform_norepeat", candidates=6, batch=32)
    found = order_layers(problem, problem.model, groups, "global_ce", search, 0, "dense")
    for layer in layers_of(problem.model, groups, problem.train, search, 0, problem.task):
        name, units = layer.group.name, layer.group.channels
        assert found[name].qualities.shape == (units,)
        for width in (1, units // 2, units):
            mask = found[name].ordering.mask(width)
            assert int((mask > 0).sum()) == width
            assert found[name].qualities[width - 1] == pytest.approx(float(layer.qualities(mask[None])))


@pytest.mark.parametrize("whole", ["0.0", "2.0", "4.0"])
def test_a_layer_that_stays_whole_stops_no_other(whole: str) -> None:
    units = {group.name: group.channels for group in groups_of(train_network("vgg"))}
    ratios: dict[str, Any] = {f"sparsity.layers[{name}]": 0.0 if name == whole else 0.5 for name in units}
    mode: dict[str, Any] = {"sparsity.mode": "layer", "procedure": "sequential"}
    pruned = Greedy.from_point(mode | ratios | {"num_candidates": 6, "sel_batch": 32}).prune(problem_for("vgg"))
    assert sizes(pruned) == {name: size if name == whole else size // 2 for name, size in units.items()}


@pytest.mark.parametrize("procedure", ["independent", "sequential"])
def test_oracle_13_tolerance_decides_the_widths(procedure: str) -> None:
    found = [
        sum(sizes(prune("vgg", stop_rule="tol", top1_tol=tol, procedure=procedure)).values()) for tol in (0, 0.1, 1)
    ]
    assert found[0] > found[2] == 3
    if procedure == "independent":  # layers do not depend on each other
        assert found == sorted(found, reverse=True)
    scales: dict[str, Any] = {"tol_scale[8x8]": 10.0, "tol_scale[2x2]": 1e-9}
    scaled = prune("vgg", stop_rule="tol", top1_tol=0.1, procedure=procedure, **scales)
    assert sizes(scaled)["0.0"] == 1 < sizes(scaled)["4.0"]


def test_oracle_14_rounds_select_among_survivors() -> None:
    whole = prune("projection", procedure="sequential", rounds=2, mid_ft_epochs=1.0, steps=40)
    assert sizes(whole) == {"0.0": 4, "1.conv1": 4, "2.conv1": 8, "2.conv2": 8}
    partial = Partial.from_model(train_network("vgg"), groups_of(train_network("vgg")))
    first = partial.fold_and_cut({"2.0": torch.tensor([0.0, 2.0] * 6)})
    second = first.fold_and_cut({"2.0": torch.tensor([0.0, 1.5] * 3)})
    assert first.kept["2.0"] == [1, 3, 5, 7, 9, 11] and second.kept["2.0"] == [3, 7, 11]
    assert second.masks["2.0"].tolist() == [3.0, 3.0, 3.0]


def test_oracle_14_one_set_for_a_whole_stage_and_macs_are_the_formula() -> None:
    """What an addition ties together is the union of what its blocks keep: here one set, chosen once."""
    pruned = prune("inverted")
    groups = groups_of(train_network("inverted"))
    kept = sizes(pruned)
    stage = next(group for group in groups if any(m.module == "2.conv.2" and m.side == "out" for m in group.members))
    assert {m.module for m in stage.members if m.side == "out"} >= {"1.conv.2", "2.conv.2"}
    model: Any = pruned.model
    assert model[1].conv[2].out_channels == model[2].conv[2].out_channels == kept[stage.name]
    assert model[2].conv[0][0].in_channels == model[3].conv[0][0].in_channels == kept[stage.name]
    assert CostModel(train_network("inverted"), EXAMPLE, groups).flops(kept) == count(model, EXAMPLE).flops
    inner = prune("inverted", prune_outputs=False)
    assert sizes(inner)[stage.name] == stage.channels
    assert all(sizes(inner)[g.name] == 12 for g in groups if g.channels == 24)


# --- what the switches do -----------------------------------------------------------------------------------------


@dataclass
class Remembering:
    """Keeps analyses by their settings."""

    asked: list[Settings] = field(default_factory=list)
    known: dict[str, Tensors] = field(default_factory=dict)

    def get(self, name: str, settings: Settings, compute: Callable[[], Tensors]) -> Tensors:
        key = repr((name, sorted(settings.items())))
        if key not in self.known:
            self.asked.append(settings)
            self.known[key] = compute()
        return self.known[key]


def test_one_analysis_serves_all_trials() -> None:
    shared = Remembering()
    found = []
    for seed, ratio in enumerate((0.25, 0.5, 0.75)):
        problem = replace(problem_for("vgg", seed=seed), analyses=shared)
        found.append(greedy(sparsity__ratio=ratio).prune(problem))
    assert len(shared.asked) == 1
    for wide, narrow in ((0, 1), (1, 2)):
        for name, units in found[narrow].kept.items():
            assert set(units) < set(found[wide].kept[name])
    by_tolerance = greedy(stop_rule="tol").prune(replace(problem_for("vgg", seed=9), analyses=shared))
    assert len(shared.asked) == 1 and by_tolerance.kept
    greedy(objective="best_of_both").prune(replace(problem_for("vgg"), analyses=shared))
    assert [settings["judge"] for settings in shared.asked] == ["global_ce", "local_gram"]
    fresh = prune("vgg", seed=1)
    assert fresh.kept == found[1].kept  # what was read is what would have been computed


def test_stored_analyses_are_read_back(tmp_path: Any) -> None:
    from search.store.analyses import StoredAnalyses

    stored = StoredAnalyses(tmp_path, "identity")
    runs = [greedy().prune(replace(problem_for("zero_pad"), analyses=stored)) for _ in range(2)]
    assert runs[0].kept == runs[1].kept and runs[0].history == runs[1].history
    assert len(list(tmp_path.glob("greedy_selection-*.safetensors"))) == 1


def test_analyses_tell_how_far_they_are() -> None:
    told: list[tuple[str, int, int]] = []

    def note_progress(what: str, done: int, total: int) -> None:
        told.append((what, done, total))

    greedy().prune(replace(problem_for("vgg"), progress=note_progress))
    assert [done for _, done, _ in told] == list(range(36)) and {total for *_, total in told} == {36}
    layers = list(dict.fromkeys(what for what, *_ in told))
    assert layers == [
        f"channels of {name} (layer {i} of 3), by global_ce" for i, name in enumerate(("0.0", "2.0", "4.0"), 1)
    ]
    told.clear()
    greedy(procedure="sequential").prune(replace(problem_for("vgg"), progress=note_progress))
    assert [(done, total) for _, done, total in told] == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("procedure", "objective"),
    [("independent", name) for name in OBJECTIVES]
    + [("sequential", "global_taylor_screen"), ("sequential", "best_of_both")],
)
def test_every_objective_meets_the_count(procedure: str, objective: str) -> None:
    pruned = prune("vgg", procedure=procedure, objective=objective)
    assert sizes(pruned) == {"0.0": 4, "2.0": 6, "4.0": 8}
    assert 0 <= pruned.extra["accuracy_cut"] <= 1 and pruned.extra["layers_whole"] == 0
    assert not any(name.startswith(("whole_network", "unreadable")) for name in pruned.extra)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("procedure", ["independent", "sequential"])
def test_every_rule_meets_the_count(procedure: str, rule: str) -> None:
    pruned = prune("vgg", procedure=procedure, step_rule=rule, objective="local_gram")
    assert sizes(pruned) == {"0.0": 4, "2.0": 6, "4.0": 8}


def make_planted() -> nn.Module:
    """Nobody reads six of twelve channels."""
    model: Any = copy.deepcopy(train_network("vgg"))
    with torch.no_grad():
        model[4][0].weight[:, ::2] = 0
    return model  # type: ignore[no-any-return]


@pytest.mark.parametrize("procedure", ["independent", "sequential"])
@pytest.mark.parametrize("objective", ["global_ce", "local_gram"])
def test_useless_channels_are_left_out(procedure: str, objective: str) -> None:
    """Unscaled: with the factor ``D / n`` a channel that adds nothing still makes the others weaker."""
    problem = replace(problem_for("vgg"), model=make_planted())
    method = greedy(
        objective=objective,
        procedure=procedure,
        step_rule="norepeat_noscale",
        num_candidates=50,
        sel_batch=96,
        mid_ft_epochs=0.0,
    )
    useful = [unit for unit in method.prune(problem).kept["2.0"] if unit % 2]
    assert len(useful) >= 5


def test_sequential_tunes_within_the_budget_and_says_so() -> None:
    reports: list[Mapping[str, float]] = []
    problem = replace(problem_for("projection", steps=30), report=reports.append)
    pruned = greedy(procedure="sequential", mid_ft_epochs=1.0).prune(problem)
    steps = [record["step"] for record in pruned.history]
    assert steps == [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]
    assert list(pruned.history) == reports
    assert [r["lr"] for r in pruned.history[:4]] == [2.5e-3] * 4
    tight = prune("projection", steps=4, procedure="sequential", mid_ft_epochs=1.0)
    assert [record["step"] for record in tight.history] == [3, 4]  # half of 4 steps is less than one per layer


@pytest.mark.parametrize("order", ["forward", "backward", "by_macs"])
def test_layer_order(order: str) -> None:
    pruned = prune("vgg", procedure="sequential", layer_order=order, mid_ft_epochs=0.0)
    assert sizes(pruned) == {"0.0": 4, "2.0": 6, "4.0": 8}
    model = train_network("depthwise")
    groups = groups_of(model)
    names = greedy(procedure="sequential", layer_order=order)._order_groups(groups, CostModel(model, EXAMPLE, groups))
    forward = ["0.0", "1.body.0.0", "2.body.0.0", "2.body.2"]
    by_macs = ["0.0", "2.body.0.0", "1.body.0.0", "2.body.2"]
    assert names == {"forward": forward, "backward": forward[::-1], "by_macs": by_macs}[order]


def test_scales_are_kept_or_not_but_always_folded() -> None:
    kept, folded = (prune("vgg", keep_scale=keep) for keep in (True, False))
    assert kept.extra == folded.extra and kept.kept == folded.kept
    assert kept.model.state_dict().keys() == folded.model.state_dict().keys()
    assert kept.history != folded.history
    plain = [prune("vgg", keep_scale=keep, step_rule="norepeat_noscale").history for keep in (True, False)]
    assert plain[0] == plain[1]
    uncut = [prune("vgg", keep_scale=keep, sparsity__ratio=0.0).history for keep in (True, False)]
    assert uncut[0] == uncut[1]


def test_small_network_may_begin_anew() -> None:
    inherited, anew = (prune("vgg", init_after_prune=init, steps=0) for init in ("inherit", "reinit"))
    assert inherited.kept == anew.kept
    assert inherited.extra["accuracy_cut"] > anew.extra["accuracy_cut"] + 0.1
    weights = [dict(pruned.model.named_parameters())["0.0.weight"] for pruned in (inherited, anew)]
    assert weights[0].shape == weights[1].shape and not torch.equal(*weights)


@pytest.mark.parametrize("procedure", ["independent", "sequential"])
def test_networks_with_random_weights(procedure: str) -> None:
    pruned = prune("vgg", select_from="random", procedure=procedure, steps=0)
    assert sizes(pruned) == {"0.0": 4, "2.0": 6, "4.0": 8}
    first = dict(pruned.model.named_parameters())["0.0.weight"]
    dense = dict(train_network("vgg").named_parameters())["0.0.weight"]
    assert not any(torch.equal(row, other) for row in first for other in dense)


def test_widths_are_rounded_up_by_tolerance() -> None:
    for procedure in ("independent", "sequential"):
        pruned = prune("vgg", stop_rule="tol", top1_tol=0.5, round_to=4, procedure=procedure)
        assert all(width % 4 == 0 for width in sizes(pruned).values())


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"sparsity.ratio": 1.0}, "ratio = 1.0 is not allowed"),
        ({"stop_rule": "tol"}, "sparsity goes with stop_rule 'count'"),
        ({"rounds": 2}, "rounds = 2 needs procedure 'sequential'"),
        ({"step_rule": "uniform"}, "step_rule = 'uniform' is not allowed"),
        ({"screen_top": 0.0}, "screen_top = 0.0 is not allowed"),
    ],
)
def test_points_that_make_no_sense(point: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Greedy.from_point(HALF | point)


def test_count_needs_sparsity() -> None:
    with pytest.raises(InputError, match="sparsity goes with stop_rule 'count', got None"):
        Greedy.from_point({})


def test_unknown_stage() -> None:
    with pytest.raises(InputError, match="unknown stage in tol_scale: '8x9'; did you mean '8x8'"):
        greedy(stop_rule="tol", **{"tol_scale[8x9]": 2.0}).prune(problem_for("vgg"))


def make_tied() -> nn.Module:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(192, 8), nn.Linear(8, 8), nn.Linear(8, cases.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.a(x.flatten(1)))
            return self.out(y + self.b(y))  # type: ignore[no-any-return]

    return Tied()


def test_nothing_to_prune_without_outputs() -> None:
    problem = replace(problem_for("vgg"), model=cases.seeded(make_tied))
    with pytest.raises(InputError, match="nothing to prune in Tied with prune_outputs = False.*True prunes them"):
        greedy(prune_outputs=False).prune(problem)
    assert greedy().prune(problem).kept


def test_networks_that_are_not_finite() -> None:
    broken = copy.deepcopy(train_network("vgg"))
    with torch.no_grad():
        next(iter(broken.parameters())).fill_(float("nan"))
    for procedure in ("independent", "sequential"):
        with pytest.raises(InputError, match="layer '0.0': no candidate .* loss.*; the outputs of layer '0.0' "):
            greedy(procedure=procedure).prune(replace(problem_for("vgg"), model=broken))


class Narrowing(nn.Module):
    """Ends in a convolution over one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.line, self.head = nn.Conv1d(6, 5, 1), nn.Linear(5, cases.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu()).relu()
        answer: Tensor = self.head(self.line(x.flatten(2)).relu().mean(2))
        return answer


@pytest.mark.parametrize("procedure", ["independent", "sequential"])
@pytest.mark.parametrize("objective", ["local_gram", "best_of_both", "global_ce"])
def test_layers_that_an_objective_does_not_know_are_left_dense_and_named(procedure: str, objective: str) -> None:
    problem = replace(problem_for("vgg"), model=cases.seeded(Narrowing))
    pruned = greedy(procedure=procedure, objective=objective).prune(problem)
    left = {name for name in pruned.extra if name.startswith("unreadable")}
    assert left == ({"unreadable[second]"} if objective == "local_gram" else set())
    assert (len(pruned.kept["second"]) == 6) == bool(left) and len(pruned.kept["first"]) < 8


def test_what_cannot_work_is_said_before_anything_is_trained() -> None:
    problem = replace(problem_for("vgg"), model=cases.seeded(Narrowing))
    target: dict[str, Any] = {"sparsity.mode": "flops", "sparsity.flops": 0.1}
    Greedy.from_point(target | {"objective": "global_ce"}).check(problem)
    with pytest.raises(InputError, match="flops = 0.1 cannot be reached"):  # a layer is left whole
        Greedy.from_point(target | {"objective": "local_gram"}).check(problem)
    with pytest.raises(InputError, match="unknown stage in tol_scale"):
        greedy(stop_rule="tol", sparsity=None, tol_scale={"9x9": 2.0}).check(problem)
    with pytest.raises(InputError, match="nothing to prune in Tied"):
        greedy(prune_outputs=False).check(replace(problem, model=cases.seeded(make_tied)))


def test_named_ratios_may_name_what_stays() -> None:
    groups = groups_of(train_network("projection"))
    ratios = {f"sparsity.layers[{group.name}]": 0.5 for group in groups}
    method = Greedy.from_point({"sparsity.mode": "layer", "prune_outputs": False, "sel_batch": 32, **ratios})
    pruned = method.prune(problem_for("projection"))
    assert sizes(pruned) == {"0.0": 8, "1.conv1": 4, "2.conv1": 8, "2.conv2": 16}


def test_space_is_sparsity_or_tolerance() -> None:
    layers = [LayerGroup("a", 64, "8x8", 0.0), LayerGroup("b", 128, "4x4", 1.0)]
    space = Greedy.space(layers)
    point = space.defaults()
    assert point is not None and point["sparsity.mode"] == "flops" and "top1_tol" not in point
    other = space.narrow({"stop_rule": "tol", "procedure": "sequential"}).sample(0)
    assert {"top1_tol", "tol_scale[8x8]", "rounds", "mid_ft_lr"} <= other.keys()
    assert not any(name.startswith("sparsity") for name in other)
    assert Width(3)(None, None, 3) and not Width(3)(None, None, 2)  # type: ignore[arg-type]
