"""A network built by TensorRT for the GPU: the only import of tensorrt."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from methods.contract.inputs import Inputs, call, leaves, move
from search.speed.onnx_session import NotInstalled, check_answer, name_inputs, onnx_bytes

if TYPE_CHECKING:
    from search.speed.interleaved import Run

_MISSING = "is not installed; `pip install tensorrt onnx onnxscript`, or leave this target out"


def tensorrt_run(model: nn.Module, inputs: Inputs, threads: int) -> Run:
    """Export a network to ONNX and build it with TensorRT, in single precision without TF32.

    Args:
        model: The network on the GPU, in eval mode.
        inputs: Its inputs there; the engine takes this batch size alone.
        threads: Not used.

    Returns:
        One forward pass, put into torch's present stream; it has run before.

    Raises:
        NotInstalled: If a package is missing.
        ValueError: If TensorRT cannot read or build the network, or gives another answer than torch.
    """
    try:
        import onnxscript  # noqa: F401  (torch's exporter needs it)
        import tensorrt
    except ImportError as error:
        raise NotInstalled(f"{error.name} {_MISSING}") from error
    graph = onnx_bytes(copy.deepcopy(model).cpu(), move(inputs, "cpu"))
    engine = _engine(tensorrt, graph)
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
    taken = [name for name in names if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT]
    with torch.inference_mode():
        wanted = leaves(call(model, inputs))
    given = [name for name in names if name not in taken]
    if len(given) != len(wanted):
        raise ValueError(f"the engine gives {len(given)} outputs, torch {len(wanted)}")
    answers = [torch.empty_like(each).contiguous() for each in wanted]
    tensors = name_inputs(taken, inputs) | dict(zip(given, answers, strict=True))
    for name, tensor in tensors.items():
        context.set_tensor_address(name, tensor.data_ptr())

    def run() -> object:
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        return tensors  # keeps the memory that the engine reads and writes

    run()
    torch.cuda.synchronize()
    check_answer(answers, wanted)
    return run


def _engine(tensorrt: Any, graph: bytes) -> Any:
    """Build an engine from an ONNX graph."""
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(graph):
        raise ValueError(f"TensorRT cannot read the graph: {parser.get_error(0).desc()}")
    settings = builder.create_builder_config()
    settings.clear_flag(tensorrt.BuilderFlag.TF32)  # else another network than the other targets time
    built = builder.build_serialized_network(network, settings)
    if built is None:
        raise ValueError("TensorRT cannot build the network")
    return tensorrt.Runtime(logger).deserialize_cuda_engine(built)
