"""Measuring pairs of networks on targets; no test looks at how long anything took."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search.speed import measure, targets
from search.speed.conditions import TARGETS, Conditions, checked_targets
from search.speed.interleaved import Effort, Run, Samples, Watch
from search.speed.measure import check_targets, measure_dense, measure_pair
from search.speed.onnx_session import onnx_run
from search.speed.targets import Untimed, like, prepare
from search.study.latency import channel_step, conditions
from spaces import InputError
from tests.search.cases import quick_config

EXAMPLE = torch.zeros(1, 2, 4, 4)


def network(width: int = 6) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Linear(16 * width, 3)
    )


class Stubborn(nn.Module):
    """Cannot be traced: its way depends on the numbers that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.mean((1, 2)))
        return y + 1 if float(y.sum()) > 0 else y


class Bottomless(nn.Module):
    """Finds no memory for a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10**15 bytes")
        return x * self.weight


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for a measurement that somebody else makes on this machine."""
    monkeypatch.setattr(measure, "turn_file", lambda: tmp_path / "turn.lock")


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> list[list[Run]]:
    """Every first network takes 4 ms and every further one 3 ms, whatever it is."""
    seen: list[list[Run]] = []

    def sampled(watch: Watch, runs: list[Run], effort: Effort) -> Samples:
        seen.append(list(runs))
        return [[0.004 if index == 0 else 0.003] * 5 for index in range(len(runs))]

    monkeypatch.setattr(measure, "time_until_steady", sampled)
    return seen


def test_a_pair_is_timed_side_by_side_on_every_target(still: list[list[Run]]) -> None:
    setting = Conditions(("cpu", "onnxruntime"), batch_size=3)
    timings, reasons = measure_pair(setting, network(), network(3), EXAMPLE)
    assert list(timings) == ["cpu", "onnxruntime"] and not reasons
    assert timings["cpu"].share == 0.75 and not timings["cpu"].noisy
    assert [len(runs) for runs in still] == [2, 2]
    answers = [run() for run in still[0]]
    assert all(isinstance(answer, Tensor) and answer.shape == (3, 3) for answer in answers), "batches of three"


def test_the_networks_are_not_changed(still: list[list[Run]]) -> None:
    model = network().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure_pair(Conditions(("cpu",), channels_last=True), model, model, EXAMPLE)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model[0].weight.is_contiguous()  # type: ignore[index]


def test_threads_are_given_back(still: list[list[Run]]) -> None:
    before = torch.get_num_threads()
    measure_pair(Conditions(("cpu",), threads=before + 1), network(), network(), EXAMPLE)
    assert torch.get_num_threads() == before


def test_a_target_that_cannot_be_keeps_the_others(still: list[list[Run]]) -> None:
    timings, reasons = measure_pair(Conditions(("onnxruntime", "cpu")), Stubborn(), Stubborn(), EXAMPLE)
    assert list(timings) == ["cpu"]
    assert reasons["onnxruntime"].startswith("onnxruntime: the network cannot be exported to ONNX")
    assert "leave this target out" in reasons["onnxruntime"]


def test_a_batch_that_does_not_fit_is_named(still: list[list[Run]]) -> None:
    timings, reasons = measure_pair(Conditions(("cpu",), batch_size=5), Bottomless(), Bottomless(), EXAMPLE)
    assert not timings
    assert reasons["cpu"] == "cpu: a batch of 5 does not fit into memory; choose a smaller latency.batch_size"


def test_the_dense_network_must_be_timed_before_anything_is_trained() -> None:
    with pytest.raises(InputError, match="latency target onnxruntime: the network cannot be exported"):
        check_targets(Conditions(("cpu", "onnxruntime")), Stubborn(), EXAMPLE)
    with pytest.raises(InputError, match="latency target cpu: a batch of 9 does not fit"):
        measure_dense(Conditions(("cpu",), batch_size=9), Bottomless(), EXAMPLE)
    check_targets(Conditions(("cpu",)), Stubborn(), EXAMPLE)


def test_one_measurement_at_a_time(still: list[list[Run]]) -> None:
    import filelock

    with measure.turn():
        again = filelock.FileLock(measure.turn_file(), timeout=0)
        with pytest.raises(filelock.Timeout):
            again.acquire()


def test_an_export_that_answers_otherwise_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network().eval()

    def other(*_: Any, **__: Any) -> Any:
        return real(network().eval(), (EXAMPLE,), dynamo=True, verbose=False)

    real = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", other)
    with pytest.raises(ValueError, match="the exported network deviates by"):
        onnx_run(model, EXAMPLE + 1, threads=1)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError("no", name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Untimed, match="onnxruntime is not installed; `pip install onnx onnxscript onnxruntime`"):
        prepare("onnxruntime", network(), EXAMPLE, Conditions(("onnxruntime",)))


