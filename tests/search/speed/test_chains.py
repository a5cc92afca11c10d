"""Chains on targets and in exports: the same answers, in the form that a watch says is fastest."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from methods.eigendamage.equal_forms import chains as chains_of
from methods.eigendamage.rotation import parts, three_part
from methods.network.architecture import describe
from methods.network.cost import count
from search.artefacts import export
from search.artefacts.rebuild import rebuild
from search.speed import chains, measure, targets
from search.speed.conditions import Conditions
from search.speed.interleaved import Run
from search.speed.targets import like, prepare
from search.store.files import write_json
from search.store.weights import save_weights
from search.tasks.models import build_model
from spaces import InputError


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "turn_file", lambda: tmp_path / "turn.lock")


def network() -> nn.Module:
    """Two chains that are alike and one that is not."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(2, 8, 3, padding=1)]
        for _ in range(2):
            first, core = nn.Conv2d(8, 3, 1, bias=False), nn.Conv2d(3, 4, 3, padding=1, bias=False)
            layers.append(nn.Sequential(first, core, nn.Conv2d(4, 8, 1)))  # type: ignore[arg-type]
        last = nn.Sequential(nn.Linear(128, 3, bias=False), nn.Linear(3, 5))
        return nn.Sequential(*layers, nn.Flatten(), last).eval()


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


def test_every_chain_takes_its_fastest_form() -> None:
    # Four forms of the first chain, two of the last one; the second is like the first, and not measured again.
    found = chains.fastest_forms(network(), images(), chains.eager, Scripted(4.0, 2.0, 1.0, 3.0, 1.0, 1.0))
    assert {name: choice.chosen for name, choice in found.items()} == {"1": "1+2", "2": "1+2", "4": "1+1"}
    assert found["1"].seconds == {"1+1+1": 4.0, "2+1": 2.0, "1+2": 1.0, "3": 3.0} and found["1"].built == "1+1+1"
    pixels = 16
    assert found["1"].flops == {
        "1+1+1": pixels * (24 + 108 + 32),
        "2+1": pixels * (288 + 32),
        "1+2": pixels * (24 + 216),
        "3": pixels * 576,
    }
    assert found["4"].flops == {"1+1": 128 * 3 + 15, "2": 128 * 5}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("as_built", "chosen"), [(2.0, 1.0), (1.0, 1.0), (1.0, 2.0)])
def test_networks_are_compared_as_wholes(as_built: float, chosen: float, channels_last: bool) -> None:
    model, built = network(), list[nn.Module]()
    x = images().contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)

    def whole(candidate: nn.Module) -> Run:
        built.append(candidate)
        return lambda: candidate

    # The network as built is prepared first, but timed last.
    clock = Scripted(4.0, 3.0, 2.0, 1.0, 2.0, 1.0, as_built, chosen)
    run = chains.faster(model, x, chains.eager, whole, clock)
    assert run() is built[int(chosen < as_built)] and built[0] is model
    assert not chains_of(built[1]) and len(chains_of(model)) == 3
    torch.testing.assert_close(built[1](x), model(x), rtol=1e-4, atol=1e-5)
    assert built[1].get_submodule("1").weight.is_contiguous() != channels_last  # type: ignore[operator]


def test_what_is_fastest_as_built_is_prepared_once() -> None:
    built: list[nn.Module] = []

    def whole(candidate: nn.Module) -> Run:
        built.append(candidate)
        return lambda: candidate

    chains.faster(network(), images(), chains.eager, whole, Scripted(1.0, 2.0, 2.0, 2.0, 1.0, 2.0))
    assert len(built) == 1
    chains.faster(nn.Sequential(nn.Linear(3, 3)), images(), chains.eager, whole, Scripted())
    assert len(built) == 2, "without chains there is nothing to compare"


