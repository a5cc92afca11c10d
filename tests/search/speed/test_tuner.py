"""The tuner: every layer in the form that a watch says is fastest, the same answers, plain data."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from methods.contract.forms import EqualForms
from methods.eigendamage.rotation import build_three_parts, parts
from methods.network.architecture import describe
from methods.network.chains import chains
from methods.network.cost import count
from methods.network.folding import fold_norms
from methods.pivoting import portions
from methods.pivoting.arrangement import PivotSpec
from methods.pivoting.blocks import PivotedConv2d, keep_blocks
from methods.pivoting.executions import PORTIONS
from methods.pivoting.portions import InPortions
from search.artefacts import export
from search.artefacts.export import export_member
from search.artefacts.rebuild import rebuild
from search.driver.sweep import Sweep
from search.speed import measure, targets
from search.speed.conditions import Conditions
from search.speed.interleaved import Run
from search.speed.targets import make_noise_like, prepare
from search.speed.tuner import (
    AsDecided,
    Choice,
    decide_layers,
    deploy,
    deployment,
    find_tunable_layers,
    run_as_decided,
    run_eagerly,
    tune,
)
from search.store.files import write_json
from search.store.studies import StudyFiles
from search.store.weights import save_weights
from search.tasks.models import build_model
from spaces import InputError
from tests.search.cases import make_quick_config

CHANNELS = 16


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "turn_file", lambda: tmp_path / "turn.lock")


def make_chained() -> nn.Module:
    """Two chains that are alike and one that is not."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(2, 8, 3, padding=1)]
        for _ in range(2):
            first, core = nn.Conv2d(8, 3, 1, bias=False), nn.Conv2d(3, 4, 3, padding=1, bias=False)
            layers.append(nn.Sequential(first, core, nn.Conv2d(4, 8, 1)))  # type: ignore[arg-type]
        last = nn.Sequential(nn.Linear(128, 3, bias=False), nn.Linear(3, 5))
        return nn.Sequential(*layers, nn.Flatten(), last).eval()


def make_blocked() -> nn.Module:
    order = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(0))
    spec = PivotSpec(order.reshape(2, 8), torch.arange(2), torch.arange(CHANNELS))
    middle = keep_blocks(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), spec)
    first = nn.Conv2d(2, CHANNELS, 3, padding=1)
    return nn.Sequential(
        first, nn.BatchNorm2d(CHANNELS), middle, nn.ReLU(), nn.Flatten(), nn.Linear(CHANNELS * 16, 3)
    ).eval()


