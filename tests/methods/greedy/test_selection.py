"""Greedy selection: step rules, objectives, and the fast ways to the same numbers, against slow obvious versions."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from methods.contract.classification import Classification
from methods.contract.task import Metric
from methods.curvature.covariances import collect_factors
from methods.greedy.forward_selection import (
    RULES,
    Ordering,
    Step,
    draw,
    forward_selection,
    grid_line_search,
    mask_after,
    prefix,
)
from methods.greedy.imitation import Imitation, SquaredDistance, gram_matrix
from methods.greedy.masked_network import Replay, WholeNetwork, build_masked_network, follow, step_masks
from methods.greedy.readers import Reader, find_unreadable, fold, readers, scales_kept
from methods.greedy.selection import (
    Layer,
    MaskedLoss,
    Screened,
    Search,
    batches_for,
    gram_of,
    layers_of,
    order,
    select,
    subset_of,
    taylor_scores,
)
from methods.network.channels import ChannelGroup, channel_groups, mask_units
from spaces import InputError
from tests.methods import cases

DOUBLE = torch.float64
DATA = cases.blobs(cases.IMAGE, 64, dtype=DOUBLE, noise=0)
EVERY_RULE = pytest.mark.parametrize("rule", RULES)


def net(name: str) -> nn.Module:
    return cases.seeded(cases.NETS[name], trained=True).double()


def groups_of(model: nn.Module) -> list[ChannelGroup]:
    return channel_groups(model, DATA.inputs[:1])


def layer_of(model: nn.Module, name: str, search: Search) -> Layer:
    (found,) = [x for x in layers_of(model, groups_of(model), DATA, search, seed=3) if x.group.name == name]
    return found


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def neurons(points: int, count: int, seed: int) -> SquaredDistance:
    """Random tanh neurons with output weights; the target is the mean of all (the whole network)."""
    g = generator(seed)
    x, w = torch.randn(points, 5, generator=g, dtype=DOUBLE), torch.randn(count, 5, generator=g, dtype=DOUBLE)
    phi = torch.randn(count, 1, generator=g, dtype=DOUBLE) * torch.tanh(w @ x.T) / math.sqrt(points)
    return SquaredDistance(phi, phi.mean(0))


def run(objective: SquaredDistance | Imitation, units: int, rule: str, steps: int) -> list[Step]:
    steps_made = forward_selection(lambda step: objective, units, RULES[rule], units, generator())
    return list(itertools.islice(steps_made, steps))


def slope(losses: list[float], first: int) -> float:
    n = torch.arange(first, len(losses) + 1, dtype=DOUBLE).log()
    y = torch.tensor(losses[first - 1 :], dtype=DOUBLE).log()
    return float(((n - n.mean()) * (y - y.mean())).sum() / (n - n.mean()).square().sum())


# --- oracles: steps and their theory ---------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["uniform_norepeat", "norepeat_noscale"])
@pytest.mark.parametrize("name", ["plain", "zero_pad", "grouped"])
def test_oracle_01_one_step_is_a_loop_over_all_candidates(name: str, rule: str) -> None:
    model = net(name)
    for group in groups_of(model):
        units = group.channels
        network = build_masked_network(model, follow(model), group, DATA.inputs)
        network.load(DATA.inputs)
        objective = MaskedLoss(network, DATA.labels)
        first = [units - 1, 1, 3]
        mask = mask_after(first, [1, 1 / 2, 1 / 3], units, RULES[rule])
        pool = torch.arange(units) if RULES[rule].repeats else torch.tensor([u for u in range(units) if u not in first])
        eta = torch.full((len(pool),), 1 / 4, dtype=DOUBLE)
        keep, add = (1 - eta, eta * units) if RULES[rule].scaled else (torch.ones_like(eta), torch.ones_like(eta))
        slow = [compute_loss_slowly(model, group, step_masks(mask, pool, keep, add)[i]) for i in range(len(pool))]
        fast = objective.losses(mask, pool, keep, add)
        torch.testing.assert_close(fast, torch.stack(slow), rtol=0, atol=1e-10)
        assert int(fast.argmin()) == int(torch.stack(slow).argmin())


def compute_loss_slowly(model: nn.Module, group: ChannelGroup, mask: Tensor) -> Tensor:
    """The loss under a mask, by multiplying the weights of what reads the layer, on a copy."""
    silent = (
        mask_units(copy.deepcopy(model), [group], {group.name: kept})
        if (kept := mask.nonzero().flatten().tolist())
        else None
    )
    assert silent is not None
    fold(silent, group, mask)
    with torch.no_grad():
        return F.cross_entropy(silent(DATA.inputs), DATA.labels)


@EVERY_RULE
def test_oracle_01_whole_runs_choose_as_loops_do(rule: str) -> None:
    """Several steps of every rule, on features, where the loop is three lines."""
    objective = neurons(7, 12, seed=1)
    chosen: list[int] = []
    for step in run(objective, 12, rule, 8) if rule != "linesearch" else []:
        losses = {}
        for c in range(12):
            if c in chosen and not RULES[rule].repeats:
                continue
            if RULES[rule].scaled:
                mean = torch.stack([objective.features[i] for i in [*chosen, c]]).mean(0)
            else:
                mean = torch.stack([objective.features[i] for i in [*chosen, c]]).sum(0) / 12
            losses[c] = float((mean - objective.target).square().sum())
        best = min(losses, key=lambda c: losses[c])
        assert step.unit == best and abs(step.loss - losses[best]) < 1e-10
        chosen.append(step.unit)


@pytest.mark.parametrize("seed", range(5))
def test_oracle_04_rate_in_the_hull(seed: int) -> None:
    objective = neurons(10, 200, seed)
    variance = float((objective.features - objective.target).square().sum(1).mean())
    for n, step in enumerate(run(objective, 200, "uniform_repeat", 150), 1):
        assert step.loss <= variance / n + 1e-9


def test_oracle_05_slopes_of_the_theory() -> None:
    with_repeats, without = [], []
    for seed in range(5):
        objective = neurons(5, 5000, seed)
        with_repeats.append(slope([s.loss for s in run(objective, 5000, "uniform_repeat", 200)], 10))
        if seed < 3:
            without.append(slope([s.loss for s in run(objective, 5000, "uniform_norepeat", 200)], 10))
    assert -2.3 <= sorted(with_repeats)[2] <= -1.7
    assert sorted(with_repeats)[2] < sorted(without)[1] < -0.9


@pytest.mark.parametrize("seed", range(3))
def test_oracle_06_random_networks_have_good_subnetworks(seed: int) -> None:
    objective = neurons(10, 200, seed)
    greedy = run(objective, 200, "uniform_repeat", 50)[-1].loss
    variance = float((objective.features - objective.target).square().sum(1).mean())
    expected = variance / 50 * (200 - 50) / (200 - 1)  # a random subset without replacement
    assert greedy <= 3e-2 * expected


def test_oracle_07_line_search_never_raises_the_loss() -> None:
    losses = [step.loss for step in run(neurons(10, 100, 0), 100, "linesearch", 60)]
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(losses))
    assert losses[-1] < 1e-6
    uniform = [step.loss for step in run(neurons(10, 100, 0), 100, "uniform_repeat", 60)]
    assert any(after > before for before, after in itertools.pairwise(uniform))  # not so by fixed steps


def test_oracle_07_line_search_on_a_network_with_a_fixed_batch() -> None:
    search = Search(rule="linesearch", batch=64, batches="fixed_per_layer", candidates=12)
    layer = layer_of(net("vgg"), "2.0", search)
    layer.network.load(DATA.inputs)
    objective = MaskedLoss(layer.network, DATA.labels)
    steps = list(itertools.islice(forward_selection(lambda s: objective, 12, RULES["linesearch"], 12, generator()), 12))
    assert len(steps) > 3
    assert all(after.loss <= before.loss + 1e-12 for before, after in itertools.pairwise(steps))
    for step, n in zip(steps, range(1, len(steps) + 1), strict=True):
        mask = mask_after([s.unit for s in steps[:n]], [s.eta for s in steps[:n]], 12, RULES["linesearch"])
        assert abs(float(mask.sum()) - 12) < 1e-9
        still = torch.zeros(1, dtype=torch.long)
        loss = objective.losses(mask, still, torch.ones(1, dtype=DOUBLE), torch.zeros(1, dtype=DOUBLE))
        assert abs(float(loss) - step.loss) < 1e-9


def test_oracle_08_brute_force_over_all_subsets() -> None:
    for seed in range(20):
        objective = neurons(4, 8, seed)
        greedy = run(objective, 8, "uniform_norepeat", 3)[-1].loss
        subsets = torch.tensor(list(itertools.combinations(range(8), 3)))
        losses = (objective.features[subsets].mean(1) - objective.target).square().sum(1)
        assert float(losses.min()) - 1e-12 <= greedy < float(losses.mean())


# --- oracles: objectives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "group"), [("plain", "0"), ("plain", "2"), ("grouped", "0.0"), ("depthwise", "1.body.0.0")]
)
def test_oracle_09_gram_from_covariance_is_gram_of_outputs(name: str, group: str) -> None:
    model = net(name)
    layer = layer_of(model, group, Search(batch=32))
    (reader,) = readers(model, layer.group)
    outputs = contributions(model, reader, layer.group.channels)
    factors = collect_factors(model, [(DATA.inputs, DATA.labels)], [reader.module], fisher=None, full=True)
    weight = model.get_submodule(reader.module).weight
    assert isinstance(weight, Tensor)
    gram = gram_matrix(weight, factors[reader.module].inputs, reader.index)
    expected = outputs @ outputs.T / len(DATA.labels)
    torch.testing.assert_close(gram, expected, rtol=1e-10, atol=1e-10)
    for rule in RULES:
        explicit = SquaredDistance(outputs * len(outputs), outputs.sum(0))
        by_gram, by_outputs = (run(o, len(outputs), rule, 8) for o in (Imitation(outputs @ outputs.T), explicit))
        assert [step.unit for step in by_gram] == [step.unit for step in by_outputs]
        power = float(outputs.sum(0).square().sum())
        for one, other in zip(by_gram, by_outputs, strict=True):
            assert abs(one.loss - other.loss) < 1e-10 * power and abs(one.eta - other.eta) < 1e-8


def contributions(model: nn.Module, reader: Reader, units: int) -> Tensor:
    """What each unit alone adds to the output of what reads it, ``[units, everything]``."""
    module = model.get_submodule(reader.module)
    inputs: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda m, args: inputs.append(args[0]))
    with torch.no_grad():
        model(DATA.inputs)
        handle.remove()
        rows = []
        for unit in range(units):
            alone = torch.zeros_like(inputs[0])
            alone[:, reader.index[unit]] = inputs[0][:, reader.index[unit]]
            rows.append((module(alone) - module(torch.zeros_like(alone))).flatten())
    return torch.stack(rows)


def test_oracle_09_imitation_losses_are_distances_of_masked_outputs() -> None:
    outputs = torch.randn(6, 40, generator=generator(), dtype=DOUBLE)
    mask = torch.rand(6, generator=generator(1), dtype=DOUBLE)
    candidates, keep, add = torch.tensor([0, 3, 3]), torch.tensor([0.5, 0.9, 1.0]), torch.tensor([3.0, 0.1, 0.0])
    found = Imitation(outputs @ outputs.T).losses(mask, candidates, keep.double(), add.double())
    masks = step_masks(mask, candidates, keep.double(), add.double())
    expected = (masks @ outputs - outputs.sum(0)).square().sum(1)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["plain", "vgg", "projection", "linear"])
def test_oracle_10_taylor_scores_are_derivatives(name: str) -> None:
    model = net(name)
    for group in groups_of(model):
        network = build_masked_network(model, follow(model), group, DATA.inputs)
        network.load(DATA.inputs)
        objective, units = MaskedLoss(network, DATA.labels), group.channels
        mask = mask_after([0, 2, 5], [1, 1 / 2, 1 / 3], units, RULES["uniform_repeat"])
        candidates = torch.arange(units)
        h = torch.full((units,), 1e-7, dtype=DOUBLE)
        scores = taylor_scores(objective.slopes(mask), mask, candidates, 1 - h, h * units) / h
        up, down = (objective.losses(mask, candidates, 1 - s * h, s * h * units) for s in (1, -1))
        torch.testing.assert_close(scores, (up - down) / (2 * h), rtol=1e-5, atol=1e-6)


def test_screening_evaluates_the_most_promising_only() -> None:
    layer = layer_of(net("vgg"), "4.0", Search())
    layer.network.load(DATA.inputs)
    exact = MaskedLoss(layer.network, DATA.labels)
    mask = mask_after([0, 3], [1, 1 / 2], 16, RULES["uniform_repeat"])
    eta = torch.full((16,), 1 / 3, dtype=DOUBLE)
    step = (mask, torch.arange(16), 1 - eta, eta * 16)
    losses, screened = exact.losses(*step), Screened(exact, 0.25).losses(*step)
    evaluated = screened.isfinite()
    assert int(evaluated.sum()) == 4
    torch.testing.assert_close(screened[evaluated], losses[evaluated])
    scores = taylor_scores(exact.slopes(mask), *step)
    assert set(scores.argsort()[:4].tolist()) == set(evaluated.nonzero().flatten().tolist())
    _, etas = Screened(exact, 0.25).line_search(mask, torch.arange(16), 1 / 3)
    assert int((etas > 0).sum()) <= 4


# --- oracles: the fast ways -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases.NETS)
def test_oracle_11_replay_is_the_whole_network(name: str) -> None:
    for dtype, close in ((DOUBLE, 1e-12), (torch.float32, 1e-5)):
        model = net(name).to(dtype)
        inputs = DATA.inputs[:9].to(dtype)
        for group in channel_groups(model, inputs[:1]):
            replay, whole = build_masked_network(model, follow(model), group, inputs), WholeNetwork(model, group)
            assert isinstance(replay, Replay)
            mask = torch.rand(group.channels, generator=generator(), dtype=DOUBLE) + 0.2
            mask[:2] = 0
            candidates = torch.tensor([1, 0, group.channels - 1, 1])
            keep, add = torch.rand(2, 4, generator=generator(1), dtype=DOUBLE)
            replay.load(inputs)
            whole.load(inputs)
            masks = step_masks(mask, candidates, keep, add)
            with torch.no_grad():
                expected = torch.stack([whole.outputs(one[None])[0] for one in masks])
                scale = float(expected.abs().max())
                for found in (
                    replay.outputs(masks),
                    torch.cat(list(replay.run_candidates(mask, candidates, keep, add, 3))),
                    whole.outputs(masks),
                ):
                    torch.testing.assert_close(found, expected, rtol=0, atol=close * max(1, scale))


@pytest.mark.parametrize("build", [
    lambda: nn.Conv2d(8, 4, 3, padding=1, padding_mode="circular"),
    lambda: nn.Conv2d(8, 4, 3, stride=2, dilation=2, bias=False),
    lambda: nn.Conv2d(8, 4, 3, padding="same"),
])  # fmt: skip
def test_oracle_11_rank_one_updates_of_other_convolutions(build: Callable[[], nn.Module]) -> None:
    def make_small() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.Tanh(), build(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)
        )

    model = cases.seeded(make_small).double()
    group = groups_of(model)[0]
    replay = Replay(graph(model), group)
    whole = WholeNetwork(model, group)
    step = (torch.rand(8, generator=generator(), dtype=DOUBLE), torch.arange(8), torch.full((8,), 0.7), torch.ones(8))
    for network in (replay, whole):
        network.load(DATA.inputs)
    compare(replay, whole, *step)


def compare(replay: Replay, whole: WholeNetwork, mask: Tensor, candidates: Tensor, keep: Tensor, add: Tensor) -> None:
    found, expected = (
        torch.cat(list(network.run_candidates(mask, candidates, keep, add, at_once=3))) for network in (replay, whole)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def graph(model: nn.Module) -> torch.fx.GraphModule:
    found = follow(model)
    assert found is not None
    return found


class Concatenating(nn.Module):
    """Two branches side by side, the first activated in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1), nn.Conv2d(6, 5, 3, padding=1)
        self.relu, self.after, self.out = nn.ReLU(inplace=True), nn.Conv2d(9, 6, 3), nn.Linear(6, cases.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x = torch.cat([self.relu(self.left(x)), self.relu(self.right(x))], 1)
        x = self.relu(self.after(x)).mean((2, 3))
        return self.out(x.view(x.size(0), -1))  # type: ignore[no-any-return]


def test_oracle_11_readers_of_several_groups() -> None:
    model = cases.seeded(Concatenating).double()
    for group in groups_of(model):
        replay, whole = build_masked_network(model, follow(model), group, DATA.inputs), WholeNetwork(model, group)
        assert isinstance(replay, Replay)
        one = torch.ones(1, dtype=DOUBLE)
        step = (torch.linspace(0, 2, group.channels, dtype=DOUBLE), torch.tensor([1]), one / 2, one * 3)
        for network in (replay, whole):
            network.load(DATA.inputs)
        compare(replay, whole, *step)


@pytest.mark.parametrize("name", cases.NETS)
def test_oracle_12_kept_prefix_is_exact_and_nothing_moves(name: str) -> None:
    model = net(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for layer in layers_of(model, groups_of(model), DATA, Search(batch=32, candidates=4), seed=0):
        # What runs has its batch norms folded: to the bit it is that network, and up to rounding the model.
        network, whole = layer.network, graph(model)
        ones = torch.ones(1, layer.group.channels, dtype=DOUBLE)
        with torch.no_grad():
            for run in (network, build_masked_network(model, whole, layer.group, DATA.inputs)):
                run.load(DATA.inputs)
                assert torch.equal(run.outputs(ones)[0], whole(DATA.inputs))
            torch.testing.assert_close(whole(DATA.inputs), model(DATA.inputs), rtol=0, atol=1e-12)
        assert len(list(itertools.islice(select(layer, "global_ce", Search(batch=32, candidates=4)), 3))) == 3
        gram_of(layer)
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("batches", ["fresh_per_step", "fixed_per_layer", "fixed_global"])
def test_oracle_15_same_seed_same_order(batches: str) -> None:
    search = Search(batch=16, batches=batches, candidates=5)  # type: ignore[arg-type]
    runs = []
    for seed in (3, 3, 4):
        layers = layers_of(net("vgg"), groups_of(net("vgg")), cases.blobs(cases.IMAGE, 64, dtype=DOUBLE), search, seed)
        runs.append([order(layer, "global_ce", search).chosen.tolist() for layer in layers])
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("judge", ["global_ce", "global_taylor_screen", "local_gram"])
def test_oracle_15_networks_that_are_not_finite_are_an_error_that_names_the_layer(judge: str) -> None:
    model = net("vgg")
    bias = model.get_submodule("2.1").bias
    assert isinstance(bias, Tensor)
    with torch.no_grad():
        bias.fill_(math.nan)
    search = Search(batch=32)
    with pytest.raises(InputError, match=r"the outputs of layer '2.1' \(BatchNorm2d\) are not finite"):
        order(layer_of(model, "2.0", search), judge, search)  # type: ignore[arg-type]


# --- rules and orderings ------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.sampled_from(["uniform_repeat", "linesearch"]))
@settings(max_examples=40)
def test_masks_in_closed_form_are_repeated_steps(chosen: list[int], rule: str) -> None:
    etas = [1 / n for n in range(1, len(chosen) + 1)]
    mask = torch.zeros(6, dtype=DOUBLE)
    for unit, eta in zip(chosen, etas, strict=True):
        mask = (1 - eta) * mask
        mask[unit] += eta * 6
    torch.testing.assert_close(mask_after(chosen, etas, 6, RULES[rule]), mask)
    assert abs(float(mask.sum()) - 6) < 1e-9


@EVERY_RULE
@pytest.mark.parametrize("judge", ["global_ce", "local_gram"])
def test_every_width_is_a_prefix(rule: str, judge: str) -> None:
    search = Search(rule=rule, batch=32, candidates=6)  # type: ignore[arg-type]
    found = order(layer_of(net("vgg"), "2.0", search), judge, search)  # type: ignore[arg-type]
    assert sorted(found.keep_first(12)) == list(range(12))
    assert len(found.chosen) <= 24
    for width in range(1, 13):
        mask = found.mask(width)
        assert mask.nonzero().flatten().tolist() == found.keep_first(width)
        if RULES[rule].scaled:
            assert abs(float(mask.sum()) - 12) < 1e-9
        elif width < 12:
            assert set(mask.tolist()) == {0.0, 1.0}
        assert set(found.keep_first(width - 1)) < set(found.keep_first(width))
    assert torch.equal(found.mask(12), torch.ones(12, dtype=DOUBLE))


def test_prefixes_include_repeats() -> None:
    ordering = Ordering(torch.tensor([3, 3, 1, 3, 0]), torch.ones(5), 4, RULES["uniform_repeat"])
    assert [prefix(ordering.chosen, width) for width in (0, 1, 2, 3)] == [0, 2, 4, 5]
    assert ordering.mask(2).tolist() == [0, 1, 0, 3]


def test_line_search_on_a_grid_comes_near_the_exact_one() -> None:
    objective = neurons(6, 30, 2)
    mask = mask_after([4, 9], [1, 1 / 2], 30, RULES["linesearch"])
    exact, etas = objective.line_search(mask, torch.arange(30), 1 / 3)
    grid, on_grid = grid_line_search(objective, mask, torch.arange(30), 1 / 3)
    present = float((mask @ objective.features / 30 - objective.target).square().sum())
    assert float(exact.min()) - 1e-12 <= float(grid.min())
    assert present - float(grid.min()) > 0.9 * (present - float(exact.min()))
    assert bool((grid <= present + 1e-12).all()) and bool((etas >= 0).all()) and bool((on_grid <= 1).all())


def test_draws_are_distinct_and_ascending() -> None:
    pool = torch.tensor([2, 3, 5, 7, 11])
    drawn = draw(pool, 3, generator())
    assert (
        len(drawn) == 3 and drawn.tolist() == sorted(set(drawn.tolist())) and set(drawn.tolist()) <= set(pool.tolist())
    )
    assert draw(pool, 5, generator()) is pool


@pytest.mark.parametrize("rule", ["uniform_norepeat", "uniform_repeat", "linesearch"])
def test_one_of_each_pair_of_twins_is_the_whole_layer(rule: str) -> None:
    """Planted redundancy: six pairs of equal channels, orthogonal to each other, none of which is needed twice."""
    twins = torch.kron(torch.diag(torch.linspace(1, 1.2, 6, dtype=DOUBLE)), torch.ones(2, 2, dtype=DOUBLE))
    steps = run(Imitation(twins), 12, rule, 6)
    assert sorted(step.unit // 2 for step in steps) == list(range(6))
    if rule != "linesearch":
        assert abs(steps[-1].loss) < 1e-12


# --- batches and layers -----------------------------------------------------------------------------------------------


def test_batches_are_fresh_or_fixed() -> None:
    split = cases.blobs(cases.IMAGE, 64, noise=0.1)
    model = cases.seeded(cases.vgg_net)
    layers = list(layers_of(model, channel_groups(model, split.inputs[:1]), split, Search(), 0))
    drawn = {}
    for mode in ("fresh_per_step", "fixed_per_layer", "fixed_global"):
        search = Search(batch=16, batches=mode)
        drawn[mode] = [[x for x, _ in itertools.islice(batches_for(layer, search), 6)] for layer in layers[:2]]
    fresh, per_layer, shared = drawn.values()
    assert not torch.equal(fresh[0][0], fresh[0][1]) and not torch.equal(fresh[0][0], fresh[0][4])
    assert per_layer[0][0] is per_layer[0][5] and not torch.equal(per_layer[0][0], per_layer[1][0])
    assert torch.equal(shared[0][0], shared[1][3])


class Mistakes(Classification):
    """Judged by the share of wrong answers, of which less is better."""

    metrics = (Metric("mistakes", "mistakes", "minimize"),)

    def metrics_from(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        return {"mistakes": 1 - super().metrics_from(sums)["accuracy"]}


def test_less_of_some_metrics_is_better() -> None:
    model, search, found = net("vgg"), Search(candidates=6, batch=32), list[float]()
    for task in (Classification(), Mistakes()):
        (layer,) = layers_of(model, groups_of(model)[1:2], DATA, search, 0, task)
        found.append(float(layer.qualities(torch.ones(1, 12, dtype=DOUBLE))))
    assert 0 < found[0] < 1 and found[1] == pytest.approx(found[0] - 1)


def test_subset_is_one_of_so_many_but_never_tiny() -> None:
    split = cases.blobs((4,), 4000)
    sizes = [sum(len(y) for _, y in subset_of(split, Search(batch=100, stride=s), 0)) for s in (200, 4, 1)]
    assert sizes == [600, 1000, 4000]
    assert sum(len(y) for _, y in subset_of(cases.blobs((4,), 64), Search(batch=16), 0)) == 64


class Wandering(nn.Module):
    """The way through it depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(192, 8), nn.Linear(8, cases.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x.flatten(1)))
        return self.second(y if y.sum() > -1 else -y)  # type: ignore[no-any-return]


def test_networks_that_cannot_be_followed_run_whole() -> None:
    model = cases.seeded(Wandering).double()
    (group,) = groups_of(model)
    assert follow(model) is None
    network = build_masked_network(model, follow(model), group, DATA.inputs)
    assert isinstance(network, WholeNetwork)
    (layer,) = layers_of(model, [group], DATA, Search(batch=32), 0)
    assert len(order(layer, "global_ce", Search(batch=32)).chosen) == 8


class Deceiving(nn.Module):
    """Adds a number that depends on how many inputs there are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(192, 8), nn.Linear(8, cases.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        count = x.size(0)
        y = self.second(torch.relu(self.first(x.flatten(1))))
        return y.view(count, 1, -1).mean(1)  # type: ignore[no-any-return]


def test_graphs_that_give_other_numbers_are_not_used() -> None:
    model = cases.seeded(Deceiving).double()
    (group,) = groups_of(model)
    assert follow(model) is not None
    assert isinstance(build_masked_network(model, follow(model), group, DATA.inputs), WholeNetwork)


# --- readers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases.NETS)
def test_folded_masks_are_masks(name: str) -> None:
    model = net(name)
    for group in groups_of(model):
        network = WholeNetwork(model, group)
        network.load(DATA.inputs)
        mask = torch.rand(group.channels, generator=generator(), dtype=DOUBLE) + 0.5
        folded = copy.deepcopy(model)
        fold(folded, group, mask)
        torch.testing.assert_close(folded(DATA.inputs), network.outputs(mask[None])[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["vgg", "grouped", "plain"])
def test_kept_scales_train_as_factors_in_front(name: str) -> None:
    """One step of descent on ``v`` with weight ``r v``, by hand: the gradient counts ``r^2`` times."""
    model = net(name)
    group = groups_of(model)[0]
    (reader,) = readers(model, group)
    mask = torch.linspace(0.5, 3, group.channels, dtype=DOUBLE)
    fold(model, group, mask)
    module = model.get_submodule(reader.module)
    weight = module.weight
    assert isinstance(weight, Tensor)
    start = weight.detach().clone()
    loss = F.cross_entropy(model(DATA.inputs), DATA.labels)
    (gradient,) = torch.autograd.grad(loss, weight)
    with scales_kept(model, [(group, mask)]) as trained:
        torch.testing.assert_close(trained(DATA.inputs), model(DATA.inputs), rtol=0, atol=1e-12)
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
        F.cross_entropy(trained(DATA.inputs), DATA.labels).backward()
        optimizer.step()
    factors = torch.ones(reader.channels, dtype=DOUBLE)
    factors[reader.index] = mask[:, None].expand(reader.index.shape)
    groups = getattr(module, "groups", 1)
    rows = factors.view(groups, -1).repeat_interleave(start.shape[0] // groups, 0).view(*start.shape[:2])
    squared = rows.square().view(*start.shape[:2], *[1] * (start.ndim - 2))
    assert model.get_submodule(reader.module).weight is weight
    torch.testing.assert_close(weight.detach(), start - 0.1 * squared * gradient, rtol=0, atol=1e-12)


class Peculiar(nn.Module):
    """A bilinear form reads the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Bilinear(6, 6, 3)


def test_what_has_no_mask_is_named() -> None:
    from methods.network.channels import Member

    index = torch.arange(6)[:, None]
    group = ChannelGroup("first", 6, "1x1", 0.0, (Member("first", "out", index), Member("second", "in", index)))
    assert find_unreadable(Peculiar(), group) == ["second"]
    alone = ChannelGroup("first", 6, "1x1", 0.0, (Member("first", "out", index),))
    assert find_unreadable(Peculiar(), alone) == ["first"]