@pytest.mark.parametrize("target", ["cpu", "onnxruntime"])
@pytest.mark.parametrize("best", [0, 3])
def test_targets_answer_the_same(target: str, best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    forms = [2.0, 2.0, 2.0, 2.0]
    forms[best] = 1.0
    monkeypatch.setattr(targets, "watch", lambda *_: Scripted(*forms, 1.0, 2.0, 2.0, 1.0))
    model = network()
    run = prepare(target, model, images(1), Conditions((target,), batch_size=2))
    answer = run()
    found = answer if isinstance(answer, Tensor) else torch.from_numpy(answer[0])  # type: ignore[index]
    torch.testing.assert_close(found, model(like(images(1), 2)), rtol=1e-3, atol=1e-4)
    assert len(chains_of(model)) == 3


def test_decisions_are_plain_data() -> None:
    model, setting = network(), Conditions(("cpu",), batch_size=3)
    found = chains.deployment(model, images(), chains.eager, Scripted(4.0, 3.0, 2.0, 1.0, 1.0, 2.0, 9.0, 8.0), setting)
    assert found == json.loads(json.dumps(found)) and found is not None
    assert found["ways"] == {"1": "3", "2": "3"} and found["networks"] == {"as_built": 9.0, "chosen": 8.0}
    assert found["layers"]["4"]["chosen"] == found["layers"]["4"]["built"] == "1+1"
    other = chains.deploy(model, found)
    assert found["flops"] == count(other, images(1)).flops > count(model, images(1)).flops
    torch.testing.assert_close(other(images()), model(images()), rtol=1e-4, atol=1e-5)


def test_a_network_that_gains_nothing_runs_as_built() -> None:
    model, setting = network(), Conditions(("cpu",), batch_size=3)
    found = chains.deployment(model, images(), chains.eager, Scripted(4.0, 3.0, 2.0, 1.0, 1.0, 2.0, 8.0), setting)
    assert found is not None and not found["ways"] and found["flops"] == count(model, images(1)).flops
    assert {layer["chosen"] for layer in found["layers"].values()} == {"1+1+1", "1+1"}
    assert found["networks"] == {"as_built": 8.0, "chosen": 8.0}
    assert chains.deployment(nn.Sequential(nn.Linear(3, 3)), images(), chains.eager, Scripted(), setting) is None
    assert chains.deploy(model, None) is model


def exported(folder: Path) -> nn.Module:
    """Write a network of the digits task in which two layers are chains, as an export does but for its card."""
    network = {"model": "digits_resnet", "classes": 10, "example_shape": [1, 1, 8, 8], "seed": 0}
    dense = build_model("digits_resnet", 10, (1, 1, 8, 8), 0)
    pruned = copy.deepcopy(dense)
    for name in ("layer2.0.conv2", "layer3.0.conv2"):
        layer = dense.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        bases = [torch.eye(width)[None, :, :5] for width in (layer.in_channels, layer.out_channels)]
        pruned.set_submodule(name, three_part(layer, parts(layer, *bases)))
    folder.mkdir()
    write_json(folder / "architecture.json", describe(dense, pruned) | {"network": network})
    save_weights(pruned.state_dict(), folder / "weights.safetensors")
    return pruned.eval()


def test_exports_say_in_which_form_chains_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, config = tmp_path / "d", {"latency": {"threads": None, "batch_size": 3}, "resources": {"cpus_per_trial": 1}}
    model = exported(folder)
    # Every form is faster than the one before it, and so is the network.
    monkeypatch.setattr(targets, "watch", lambda *_: Scripted(*(100.0 - i for i in range(99))))
    card = export._fastest(folder, config)
    found = card["realisation"]
    assert card["execution"] is None and found["ways"] == dict.fromkeys(("layer2.0.conv2", "layer3.0.conv2"), "3")
    assert (found["device"], found["precision"], found["batch_size"], found["threads"]) == ("cpu", "float32", 3, 1)
    (folder / "card.json").write_text(json.dumps(card))
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    quick, whole = rebuild(folder, inference=True), rebuild(folder)
    with torch.no_grad():
        torch.testing.assert_close(quick(x), model(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(whole(x), model(x), rtol=0, atol=0)
    assert chains_of(whole) and not chains_of(quick)
    assert count(quick, x[:1]).flops == found["flops"] > count(whole, x[:1]).flops, "the trial's count is another"
    card["realisation"]["ways"]["layer2.0.conv2"] = "by magic"
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=r"card.json does not fit the network: .* has no form 'by magic'"):
        rebuild(folder, inference=True)
