"""A network in ExecuTorch on the CPU, by XNNPACK's kernels: the only import of executorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from methods.contract.inputs import Inputs, call, leaves, tensors
from search.speed.onnx_session import NotInstalled, check_answer, silence_exporters

if TYPE_CHECKING:
    from search.speed.interleaved import Run

_MISSING = "is not installed; `pip install executorch`, or leave this target out"


def executorch_run(model: nn.Module, inputs: Inputs, threads: int) -> Run:
    """Lower a network to ExecuTorch, as it runs on a phone, and load it here.

    Args:
        model: The network on the CPU, in eval mode.
        inputs: Its inputs; the program takes this batch size alone.
        threads: Not used: ExecuTorch has a pool of threads of its own.

    Returns:
        One forward pass; it has run before.

    Raises:
        NotInstalled: If ExecuTorch is missing. Another answer than torch's is a ``ValueError``.
    """
    try:
        exir: Any = import_module("executorch.exir")
        xnnpack: Any = import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
        runtime: Any = import_module("executorch.runtime")
    except ImportError as error:
        raise NotInstalled(f"{error.name or 'executorch'} {_MISSING}") from error
    named = inputs if isinstance(inputs, dict) else {}
    given = tensors(inputs)
    with silence_exporters():
        program = torch.export.export(model, () if named else tuple(given), named)
        lowered = exir.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner()])
        loaded = runtime.Runtime.get().load_program(lowered.to_executorch().buffer)
    method = loaded.load_method("forward")

    def run() -> Any:
        return method.execute(given)

    with torch.inference_mode():
        wanted = leaves(call(model, inputs))
    check_answer(leaves(run()), wanted)
    return run
