"""Where and how a network runs when it is timed.

| target | what runs |
|---|---|
| ``cpu`` | the network as it is, on the CPU |
| ``cpu-compiled`` | the network through ``torch.compile`` as one graph, on the CPU |
| ``cuda`` | a CUDA graph of the network, replayed: launching costs nothing |
| ``cuda-eager`` | the network as it is, on the GPU: small networks mostly wait to be launched |
| ``onnxruntime`` | the network exported to ONNX, in ONNX Runtime on the CPU |
| ``openvino`` | the network exported to ONNX and compiled by OpenVINO, on the CPU |
| ``tensorrt`` | the network exported to ONNX and built by TensorRT, on the GPU |
| ``executorch`` | the network lowered to XNNPACK's kernels by ExecuTorch, on the CPU |

Other packages add targets as entry points of the group ``paretoprune.targets``, and ``package.module:NAME`` names one
in any module: an object of :class:`Target`.

All run without gradients in single precision, on copies. Layers with equal forms run in the one that is measured to be
fastest there (``search.speed.tuner``).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs, call, map_tensors, move
from methods.contract.named import kind_of, load_named
from search.speed.conditions import GROUP, Conditions
from search.speed.executorch_session import executorch_run
from search.speed.interleaved import Run, Watch
from search.speed.onnx_session import NotInstalled, onnx_run
from search.speed.openvino_session import openvino_run
from search.speed.tensorrt_session import tensorrt_run
from search.speed.tuner import run_eagerly, tune
from search.speed.watches import DeviceWatch, HostWatch
from spaces.errors import kind_and_line


class Untimed(Exception):
    """A network cannot be timed on a target; says why, and what to do."""


@dataclass(frozen=True)
class Target:
    """A way to run a network.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        prepare: Makes one forward pass of a network on this device with these inputs (a tensor, or a tuple or dict of
            tensors, as the network takes them) and this many threads; runs it at least once.
        failure: What it means that preparing fails, and what to do.
        whole: Whether a compiler sees the whole network, and rearranges layers itself.
        own_threads: Whether it computes on threads of its own: then time on the wall counts, for the processor time of
            the calling thread does not see them.
    """

    device: str
    prepare: Callable[[nn.Module, Any, int], Run]
    failure: str
    whole: bool = False
    own_threads: bool = False


def prepare(name: str, model: nn.Module, example: Inputs, setting: Conditions) -> Run:
    """Make one forward pass of a network on a target.

    Args:
        name: A name in :data:`TARGETS`.
        model: The network; not changed.
        example: One input: a tensor ``[1, ...]``, or a tuple or dict of such tensors; only shapes, precision and kind
            of numbers matter.
        setting: Batch size, threads and layout.

    Returns:
        The forward pass; it has run before.

    Raises:
        Untimed: If it cannot be made.
    """
    target = load_target(name)
    try:
        network = copy.deepcopy(model).to(target.device).eval().requires_grad_(False)
        inputs = move(make_noise_like(example, setting.batch_size), target.device)
        if setting.channels_last:
            network = network.to(memory_format=torch.channels_last)
            inputs = map_tensors(inputs, _channels_last)
        clock = watch(name, setting.threads)

        def prepare_network(candidate: nn.Module) -> Run:
            return target.prepare(candidate, inputs, setting.threads)

        def prepare_layer(form: nn.Module, x: Tensor) -> Run:
            # A compiler would take minutes for all forms of all layers.
            return run_eagerly(form, x) if target.whole else target.prepare(form, x, setting.threads)

        return tune(network, inputs, prepare_layer, prepare_network, clock, plain=target.whole)[1]
    except NotInstalled as error:
        raise Untimed(f"{name}: {error}") from error
    except Exception as error:  # compilers, exporters and networks fail in any way; the rest of a trial is kept
        if _is_out_of_memory(error):
            raise Untimed(
                f"{name}: a batch of {setting.batch_size} does not fit into memory; choose a smaller latency.batch_size"
            ) from error
        raise Untimed(f"{name}: {target.failure} ({_shorten_error(error)})") from error


def make_noise_like(example: Inputs, batch_size: int) -> Any:
    """Make a batch of noise: on images of zeros, pooling and its like guess every branch right and look too fast.

    Args:
        example: One input, ``[1, ...]``, or a tuple or dict of such tensors.
        batch_size: Inputs of the batch.

    Returns:
        ``[batch_size, ...]``, the same every time, on the CPU; numbers that are not real are copies of the example's.
    """

    def noise(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor[:1].cpu().repeat(batch_size, *[1] * (tensor.ndim - 1))
        drawn = torch.randn(batch_size, *tensor.shape[1:], generator=torch.Generator().manual_seed(0))
        return drawn.to(tensor.dtype)

    return map_tensors(example, noise)


def watch(name: str, threads: int) -> Watch:
    """Return the watch that fits a target.

    Args:
        name: A name in :data:`TARGETS`.
        threads: Torch threads on the CPU.

    Returns:
        The watch.
    """
    target = load_target(name)
    if target.device == "cuda":
        return DeviceWatch()
    return HostWatch(threads, time.perf_counter if target.own_threads else None)


def load_target(name: str) -> Target:
    """Find a target.

    Args:
        name: A name in :data:`TARGETS`, of an entry point, or ``package.module:NAME``.

    Returns:
        The target; an ``InputError`` if there is none.
    """
    if name in TARGETS:
        return TARGETS[name]
    found: Target = load_named("latency target", name, {}, GROUP, _explain_wrong_kind)
    return found


def _explain_wrong_kind(found: Any) -> str | None:
    return None if isinstance(found, Target) else f"is {kind_of(found)}, not a search.speed.targets.Target"


@contextmanager
def threads_of(setting: Conditions) -> Generator[None]:
    """Compile and run with the wanted number of threads: compiled kernels have it built in.

    Args:
        setting: The conditions.

    Yields:
        Nothing; runs the block.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    # Compiled code is remembered by the Python code of a network, at most eight times, and then no longer made.
    torch.compiler.reset()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _prepare_eager(model: nn.Module, inputs: Inputs, threads: int) -> Run:
    def run() -> object:
        with torch.inference_mode():
            return call(model, inputs)

    run()
    return run


