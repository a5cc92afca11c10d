"""A network in ONNX Runtime on the CPU: the only import of onnx and onnxruntime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from search.speed.interleaved import Run

TOLERANCE = 1e-2
"""Largest deviation from torch's answer, as a share of its largest number; kernels round in different orders."""


class NotInstalled(Exception):
    """A library that a target needs, or the exporter, is not installed."""


def onnx_run(model: nn.Module, inputs: Tensor, threads: int) -> Run:
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
    feed = {session.get_inputs()[0].name: inputs.contiguous().numpy()}

    def run() -> Any:
        return session.run(None, feed)

    with torch.inference_mode():
        wanted = model(inputs)
    check_answer(torch.from_numpy(run()[0]), wanted)
    return run


def onnx_bytes(model: nn.Module, inputs: Tensor) -> bytes:
    """Export a network to ONNX.

    Args:
        model: The network on the CPU, in eval mode.
        inputs: Its inputs; the exported network takes this batch size alone.

    Returns:
        The graph with its weights.
    """
    with _quiet():
        program: Any = torch.onnx.export(model, (inputs,), dynamo=True, verbose=False)
    graph: bytes = program.model_proto.SerializeToString()
    return graph


def check_answer(answer: Tensor, wanted: Tensor) -> None:
    """Make sure that what is timed is the same network.

    Args:
        answer: What the target gave.
        wanted: What torch gives.

    Raises:
        ValueError: If they differ by more than :data:`TOLERANCE` of the largest number.
    """
    scale = float(wanted.abs().max())
    deviation = float((answer - wanted).abs().max())
    if not deviation <= TOLERANCE * max(scale, 1e-6):
        raise ValueError(f"the exported network deviates by {deviation:.3g} where torch gives up to {scale:.3g}")


@contextmanager
def _quiet() -> Generator[None]:
    """The exporter warns and logs about itself; what matters is checked by its answer."""
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
