"""Which way a layer of blocks runs: never slower than dense, the same answers, plain data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from methods.network.folding import fold_norms
from methods.pivoting import dispatch as dispatching
from methods.pivoting import portions
from methods.pivoting.arrangement import PivotSpec
from methods.pivoting.blocks import PivotedConv2d, PivotedLinear, dense, keep_blocks
from methods.pivoting.dispatch import MASKED, Decided, dispatch, execute_as_decided, fastest, shortest, undecided_layers
from methods.pivoting.executions import PORTIONS, executions
from methods.pivoting.portions import InPortions, portion, tails

CHANNELS = 16


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spec(seed: int, placed: bool = False) -> PivotSpec:
    order = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(seed))
    rows = order.flip(0) if placed else torch.arange(CHANNELS)
    return PivotSpec(order.reshape(2, 8), torch.arange(2), rows)


def summed(seed: int) -> PivotSpec:
    rows = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(seed))
    return PivotSpec(torch.arange(CHANNELS).reshape(4, 4)[[0, 2, 1]], torch.tensor([0, 0, 1]), rows)


class Branching(nn.Module):
    """Norms that can be folded, and norms that must stay because something else reads what they read."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(CHANNELS)
        self.blocks = keep_blocks(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False), spec(1, placed=True))
        self.blocks_norm = nn.BatchNorm2d(CHANNELS)
        self.shared = keep_blocks(nn.Conv2d(CHANNELS, CHANNELS, 1), summed(2))
        self.shared_norm = nn.BatchNorm2d(CHANNELS, affine=False)
        self.summed = keep_blocks(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), summed(3))
        self.summed_norm = nn.BatchNorm2d(CHANNELS)
        self.linear = keep_blocks(nn.Linear(CHANNELS, CHANNELS, bias=False), spec(4, placed=True))
        self.linear_norm = nn.BatchNorm1d(CHANNELS)
        self.answer = nn.Linear(CHANNELS, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first_norm(self.first(x)).relu()
        x = self.blocks_norm(self.blocks(x)).relu()
        y = self.shared(x)
        x = self.summed_norm(self.summed(self.shared_norm(y) + y)).relu().mean((2, 3))
        return self.answer(self.linear_norm(self.linear(x)).relu())  # type: ignore[no-any-return]


def branching() -> Branching:
    model = Branching().double().eval()
    with torch.no_grad():
        for seed, tensor in enumerate([*model.parameters(), *model.buffers()]):
            if tensor.is_floating_point():
                tensor.copy_(numbers(*tensor.shape, seed=seed).abs() + 0.1 if tensor.ndim == 1 else tensor)
    return model


def test_folding_keeps_the_function() -> None:
    model = branching()
    x = numbers(3, 3, 6, 6)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    still = fold_norms(model)
    torch.testing.assert_close(still(x), model(x), rtol=0, atol=1e-12)
    left = [name for name, module in still.named_modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert left == ["shared_norm"], "what has another reader is not folded"
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Activated(nn.Module):
    """One activation may work in place; one may not in one of its calls; one reads what a sum needs later."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.alone, self.shared, self.needed = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.alone(self.norm(self.first(x)))
        z = self.second(self.shared(x))
        return self.shared(z + self.needed(z) + y)  # type: ignore[no-any-return]


def test_activations_work_in_place_where_nothing_else_reads() -> None:
    model = Activated().double().eval()
    still, x = fold_norms(model), numbers(5, 4)
    before = x.clone()
    torch.testing.assert_close(still(x), model(x), rtol=0, atol=1e-12)
    assert torch.equal(x, before)
    inplace = {name for name, module in still.named_modules() if getattr(module, "inplace", False)}
    assert inplace == {"alone"}
    net = fold_norms(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.ReLU()))
    assert [getattr(net.get_submodule(name), "inplace") for name in ("1", "2")] == [True, False]  # noqa: B009


def test_what_cannot_be_followed_is_not_folded() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x) if x.sum() > 0 else x

    model = Deciding().eval()
    assert [type(m) for m in fold_norms(model).modules()] == [type(m) for m in model.modules()]


def test_whole_networks_are_decided_and_answer_the_same() -> None:
    model = fold_norms(branching()).float()
    x = numbers(3, 3, 6, 6).float()
    quick, decision = dispatch(model, x, rounds=1)
    torch.testing.assert_close(quick(x), model(x), rtol=1e-5, atol=1e-5)
    assert set(decision.ways) == {"blocks", "shared", "summed", "linear"} == set(decision.layers)
    assert set(decision.networks) == {"blocks", "masked", "blocks_nhwc", "masked_nhwc"}
    assert isinstance(model.blocks, PivotedConv2d) and not undecided_layers(quick), "a copy, decided once and for all"
    data = json.loads(json.dumps(decision.to_json()))
    again = execute_as_decided(model, data["ways"], data["channels_last"])
    assert torch.equal(again(x), quick(x))


def test_networks_without_blocks_choose_a_layout() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    x = numbers(2, 3, 5, 5).float()
    quick, decision = dispatch(model, x, rounds=1)
    assert not decision.ways and torch.allclose(quick(x), model(x), atol=1e-6)
    _, decision = dispatch(model, x, rounds=1, layouts=(False,))
    assert set(decision.networks) == {"blocks", "masked"} and not decision.channels_last


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[type, float]], None]:
    """Let modules take as long as their class says."""

    def install(seconds: dict[type, float]) -> None:
        def read(module: nn.Module, example: Tensor, repeats: int) -> float:
            inner = module.network if isinstance(module, Decided) else module
            return max([seconds.get(type(each), 0.0) for each in inner.modules()], default=0.0) + 1e-3

        monkeypatch.setattr(dispatching, "_seconds", read)

    return install


def test_never_slower_than_dense(stopwatch: Callable[[dict[type, float]], None]) -> None:
    model = nn.Sequential(keep_blocks(nn.Conv2d(CHANNELS, CHANNELS, 3), spec(1)), nn.ReLU()).eval()
    x = numbers(2, CHANNELS, 5, 5).float()
    stopwatch({PivotedConv2d: 1.0})
    quick, decision = dispatch(model, x)
    assert decision.ways == {"0": MASKED} and isinstance(quick.network[0], nn.Conv2d)  # type: ignore[index]
    stopwatch({nn.Conv2d: 1.0})
    quick, decision = dispatch(model, x)
    assert decision.ways["0"] != MASKED and decision.networks["blocks"] < decision.networks["masked"]
    assert torch.allclose(quick(x), model(x), atol=1e-5)


def test_the_network_as_a_whole_is_never_slower_than_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer alone may be faster as blocks, and the network still slower."""
    model = nn.Sequential(keep_blocks(nn.Conv2d(CHANNELS, CHANNELS, 3), spec(1)), nn.ReLU()).eval()

    def read(module: nn.Module, example: Tensor, repeats: int) -> float:
        blocks = any(isinstance(each, PivotedConv2d) for each in module.modules())
        return 2.0 if blocks == isinstance(module, Decided) else 1.0

    monkeypatch.setattr(dispatching, "_seconds", read)
    _, decision = dispatch(model, numbers(2, CHANNELS, 5, 5).float())
    assert decision.ways == {"0": MASKED} and decision.layers["0"].chosen != MASKED


def test_layers_of_the_same_shape_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def counted(layer: PivotedConv2d | PivotedLinear, x: Tensor, rounds: int, tail: Sequence[nn.Module]) -> object:
        seen.append(layer)
        return fastest(layer, x, rounds, tail)

    monkeypatch.setattr(dispatching, "fastest", counted)
    model = nn.Sequential(*[keep_blocks(nn.Linear(CHANNELS, CHANNELS), spec(1)) for _ in range(3)])
    _, decision = dispatch(model, numbers(4, CHANNELS).float(), rounds=1)
    assert len(seen) == 1 and list(decision.ways) == ["0", "1", "2"]


def test_the_fastest_has_the_shortest_time() -> None:
    layer = keep_blocks(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), spec(1)).eval()
    x = numbers(2, CHANNELS, 7, 7).float()
    module, timing = fastest(layer, x, rounds=2)
    assert timing.seconds[timing.chosen] == min(timing.seconds.values()) <= timing.seconds[MASKED]
    assert set(timing.seconds) == set(executions(layer)) - {PORTIONS}, "two images are one portion"
    torch.testing.assert_close(module(x), layer(x), rtol=1e-5, atol=1e-5)


class Staged(nn.Module):
    """Convolutions of blocks with all that may follow them: one by one, read twice, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (
            keep_blocks(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), spec(seed)) for seed in (1, 2, 3)
        )
        self.norm, self.relu, self.pool = nn.BatchNorm2d(CHANNELS), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        self.twice, self.end = nn.ReLU(), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.norm(self.one(x))))
        y = self.two(x)
        return self.end(self.three(self.twice(y) + self.twice(x)))  # type: ignore[no-any-return]


def staged() -> nn.Module:
    return Staged().double().eval()


def test_what_is_run_with_a_layer() -> None:
    assert tails(staged()) == {"one": ("norm", "relu", "pool"), "two": (), "three": ("end",)}

    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    assert tails(Deciding()) == {}


@pytest.mark.parametrize("images", [1, 2, 3, 7])
def test_portions_answer_the_same(monkeypatch: pytest.MonkeyPatch, images: int) -> None:
    model, x = staged(), numbers(7, CHANNELS, 8, 8)
    monkeypatch.setattr(portions, "PORTION", images * CHANNELS * 8 * 8 * 8)
    assert portion(x) == images
    before = x.clone()
    for last in (False, True):
        quick = execute_as_decided(model, {"one": PORTIONS, "two": "grouped", "three": PORTIONS}, channels_last=last)
        seen: list[int] = []
        inner = quick.network.get_submodule("one")
        assert isinstance(inner, InPortions) and isinstance(quick.network.get_submodule("pool"), nn.Identity)
        inner.steps[0].register_forward_hook(lambda module, args, out, seen=seen: seen.append(len(args[0])))
        torch.testing.assert_close(quick(x), model(x), rtol=0, atol=1e-12)
        assert sum(seen) == 7 and max(seen) == images
        if last:
            assert inner(x).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, before) and isinstance(model.get_submodule("pool"), nn.MaxPool2d)


def test_portions_are_chosen_where_they_are_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = staged().float(), numbers(6, CHANNELS, 8, 8).float()
    monkeypatch.setattr(portions, "PORTION", 1)

    def read(module: nn.Module, example: Tensor, repeats: int) -> float:
        return 1.0 if any(isinstance(each, InPortions) for each in module.modules()) else 2.0

    monkeypatch.setattr(dispatching, "_seconds", read)
    quick, decision = dispatch(model, x)
    assert decision.ways == dict.fromkeys(("one", "two", "three"), PORTIONS)
    torch.testing.assert_close(quick(x), model(x), rtol=1e-5, atol=1e-5)


def test_unknown_ways_are_errors() -> None:
    model = nn.Sequential(keep_blocks(nn.Linear(CHANNELS, CHANNELS), spec(1)), nn.ReLU())
    with pytest.raises(ValueError, match="0 cannot be run as 'grouped'; known: masked, bmm, bsr"):
        execute_as_decided(model, {"0": "grouped"})
    with pytest.raises(ValueError, match="1 is a ReLU, not a layer of blocks"):
        execute_as_decided(model, {"1": "bmm"})


def fastest_process_seconds(candidates: Mapping[str, nn.Module], x: Tensor) -> dict[str, float]:
    """Shortest of 12 interleaved rounds, by the processor's clock, with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return shortest(candidates, x, rounds=12)
    finally:
        torch.set_num_threads(before)


def test_oracle_10_blocks_are_fast() -> None:
    eighth = torch.arange(8)
    conv = nn.Conv2d(256, 256, 3, padding=1, bias=False)
    blocks = keep_blocks(conv, PivotSpec(torch.arange(256).reshape(8, 32), eighth, torch.arange(256))).eval()
    linear = nn.Linear(1024, 1024)
    matrices = keep_blocks(linear, PivotSpec(torch.arange(1024).reshape(8, 128), eighth, torch.arange(1024))).eval()
    last = torch.channels_last
    ways = {"dense": dense(blocks).to(memory_format=last), "blocks": blocks.to(memory_format=last)}
    found = fastest_process_seconds(ways, numbers(4, 256, 14, 14).float().contiguous(memory_format=last))
    assert found["dense"] > 5 * found["blocks"], found
    found = fastest_process_seconds({"dense": dense(matrices), "blocks": matrices}, numbers(256, 1024).float())
    assert found["dense"] > 5 * found["blocks"], found
