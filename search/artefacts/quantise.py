"""An ONNX graph in 8 bits: quantised after training by ONNX Runtime, and measured like any other network."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from methods.contract.data import Split
from methods.contract.inputs import Inputs, tensors
from methods.contract.task import Task
from search.artefacts.programs import NotExportable
from search.objectives.quality import measure_quality
from search.speed.interleaved import Effort, time_in_turns
from search.speed.watches import HostWatch
from spaces.errors import shorten_error

EFFORT = Effort(seconds=1.0)
"""How long the two graphs are timed, in turns."""


class OnnxNetwork(nn.Module):
    """An ONNX graph in ONNX Runtime on one core, called like a network of torch.

    Args:
        file: The graph.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._names = [each.name for each in self._session.get_inputs()]
        self.place = nn.Parameter(torch.zeros(()), requires_grad=False)  # tells where it computes: on the CPU

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """Run the graph.

        Args:
            *inputs: Positional inputs.
            **named: Inputs by name.

        Returns:
            The first output.
        """
        arrays = [tensor.numpy() for tensor in (*inputs, *named.values())]
        return torch.from_numpy(self._session.run(None, dict(zip(self._names, arrays, strict=True)))[0])


def quantise(source: Path, target: Path, batches: Sequence[Inputs]) -> None:
    """Quantise weights and activations to 8 bits, ranges of activations from real inputs.

    Args:
        source: An ONNX graph in single precision.
        target: The file to write.
        batches: Training inputs that calibrate.

    Raises:
        NotExportable: If ONNX Runtime cannot do it.
    """
    from onnxruntime import quantization

    names = OnnxNetwork(source)._names
    feeds = [dict(zip(names, (each.numpy() for each in tensors(batch)), strict=True)) for batch in batches]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # the library is not typed
        """Hands out the batches, one by one."""

        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> Any:
            """Return the next batch.

            Returns:
                Arrays by name of the input; ``None`` when there are no more.
            """
            return next(self._left, None)

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # it advises to preprocess, which the exporter has done
    try:
        quantization.quantize_static(str(source), str(target), Reader(), per_channel=True)
    except Exception as error:  # graphs fail in any way
        target.unlink(missing_ok=True)
        raise NotExportable(f"ONNX Runtime cannot quantise it: {shorten_error(error)}") from error
    finally:
        logging.disable(before)


def measure_quantised(whole: Path, quantised: Path, validation: Split, test: Split, task: Task) -> dict[str, Any]:
    """Measure a quantised graph: quality on both sets, and its time beside that of the graph in single precision.

    Args:
        whole: The graph in single precision.
        quantised: The graph in 8 bits.
        validation: Validation data, on the CPU.
        test: Test data, on the CPU.
        task: What the network is for.

    Returns:
        ``metrics``, ``test_metrics``, ``latency`` (median seconds of one input, as ``int8`` and ``whole``) and
        ``latency_share`` (the quotient of both).
    """
    networks = [OnnxNetwork(file) for file in (whole, quantised)]
    inputs, _ = next(iter(validation.batches(1)))
    arrays = tensors(inputs)
    runs = [lambda network=network: network(*arrays) for network in networks]
    times = [sorted(rounds) for rounds in time_in_turns(HostWatch(1), runs, EFFORT)]
    medians = [rounds[len(rounds) // 2] for rounds in times]
    return {
        "metrics": measure_quality(networks[1], validation, task),
        "test_metrics": measure_quality(networks[1], test, task),
        "latency": {"whole": medians[0], "int8": medians[1]},
        "latency_share": medians[1] / medians[0],
    }
