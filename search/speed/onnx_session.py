"""A network in ONNX Runtime on the CPU: the only import of onnx and onnxruntime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs, call, leaves, tensors

if TYPE_CHECKING:
    from search.speed.interleaved import Run

TOLERANCE = 1e-2
"""Largest deviation from torch's answer, as a share of its largest number; kernels round in different orders."""


class NotInstalled(Exception):
    """A library that a target needs, or the exporter, is not installed."""


def onnx_run(model: nn.Module, inputs: Inputs, threads: int) -> Run:
    """Export a network and load it in ONNX Runtime.

    Args:
        model: The network on the CPU, in eval mode.
        inputs: Its inputs; the exported network takes this batch size alone.
        threads: Threads inside an operator; operators run one after another.

    Returns:
        One forward pass; it has run before.

    Raises:
        NotInstalled: If a package is missing. Another answer than torch's is a ``ValueError``.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise NotInstalled(
            f"{error.name} is not installed; `pip install onnx onnxscript onnxruntime`, or leave this target out"
        ) from error
    exported = onnx_bytes(model, inputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    # Threads that spin for work would take the cores of the trials beside this one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    feed = {
        name: tensor.numpy()
        for name, tensor in name_inputs([each.name for each in session.get_inputs()], inputs).items()
    }

    def run() -> Any:
        return session.run(None, feed)

    with torch.inference_mode():
        wanted = leaves(call(model, inputs))
    check_answer([torch.from_numpy(array) for array in run()], wanted)
    return run


def name_inputs(names: Sequence[str], inputs: Inputs) -> dict[str, Tensor]:
    """Give the inputs of an exported network to their names.

    Args:
        names: Names of its inputs, in its order.
        inputs: The inputs; of a dict those of the same name, else one after the other.

    Returns:
        Contiguous tensors by name.

    Raises:
        ValueError: If the exported network takes another number of inputs.
    """
    if isinstance(inputs, dict) and set(names) == set(inputs):
        return {name: inputs[name].contiguous() for name in names}
    given = tensors(inputs)
    if len(names) != len(given):
        raise ValueError(f"the exported network takes {len(names)} inputs ({', '.join(names)}), given are {len(given)}")
    return {name: tensor.contiguous() for name, tensor in zip(names, given, strict=True)}


def onnx_bytes(model: nn.Module, inputs: Inputs) -> bytes:
    """Export a network to ONNX.

    Args:
        model: The network on the CPU, in eval mode.
        inputs: Its inputs; the exported network takes this batch size alone.

    Returns:
        The graph with its weights.
    """
    named = inputs if isinstance(inputs, dict) else {}
    with silence_exporters():
        program: Any = torch.onnx.export(
            model, () if named else tuple(tensors(inputs)), kwargs=named, dynamo=True, verbose=False
        )
    graph: bytes = program.model_proto.SerializeToString()
    return graph


def check_answer(answers: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Make sure that what is timed is the same network.

    Args:
        answers: What the target gave, output by output.
        wanted: What torch gives.

    Raises:
        ValueError: If an output is missing, or differs by more than :data:`TOLERANCE` of its largest number.
    """
    if len(answers) != len(wanted):
        raise ValueError(f"the exported network gives {len(answers)} outputs, torch {len(wanted)}")
    for answer, right in zip(answers, wanted, strict=True):
        if answer.shape != right.shape:
            raise ValueError(f"the exported network gives {list(answer.shape)}, torch {list(right.shape)}")
        scale = float(right.abs().max())
        deviation = float((answer.to(right) - right).abs().max())
        if not deviation <= TOLERANCE * max(scale, 1e-6):
            raise ValueError(f"the exported network deviates by {deviation:.3g} where torch gives up to {scale:.3g}")


@contextmanager
def silence_exporters() -> Generator[None]:
    """Keep exporters from warning and logging about themselves; what matters is checked by the answer.

    Yields:
        Nothing; runs the block.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
