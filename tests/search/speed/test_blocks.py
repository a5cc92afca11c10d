"""Networks of blocks on targets, and in exports: the same answers, never slower than dense, plain data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from methods.pivoting.arrangement import PivotSpec
from methods.pivoting.blocks import PivotedConv2d, keep_blocks
from methods.pivoting.dispatch import Decided
from search.artefacts.export import export_member
from search.artefacts.rebuild import rebuild
from search.driver.sweep import Sweep
from search.speed import blocks, measure
from search.speed.conditions import Conditions
from search.speed.interleaved import Run
from search.speed.targets import like, prepare
from search.store.studies import StudyFiles
from spaces import InputError
from tests.search.cases import quick_config

CHANNELS = 16


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "turn_file", lambda: tmp_path / "turn.lock")


def network() -> nn.Module:
    order = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(0))
    spec = PivotSpec(order.reshape(2, 8), torch.arange(2), torch.arange(CHANNELS))
    middle = keep_blocks(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), spec)
    first = nn.Conv2d(2, CHANNELS, 3, padding=1)
    return nn.Sequential(first, nn.BatchNorm2d(CHANNELS), middle, nn.Flatten(), nn.Linear(CHANNELS * 16, 3)).eval()


def images(batch: int) -> Tensor:
    return torch.randn(batch, 2, 4, 4, generator=torch.Generator().manual_seed(1))


class Scripted:
    """A watch that knows how long each run takes, in order of first appearance."""

    def __init__(self, *seconds: float) -> None:
        self._seconds, self._seen = seconds, list[Run]()

    def seconds(self, run: Run, times: int) -> float:
        if not any(run is seen for seen in self._seen):
            self._seen.append(run)
        return self._seconds[next(i for i, seen in enumerate(self._seen) if seen is run)]


@pytest.mark.parametrize("channels_last", [False, True])
def test_layers_are_decided_in_the_layout_of_the_inputs(channels_last: bool) -> None:
    model = network()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = images(3).contiguous(memory_format=layout)
    quick = blocks.decide_blocks(model, x)
    assert isinstance(quick, Decided) and quick.channels_last == channels_last
    torch.testing.assert_close(quick(x), model(x), rtol=1e-4, atol=1e-5)
    plain = nn.Linear(3, 3)
    assert blocks.decide_blocks(plain, x) is plain


def test_compiled_networks_are_compared_with_their_dense_twin() -> None:
    built: list[nn.Module] = []

    def prepare(model: nn.Module) -> Run:
        built.append(model)
        return lambda: model

    model = network()
    run = blocks.faster(model, prepare, Scripted(2.0, 1.0))
    assert run() is built[1] and not any(isinstance(module, PivotedConv2d) for module in built[1].modules())
    torch.testing.assert_close(built[1](images(2)), model(images(2)), rtol=1e-4, atol=1e-5)
    assert blocks.faster(model, prepare, Scripted(1.0, 2.0))() is model
    built.clear()
    blocks.faster(nn.Linear(3, 3), prepare, Scripted())
    assert len(built) == 1, "without blocks there is nothing to compare"


def test_targets_run_blocks_and_answer_the_same() -> None:
    model = network()
    for target in ("cpu", "onnxruntime"):
        run = prepare(target, model, images(1), Conditions((target,), batch_size=2))
        answer = run()
        found = answer if isinstance(answer, Tensor) else torch.from_numpy(answer[0])  # type: ignore[index]
        torch.testing.assert_close(found, model(like(images(1), 2)), rtol=1e-3, atol=1e-4)
    assert isinstance(model[2], PivotedConv2d)  # type: ignore[index]


def test_inputs_are_noise_of_the_kind_of_the_example() -> None:
    noise = like(images(1).double(), 4)
    assert noise.shape == (4, 2, 4, 4) and noise.dtype == torch.float64 and float(noise.std()) > 0.5
    assert torch.equal(noise, like(images(1).double(), 4)), "the same every time"
    assert torch.equal(like(torch.tensor([[3, 1]]), 2), torch.tensor([[3, 1], [3, 1]]))


def test_exports_say_how_blocks_run_fastest(tmp_path: Path) -> None:
    config = quick_config(
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
    assert execution["gathers"] == 0
    assert execution["ways"] and execution["ways"].keys() == execution["layers"].keys()
    best = min(execution["networks"], key=execution["networks"].__getitem__)
    assert execution["channels_last"] == best.endswith("_nhwc")
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    quick, model = rebuild(tmp_path / "d", inference=True), rebuild(tmp_path / "d")
    with torch.no_grad():
        torch.testing.assert_close(quick(x), model(x), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    name = next(iter(execution["ways"]))
    card["execution"]["ways"][name] = "by magic"
    (tmp_path / "d" / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=r"card.json does not fit the network: .* cannot be run as 'by magic'"):
        rebuild(tmp_path / "d", inference=True)