class Doubled(nn.Module):
    """A layer of somebody else's with two equal forms."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.linear(x)  # type: ignore[no-any-return]

    def equal_forms(self) -> dict[str, nn.Module]:
        scaled = copy.deepcopy(self.linear)
        with torch.no_grad():
            scaled.weight.mul_(2)
            scaled.bias.mul_(2)
        return {"twice": copy.deepcopy(self), "scaled": scaled}


def images(batch: int = 3) -> Tensor:
    return torch.randn(batch, 2, 4, 4, generator=torch.Generator().manual_seed(1))


class Scripted:
    """A watch that knows how long each run takes, in order of first appearance; the last number goes on."""

    def __init__(self, *seconds: float) -> None:
        self._seconds, self._seen = seconds, list[Run]()

    def seconds(self, run: Run, times: int) -> float:
        if not any(run is seen for seen in self._seen):
            self._seen.append(run)
        return self._seconds[min(len(self._seconds) - 1, next(i for i, one in enumerate(self._seen) if one is run))]


class Alone(nn.Sequential):
    """Marks a form that is timed by itself."""


class ByKind:
    """A watch for runs that give a module: as slow as the slowest class in it, by itself or in a network."""

    def __init__(self, alone: dict[str, float], whole: dict[str, float] | None = None) -> None:
        self._alone, self._whole = alone, whole or {}

    def seconds(self, run: Run, times: int) -> float:
        module = run()
        assert isinstance(module, nn.Module)
        known = self._alone if isinstance(module, Alone) else self._whole
        return max(known.get(type(each).__name__, 0.1) for each in module.modules())


def prepare_layer(form: nn.Module, x: Tensor) -> Run:
    return lambda: Alone(form)


def prepare_network(network: nn.Module) -> Run:
    return lambda: network


def test_layers_with_forms_are_found() -> None:
    assert list(find_tunable_layers(make_chained())) == ["1", "2", "4"]
    assert list(find_tunable_layers(make_blocked())) == ["2"]
    layer = Doubled(3)
    assert isinstance(layer, EqualForms)
    assert list(find_tunable_layers(nn.Sequential(layer, nn.ReLU()))) == ["0"]
    assert not find_tunable_layers(nn.Sequential(layer, nn.ReLU(), layer)), "a layer with two places is left alone"
    assert not find_tunable_layers(run_as_decided(make_chained(), {})), "what was decided is not decided again"


def test_every_layer_takes_its_fastest_form() -> None:
    # Four forms of the first chain, two of the last one; the second is like the first, and not measured again.
    found = decide_layers(make_chained(), images(), run_eagerly, Scripted(4.0, 2.0, 1.0, 3.0, 1.0, 1.0))
    assert {name: choice.chosen for name, choice in found.items()} == {"1": "1+2", "2": "1+2", "4": "1+1"}
    assert found["1"] == Choice("1+1+1", "1+2", {"1+1+1": 4.0, "2+1": 2.0, "1+2": 1.0, "3": 3.0})


def test_far_slower_forms_are_looked_at_twice_only() -> None:
    class Counting(Scripted):
        looks = 0

        def seconds(self, run: Run, times: int) -> float:
            found = super().seconds(run, times)
            self.looks += found == 100.0
            return found

    watch = Counting(1.0, 100.0)
    (choice,) = decide_layers(nn.Sequential(Doubled(4), nn.ReLU()), torch.ones(2, 4), run_eagerly, watch).values()
    assert choice.seconds == {"twice": 1.0, "scaled": 100.0} and watch.looks == 2


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("as_built", "chosen"), [(2.0, 1.0), (1.0, 1.0), (1.0, 2.0)])
def test_networks_are_compared_as_wholes(as_built: float, chosen: float, channels_last: bool) -> None:
    model, built = make_chained(), list[nn.Module]()
    x = images().contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)

    def prepare_whole(candidate: nn.Module) -> Run:
        built.append(candidate)
        return lambda: candidate

    clock = Scripted(4.0, 3.0, 2.0, 1.0, 2.0, 1.0, as_built, chosen)
    fastest, run, decision = tune(model, x, run_eagerly, prepare_whole, clock)
    assert run() is fastest is built[int(chosen < as_built)] and built[0] is model
    assert decision.networks == {"as_built": as_built, "chosen": chosen}
    assert decision.ways == ({"1": "3", "2": "3", "4": "2"} if chosen < as_built else {})
    assert isinstance(built[1], AsDecided) and not chains(built[1].network) and len(chains(model)) == 3
    torch.testing.assert_close(built[1](x), model(x), rtol=1e-4, atol=1e-5)
    assert built[1].network.get_submodule("1").weight.is_contiguous() != channels_last  # type: ignore[operator]


def test_without_forms_there_is_nothing_to_compare() -> None:
    plain = nn.Sequential(nn.Linear(3, 3))
    assert tune(plain, torch.ones(1, 3), run_eagerly, prepare_network, Scripted())[0] is plain


def test_never_slower_than_the_plain_twin() -> None:
    """Each layer alone may be faster as blocks, and the network still slower."""
    model = make_blocked()
    slow = {"Conv2d": 2.0, "PivotedConv2d": 1.0, "SeparateConvs": 3.0, "InPortions": 3.0}
    fastest, _, decision = tune(model, images(), prepare_layer, prepare_network, ByKind(slow, {"PivotedConv2d": 2.0}))
    assert decision.layers["2"].chosen == "grouped" and decision.ways == {"2": "masked"}
    assert decision.networks == {"as_built": 2.0, "plain": 0.1}
    assert not any(isinstance(module, PivotedConv2d) for module in fastest.modules())
    torch.testing.assert_close(fastest(images()), model(images()), rtol=1e-4, atol=1e-5)


def test_compilers_are_offered_plain_layers_only() -> None:
    model = make_blocked()
    found = decide_layers(model, images(), run_eagerly, Scripted(1.0), plain=True)
    assert list(found["2"].seconds) == ["grouped", "masked"]


def test_layouts_are_compared() -> None:
    model = fold_norms(make_blocked())
    _, _, decision = tune(model, images(), run_eagerly, prepare_network, Scripted(1.0), layouts=(False, True))
    assert set(decision.networks) >= {"as_built", "plain", "as_built_nhwc", "plain_nhwc"}
    quick = run_as_decided(model, {"2": "separate"}, channels_last=True)
    torch.testing.assert_close(quick(images()), model(images()), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert quick.network.get_submodule("0")(images()).is_contiguous(memory_format=torch.channels_last)


def test_forms_with_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portions, "PORTION", 1)
    model = fold_norms(make_blocked())
    slow = {"Conv2d": 2.0, "PivotedConv2d": 1.0}

    class Watch(ByKind):
        def seconds(self, run: Run, times: int) -> float:
            module = run()
            assert isinstance(module, Alone)
            return 0.05 if isinstance(module[0], InPortions) else super().seconds(run, times)

    choice = decide_layers(model, images(), prepare_layer, Watch(slow))["2"]
    assert choice.chosen == PORTIONS
    quick = run_as_decided(model, {"2": PORTIONS})
    assert isinstance(quick.network.get_submodule("3"), nn.Identity), "the activation went into the portions"
    torch.testing.assert_close(quick(images()), model(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["cpu", "onnxruntime"])
@pytest.mark.parametrize("network", [make_chained, make_blocked])
def test_targets_answer_the_same(target: str, network: object) -> None:
    model: nn.Module = network()  # type: ignore[operator]
    answer = prepare(target, model, images(1), Conditions((target,), batch_size=2))()
    found = answer if isinstance(answer, Tensor) else torch.from_numpy(answer[0])  # type: ignore[index]
    torch.testing.assert_close(found, model(make_noise_like(images(1), 2)), rtol=1e-3, atol=1e-4)
    assert find_tunable_layers(model), "a copy was prepared"


def test_decisions_are_plain_data() -> None:
    model, setting = make_chained(), Conditions(("cpu",), batch_size=3)
    # In either layout: the forms of the first and of the last chain; then networks as built and as chosen, twice.
    layers = (4.0, 3.0, 2.0, 1.0, 1.0, 2.0)
    found = deployment(model, images(), Scripted(*layers, *layers, 9.0, 8.0, 9.5, 8.5), setting)
    assert found is not None and found == json.loads(json.dumps(found))
    assert found["ways"] == {"1": "3", "2": "3"} and not found["channels_last"]
    assert found["networks"] == {"as_built": 9.0, "chosen": 8.0, "as_built_nhwc": 9.5, "chosen_nhwc": 8.5}
    assert found["layers"]["4"]["chosen"] == found["layers"]["4"]["built"] == "1+1"
    other = deploy(model, found)
    assert found["flops"] == count(other, images(1)).flops > count(model, images(1)).flops
    torch.testing.assert_close(other(images()), model(images()), rtol=1e-4, atol=1e-5)


def test_a_network_that_gains_nothing_runs_as_built() -> None:
    model, setting = make_chained(), Conditions(("cpu",), batch_size=3)
    found = deployment(model, images(), Scripted(1.0), setting)
    assert found is not None and not found["ways"] and found["flops"] == count(model, images(1)).flops
    assert deployment(nn.Sequential(nn.Linear(3, 3)), torch.ones(1, 3), Scripted(), setting) is None
    plain = deploy(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval(), None, None)
    assert not any(isinstance(module, nn.BatchNorm1d) for module in plain.modules())


def test_unknown_ways_are_errors() -> None:
    model = nn.Sequential(keep_blocks(nn.Linear(8, 8), PivotSpec(torch.arange(8).reshape(2, 4), torch.arange(2),
                                                                 torch.arange(8))), nn.ReLU())  # fmt: skip
    with pytest.raises(ValueError, match="0 has no form 'grouped'; known: bmm, masked"):
        run_as_decided(model, {"0": "grouped"})
    with pytest.raises(ValueError, match="1 is no layer with equal forms"):
        run_as_decided(model, {"1": "bmm"})


def export_digits(folder: Path) -> nn.Module:
    """Write a network of the digits task in which two layers are chains, as an export does but for its card."""
    network = {"model": "digits_resnet", "classes": 10, "example_shape": [1, 1, 8, 8], "seed": 0}
    dense = build_model("digits_resnet", 10, (1, 1, 8, 8), 0)
    pruned = copy.deepcopy(dense)
    for name in ("layer2.0.conv2", "layer3.0.conv2"):
        layer = dense.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        bases = [torch.eye(width)[None, :, :5] for width in (layer.in_channels, layer.out_channels)]
        pruned.set_submodule(name, build_three_parts(layer, parts(layer, *bases)))
    folder.mkdir()
    write_json(folder / "architecture.json", describe(dense, pruned) | {"network": network})
    save_weights(pruned.state_dict(), folder / "weights.safetensors")
    return pruned.eval()


def test_exports_say_in_which_form_chains_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, config = tmp_path / "d", {"latency": {"threads": None, "batch_size": 3}, "resources": {"cpus_per_trial": 1}}
    model = export_digits(folder)
    # Every form is faster than the one before it, and so is the network.
    monkeypatch.setattr(targets, "watch", lambda *_: Scripted(*(100.0 - i for i in range(99))))
    card = export._measure_fastest(folder, config)
    found = card["execution"]
    assert found["ways"] == dict.fromkeys(("layer2.0.conv2", "layer3.0.conv2"), "3")
    assert (found["device"], found["precision"], found["batch_size"], found["threads"]) == ("cpu", "float32", 3, 1)
    (folder / "card.json").write_text(json.dumps(card))
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    quick, whole = rebuild(folder, inference=True), rebuild(folder)
    with torch.no_grad():
        torch.testing.assert_close(quick(x), model(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(whole(x), model(x), rtol=0, atol=0)
    assert chains(whole) and not chains(quick)
    assert count(quick, x[:1]).flops == found["flops"] > count(whole, x[:1]).flops, "the trial's count is another"
    earlier = {"realisation": {"ways": {"layer2.0.conv2": "3"}}, "execution": None}
    (folder / "card.json").write_text(json.dumps(card | earlier))
    assert len(chains(rebuild(folder, inference=True))) == 1, "cards of earlier versions are read"
    card["execution"]["ways"]["layer2.0.conv2"] = "by magic"
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=r"card.json does not fit the network: .* has no form 'by magic'"):
        rebuild(folder, inference=True)


@pytest.mark.slow
def test_exports_say_how_blocks_run_fastest(tmp_path: Path) -> None:
    config = make_quick_config(
        tmp_path / "runs",
        name="blocks",
        trials=1,
        methods=["pivoting"],
        space={"pivoting": {"sparsity.flops": 0.5, "mode": "random_mask"}},
        latency={"batch_size": 3},
    )
    Sweep(config).run()
    card = export_member(StudyFiles.open(tmp_path / "runs", "blocks"), 0, tmp_path / "d")
    execution = card["execution"]
    assert card == json.loads((tmp_path / "d" / "card.json").read_text())
    assert (execution["device"], execution["precision"], execution["batch_size"]) == ("cpu", "float32", 3)
    assert execution["gathers"] == 0 and execution["layers"]
    best = min(execution["networks"], key=execution["networks"].__getitem__)
    assert execution["channels_last"] == best.endswith("_nhwc")
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    quick, model = rebuild(tmp_path / "d", inference=True), rebuild(tmp_path / "d")
    with torch.no_grad():
        torch.testing.assert_close(quick(x), model(x), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())


def test_inputs_are_noise_of_the_kind_of_the_example() -> None:
    noise = make_noise_like(images(1).double(), 4)
    assert noise.shape == (4, 2, 4, 4) and noise.dtype == torch.float64 and float(noise.std()) > 0.5
    assert torch.equal(noise, make_noise_like(images(1).double(), 4)), "the same every time"
    assert torch.equal(make_noise_like(torch.tensor([[3, 1]]), 2), torch.tensor([[3, 1], [3, 1]]))
