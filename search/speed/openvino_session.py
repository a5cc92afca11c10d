"""A network in OpenVINO on the CPU: the only import of openvino."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from methods.contract.inputs import Inputs, call, leaves
from search.speed.onnx_session import NotInstalled, check_answer, name_inputs, onnx_bytes

if TYPE_CHECKING:
    from search.speed.interleaved import Run

_MISSING = "is not installed; `pip install openvino onnx onnxscript`, or leave this target out"


def openvino_run(model: nn.Module, inputs: Inputs, threads: int) -> Run:
    """Export a network to ONNX and compile it with OpenVINO for this CPU, in single precision.

    Args:
        model: The network on the CPU, in eval mode.
        inputs: Its inputs; the compiled network takes this batch size alone.
        threads: Threads of one inference; they are OpenVINO's own.

    Returns:
        One forward pass; it has run before.

    Raises:
        NotInstalled: If a package is missing. Another answer than torch's is a ``ValueError``.
    """
    try:
        import onnxscript  # noqa: F401  (torch's exporter needs it)
        import openvino
    except ImportError as error:
        raise NotInstalled(f"{error.name} {_MISSING}") from error
    core = openvino.Core()
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the CPU has it: another network than the others time
    }
    compiled = core.compile_model(core.read_model(onnx_bytes(model, inputs)), "CPU", settings)
    request = compiled.create_infer_request()
    names = [port.get_any_name() for port in compiled.inputs]
    feed = {place: tensor.numpy() for place, tensor in enumerate(name_inputs(names, inputs).values())}

    def run() -> Any:
        return request.infer(feed)

    with torch.inference_mode():
        wanted = leaves(call(model, inputs))
    given = run()
    check_answer([torch.from_numpy(given[port].copy()) for port in compiled.outputs], wanted)
    return run
