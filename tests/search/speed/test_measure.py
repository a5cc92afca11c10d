"""Measuring pairs of networks on targets; no test looks at how long anything took."""

from __future__ import annotations

import builtins
import ctypes
import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from search.speed import measure, targets
from search.speed.conditions import TARGETS, Conditions, check_devices, validate_targets
from search.speed.interleaved import Effort, Run, Samples, Watch
from search.speed.measure import check_targets, measure_dense, measure_pair
from search.speed.onnx_session import check_answer, name_inputs, onnx_run
from search.speed.targets import Untimed, make_noise_like, prepare
from search.speed.tensorrt_session import tensorrt_run
from search.study.latency import channel_step, conditions
from spaces import InputError
from tests.search.cases import make_quick_config

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

    def sample(watch: Watch, runs: list[Run], effort: Effort) -> Samples:
        seen.append(list(runs))
        return [[0.004 if index == 0 else 0.003] * 5 for index in range(len(runs))]

    monkeypatch.setattr(measure, "time_until_steady", sample)
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

    def fail(*_: Any, **__: Any) -> Any:
        return real(network().eval(), (EXAMPLE,), dynamo=True, verbose=False)

    real = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ValueError, match="the exported network deviates by"):
        onnx_run(model, EXAMPLE + 1, threads=1)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = builtins.__import__

    def import_without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError("no", name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", import_without)
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
        assert torch.allclose(run(), model(make_noise_like(EXAMPLE, 2)), atol=1e-5)  # type: ignore[arg-type]
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
        assert torch.allclose(answer.cpu(), model(make_noise_like(EXAMPLE, 2)), atol=1e-3)
    assert measure_dense(Conditions((name,)), model, EXAMPLE).median > 0


# Conditions


def test_nothing_is_timed_unless_asked_for(tmp_path: Path) -> None:
    config = make_quick_config(tmp_path)
    assert conditions(config, "cpu") is None
    assert channel_step(config, None) == 1


def test_the_objective_alone_takes_the_device_of_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_quick_config(tmp_path, objectives=["accuracy", "latency"])
    assert conditions(config, "cpu") == Conditions(("cpu",))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert conditions(config, "cuda") == Conditions(("cuda",))


def test_targets_are_timed_without_being_searched_for(tmp_path: Path) -> None:
    config = make_quick_config(tmp_path, latency={"targets": ["onnxruntime"], "batch_size": 8})
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
    config = make_quick_config(tmp_path, objectives=["accuracy", "latency"], **changes)
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
    config = make_quick_config(tmp_path, **changes, resources={"executor": "ray"})
    with pytest.raises(InputError, match=message):
        conditions(config, "cpu")


def test_a_machine_of_its_own_may_use_more_threads(tmp_path: Path) -> None:
    for resources in ({"executor": "inline"}, {"executor": "ray", "max_concurrent": 1}):
        config = make_quick_config(tmp_path, latency={"targets": ["cpu"], "threads": 2}, resources=resources)
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
        validate_targets(names)


def test_openvino_answers_as_torch_does_and_is_timed_on_the_wall() -> None:
    pytest.importorskip("openvino")
    model = network().eval()
    run = prepare("openvino", model, EXAMPLE, Conditions(("openvino",), batch_size=2))
    (answer,) = run().values()  # type: ignore[attr-defined]
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(answer), model(make_noise_like(EXAMPLE, 2)), atol=1e-4)
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
    assert validate_targets(["my_targets:triple"]) == ("my_targets:triple",)
    model = network().eval()
    run = prepare("my_targets:triple", model, EXAMPLE, Conditions(("my_targets:triple",)))
    with torch.no_grad():
        torch.testing.assert_close(run(), 3 * model(make_noise_like(EXAMPLE, 1)))
    with pytest.raises(InputError, match="other is an int, not a search.speed.targets.Target"):
        targets.load_target("my_targets:other")
    for name, why in (("my_targets:gone", "unknown name in my_targets: 'gone'"), ("nowhere:triple", "no module")):
        config = make_quick_config(tmp_path, latency={"targets": [name]})
        with pytest.raises(InputError, match=why):  # when the study is planned, before its data are loaded
            conditions(config, "cpu")
    with pytest.raises(InputError, match="unknown latency target 'openvin'; did you mean 'openvino'"):
        validate_targets(["openvin"])