def _prepare_compiled(model: nn.Module, inputs: Inputs, threads: int) -> Run:
    # As one graph: where the compiler would give up, it must say so and not time the network as it is.
    compiled: Any = torch.compile(model, dynamic=False, fullgraph=True)

    def run() -> object:
        with torch.inference_mode():
            return call(compiled, inputs)

    run()
    return run


def _prepare_replayed(model: nn.Module, inputs: Inputs, threads: int) -> Run:
    # Capturing wants warm libraries, on a stream of its own (the recipe of torch's documentation).
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), torch.inference_mode():
        for _ in range(3):
            call(model, inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        answer = call(model, inputs)

    def run() -> object:
        graph.replay()
        return answer  # keeps the memory that the graph writes to

    run()
    torch.cuda.synchronize()
    return run


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return any(words in said for words in ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc"))


def _shorten_error(error: Exception) -> str:
    text = kind_and_line(error)
    return text if len(text) <= 300 else text[:299] + "…"


TARGETS: Mapping[str, Target] = MappingProxyType({
    "cpu": Target("cpu", _prepare_eager, "the network cannot run on the CPU"),
    "cpu-compiled": Target(
        "cpu",
        _prepare_compiled,
        "torch.compile cannot make one graph of the network, or finds no C++ compiler; leave this target out",
        whole=True,
    ),
    "cuda": Target(
        "cuda", _prepare_replayed, "the network cannot be captured in a CUDA graph; use the target cuda-eager instead"
    ),
    "cuda-eager": Target("cuda", _prepare_eager, "the network cannot run on the GPU; leave this target out"),
    "onnxruntime": Target(
        "cpu",
        onnx_run,
        "the network cannot be exported to ONNX, or ONNX Runtime cannot run it as torch does; leave this target out",
        whole=True,
    ),
    "openvino": Target(
        "cpu",
        openvino_run,
        "the network cannot be exported to ONNX, or OpenVINO cannot run it as torch does; leave this target out",
        whole=True,
        own_threads=True,
    ),
    "tensorrt": Target(
        "cuda",
        tensorrt_run,
        "the network cannot be exported to ONNX, or TensorRT cannot build it; leave this target out",
        whole=True,
    ),
    "executorch": Target(
        "cpu",
        executorch_run,
        "ExecuTorch cannot lower the network, or does not run it as torch does; leave this target out",
        whole=True,
        own_threads=True,
    ),
})
"""How the targets of :data:`search.speed.conditions.TARGETS` run."""