def test_every_target_is_known_by_both_lists() -> None:
    assert tuple(targets.TARGETS) == TARGETS


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_a_compiled_network_answers_as_before() -> None:
    model = network().eval()
    setting = Conditions(("cpu-compiled",), batch_size=2)
    run = prepare("cpu-compiled", model, EXAMPLE, setting)
    with torch.no_grad():
        assert torch.allclose(run(), model(like(EXAMPLE, 2)), atol=1e-5)  # type: ignore[arg-type]
    with pytest.raises(Untimed, match="torch.compile cannot make one graph"):
        prepare("cpu-compiled", Stubborn(), EXAMPLE, setting)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda-eager"])
def test_a_network_on_a_gpu_answers_as_before(name: str) -> None:
    model = network().eval()
    run = prepare(name, model, EXAMPLE, Conditions((name,), batch_size=2))
    answer = run()
    torch.cuda.synchronize()
    assert isinstance(answer, Tensor)
    with torch.no_grad():
        assert torch.allclose(answer.cpu(), model(like(EXAMPLE, 2)), atol=1e-3)
    assert measure_dense(Conditions((name,)), model, EXAMPLE).median > 0


# Conditions


def test_nothing_is_timed_unless_asked_for(tmp_path: Path) -> None:
    config = quick_config(tmp_path)
    assert conditions(config, "cpu") is None
    assert channel_step(config, None) == 1


def test_the_objective_alone_takes_the_device_of_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = quick_config(tmp_path, objectives=["accuracy", "latency"])
    assert conditions(config, "cpu") == Conditions(("cpu",))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert conditions(config, "cuda") == Conditions(("cuda",))


def test_targets_are_timed_without_being_searched_for(tmp_path: Path) -> None:
    config = quick_config(tmp_path, latency={"targets": ["onnxruntime"], "batch_size": 8})
    timed = conditions(config, "cpu")
    assert timed == Conditions(("onnxruntime",), batch_size=8)
    assert channel_step(config, timed) == 1, "widths are those of the papers until latency is searched for"


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({}, 8),
        ({"round_to": 4}, 4),
        ({"round_to": 1}, 1),
        ({"latency": {"targets": ["onnxruntime", "cpu"]}}, 8),
    ],
)
def test_widths_are_rounded_for_the_target(changes: dict[str, Any], step: int, tmp_path: Path) -> None:
    config = quick_config(tmp_path, objectives=["accuracy", "latency"], **changes)
    assert channel_step(config, conditions(config, "cpu")) == step


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latency": {"targets": ["cuda"]}}, r"latency target 'cuda' needs a CUDA device, and torch finds none"),
        ({"latency": {"targets": ["cpu"], "threads": 2}}, r"latency.threads = 2 is more than the 1 core\(s\)"),
    ],
)
def test_what_is_not_there_is_named(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = quick_config(tmp_path, **changes, resources={"executor": "ray"})
    with pytest.raises(InputError, match=message):
        conditions(config, "cpu")


def test_a_machine_of_its_own_may_use_more_threads(tmp_path: Path) -> None:
    for resources in ({"executor": "inline"}, {"executor": "ray", "max_concurrent": 1}):
        config = quick_config(tmp_path, latency={"targets": ["cpu"], "threads": 2}, resources=resources)
        assert conditions(config, "cpu") == Conditions(("cpu",), threads=2)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cpus",), r"unknown latency target 'cpus'; did you mean 'cpu'"),
        (("cpu", "cpu"), "latency targets are named twice: cpu, cpu"),
        ((), "names no target; leave it out or choose from cpu,"),
    ],
)
def test_targets_are_checked(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked_targets(names)


def test_openvino_answers_as_torch_does_and_is_timed_on_the_wall() -> None:
    pytest.importorskip("openvino")
    model = network().eval()
    run = prepare("openvino", model, EXAMPLE, Conditions(("openvino",), batch_size=2))
    (answer,) = run().values()  # type: ignore[attr-defined]
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(answer), model(like(EXAMPLE, 2)), atol=1e-4)
    assert vars(targets.watch("openvino", 1))["_clock"] is time.perf_counter
    assert vars(targets.watch("cpu", 1))["_clock"] is time.thread_time


def test_a_target_of_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_targets.py").write_text(
        "import torch\n"
        "from search.speed.targets import Target\n"
        "def prepare(model, inputs, threads):\n"
        "    return lambda: 3 * model(inputs)\n"
        "triple = Target('cpu', prepare, 'it cannot be tripled')\n"
        "other = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    assert checked_targets(["my_targets:triple"]) == ("my_targets:triple",)
    model = network().eval()
    run = prepare("my_targets:triple", model, EXAMPLE, Conditions(("my_targets:triple",)))
    with torch.no_grad():
        torch.testing.assert_close(run(), 3 * model(like(EXAMPLE, 1)))
    with pytest.raises(InputError, match="other is a int, not a search.speed.targets.Target"):
        targets.load_target("my_targets:other")
    with pytest.raises(InputError, match="unknown latency target 'openvin'; did you mean 'openvino'"):
        checked_targets(["openvin"])