class TwoInputs(nn.Module):
    """Takes an image and numbers, by position or by name, and gives a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.numbers, self.head = nn.Conv2d(1, 4, 3), nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, image: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        both = self.image(image).mean((2, 3)) + self.numbers(numbers)
        return {"out": self.head(both), "both": both}


@pytest.mark.parametrize("target", ["cpu", "onnxruntime", "openvino"])
@pytest.mark.parametrize("named", [False, True])
def test_networks_with_several_inputs_are_timed(target: str, named: bool) -> None:
    if target == "openvino":
        pytest.importorskip("openvino")
    image, numbers = torch.zeros(1, 1, 8, 8), torch.zeros(1, 5)
    example: Any = {"numbers": numbers, "image": image} if named else (image, numbers)  # not in the network's order
    model = TwoInputs().eval()
    run: Any = prepare(target, model, example, Conditions((target,), batch_size=2, channels_last=True))
    found = list(run().values()) if target != "onnxruntime" else run()
    inputs: Any = make_noise_like(example, 2)
    with torch.no_grad():
        wanted = model(**inputs) if named else model(*inputs)
    for one, other in zip(found, wanted.values(), strict=True):
        torch.testing.assert_close(torch.as_tensor(one), other, atol=1e-4, rtol=1e-3)
    timings, reasons = measure_pair(Conditions((target,), seconds=0.02), model, model, example)
    assert list(timings) == [target] and reasons == {}


def test_an_exported_network_with_fewer_inputs_is_no_measurement() -> None:
    with pytest.raises(ValueError, match=r"takes 1 inputs \(image\), given are 2"):
        name_inputs(["image"], (EXAMPLE, EXAMPLE))
    with pytest.raises(ValueError, match="gives 1 outputs, torch 2"):
        check_answer([EXAMPLE], [EXAMPLE, EXAMPLE])
    with pytest.raises(ValueError, match=r"gives \[4\], torch \[1, 2, 4, 4\]"):
        check_answer([torch.zeros(4)], [EXAMPLE])


@pytest.mark.parametrize(
    ("target", "missing", "said"),
    [
        ("tensorrt", "tensorrt", "tensorrt is not installed; `pip install tensorrt onnx onnxscript`"),
        ("executorch", "executorch.exir", "executorch.exir is not installed; `pip install executorch`"),
    ],
)
def test_without_the_package_of_a_target(target: str, missing: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    here = replace(targets.TARGETS[target], device="cpu")
    monkeypatch.setattr(targets, "TARGETS", {**targets.TARGETS, target: here})
    with pytest.raises(InputError, match=f"latency target {target}: {re.escape(said)}, or leave this target out"):
        check_targets(Conditions((target,)), network(), EXAMPLE)


def test_tensorrt_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"'tensorrt' needs a CUDA device.*\(cpu, .*openvino, executorch\)"):
        check_devices(["cpu", "tensorrt"])


class FakeEngine:
    """Stands for TensorRT: builds an engine that runs the network it stands for, on addresses.

    Args:
        model: What it runs.
        readable: Whether it reads the graph.
        scale: What its answers are multiplied with.
    """

    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    BuilderFlag = SimpleNamespace(TF32="tf32")

    def __init__(self, model: nn.Module, readable: bool = True, scale: float = 1.0) -> None:
        self.model, self.readable, self.scale = model, readable, scale
        self.addresses: dict[str, int] = {}
        self.num_io_tensors, self.cleared = 3, list[str]()

    def __call__(self, *args: Any) -> FakeEngine:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self  # builders, networks, parsers and settings are this object, too

    def parse(self, graph: bytes) -> bool:
        onnx.load_from_string(graph)
        return self.readable

    def desc(self) -> str:
        return "no operator Foo"

    def clear_flag(self, flag: str) -> None:
        self.cleared.append(flag)

    def get_tensor_name(self, place: int) -> str:
        return ["image", "numbers", "y"][place]

    def get_tensor_mode(self, name: str) -> str:
        return "out" if name == "y" else "in"

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> None:
        def locate(name: str, *shape: int) -> Any:
            count = math.prod(shape)
            return np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses[name])).reshape(shape)

        inputs = torch.from_numpy(locate("image", 2, 1, 8, 8)), torch.from_numpy(locate("numbers", 2, 5))
        with torch.no_grad():
            locate("y", 2, 2)[:] = self.scale * self.model(*inputs).numpy()


class OneOutput(TwoInputs):
    """The same with a tensor as answer."""

    def forward(self, image: Tensor, numbers: Tensor) -> Any:
        return super().forward(image, numbers)["out"]


def test_tensorrt_is_given_the_inputs_and_must_answer_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    model = OneOutput().eval()
    inputs = make_noise_like((torch.zeros(1, 1, 8, 8), torch.zeros(1, 5)), 2)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    engine = FakeEngine(model)
    monkeypatch.setitem(sys.modules, "tensorrt", engine)
    run: Any = tensorrt_run(model, inputs, 1)
    with torch.no_grad():
        torch.testing.assert_close(run()["y"], model(*inputs))
    assert engine.cleared == ["tf32"]
    monkeypatch.setitem(sys.modules, "tensorrt", FakeEngine(model, scale=2.0))
    with pytest.raises(ValueError, match="the exported network deviates by"):
        tensorrt_run(model, inputs, 1)
    monkeypatch.setitem(sys.modules, "tensorrt", FakeEngine(model, readable=False))
    with pytest.raises(ValueError, match="TensorRT cannot read the graph: no operator Foo"):
        tensorrt_run(model, inputs, 1)


def test_executorch_answers_as_torch_does() -> None:
    pytest.importorskip("executorch.runtime")
    model = TwoInputs().eval()
    example: Any = (torch.zeros(1, 1, 8, 8), torch.zeros(1, 5))
    run: Any = prepare("executorch", model, example, Conditions(("executorch",), batch_size=2))
    with torch.no_grad():
        wanted = model(*make_noise_like(example, 2))
    for one, other in zip(run(), wanted.values(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_executorch_is_given_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    model, lowered = network().eval(), list[Any]()

    def lower(program: Any, partitioner: list[str]) -> Any:
        lowered.append((program, partitioner))
        return SimpleNamespace(to_executorch=lambda: SimpleNamespace(buffer=program))

    def load(program: Any) -> Any:
        method = SimpleNamespace(execute=lambda inputs: [program.module()(*inputs)])
        return SimpleNamespace(load_method=lambda name: method if name == "forward" else None)

    runtime = SimpleNamespace(get=lambda: SimpleNamespace(load_program=load))
    for name, module in {
        "executorch.exir": SimpleNamespace(to_edge_transform_and_lower=lower),
        "executorch.backends.xnnpack.partition.xnnpack_partitioner": SimpleNamespace(XnnpackPartitioner=lambda: "x"),
        "executorch.runtime": SimpleNamespace(Runtime=runtime),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    run: Any = prepare("executorch", model, EXAMPLE, Conditions(("executorch",), batch_size=2))
    with torch.no_grad():
        torch.testing.assert_close(run()[0], model(make_noise_like(EXAMPLE, 2)))
    assert [partitioner for _, partitioner in lowered] == [["x"]]
