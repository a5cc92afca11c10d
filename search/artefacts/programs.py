"""Networks as programs that need none of the code they were made by: ``torch.export`` and ONNX.

The batch size stays free where the network allows it. What cannot be captured is named: the operation, or the line of
the network that stopped the capture.
"""

from __future__ import annotations

import logging
import re
import traceback
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs

if TYPE_CHECKING:
    from torch.export import ExportedProgram

LONGEST = 300
"""Characters of a reason."""


class NotExportable(Exception):
    """A network cannot be written in a form; says which operation is in the way."""


@dataclass(frozen=True)
class Captured:
    """A network as a program.

    Attributes:
        program: What ``torch.export`` made of it.
        batch: Its batch size; ``None`` where it takes any.
    """

    program: ExportedProgram
    batch: int | None


def capture(model: nn.Module, inputs: Inputs) -> Captured:
    """Turn a network into a program.

    Args:
        model: The network in eval mode, on the CPU.
        inputs: At least two inputs: a tensor ``[n, ...]``, positional arguments, or keyword arguments.

    Returns:
        The program for any batch size; where the network fixes it, a program for one input.

    Raises:
        NotExportable: If the network does something that cannot be captured.
    """
    args, kwargs = _call(inputs)
    free = {0: torch.export.Dim.DYNAMIC}
    shapes: Any = tuple(free for _ in args) if args else dict.fromkeys(kwargs, free)
    try:
        with _silence_exporter():
            return Captured(torch.export.export(model, args, kwargs, dynamic_shapes=shapes), None)
    except Exception as error:  # the capture runs foreign code, which fails in any way
        first = error
    one = [tensor[:1] for tensor in (*args, *kwargs.values())]
    try:
        with _silence_exporter():
            program = torch.export.export(model, tuple(one[: len(args)]), dict(zip(kwargs, one, strict=False)))
    except Exception:
        raise NotExportable(f"torch.export: {_obstacle(first)}") from first
    return Captured(program, 1)


def write_pt2(captured: Captured, path: Path) -> None:
    """Write a program for torch.

    Args:
        captured: The program.
        path: The file, ending in ``.pt2``.

    Raises:
        NotExportable: If torch cannot write it.
    """
    try:
        with _silence_exporter():
            torch.export.save(captured.program, path)
    except Exception as error:  # foreign operators need not have a form on disk
        path.unlink(missing_ok=True)
        raise NotExportable(f"torch.export: {_obstacle(error)}") from error


def write_onnx(captured: Captured, path: Path) -> None:
    """Write a program as an ONNX graph.

    Args:
        captured: The program.
        path: The file.

    Raises:
        NotExportable: If a package is missing, or an operation has no counterpart in ONNX.
    """
    try:
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise NotExportable(f"{error.name} is not installed; `pip install onnx onnxscript onnxruntime`") from error
    try:
        with _silence_exporter():
            _translate(captured).save(str(path))
    except Exception as error:  # operations without a counterpart end in many ways
        path.unlink(missing_ok=True)
        raise NotExportable(f"torch.onnx: {_obstacle(error)}") from error


def import_exporters(onnx: bool) -> None:
    """Import what writing programs needs: much of it is imported only when a network is captured, so one of a layer is.

    Starts no thread, so that the process can be forked.

    Args:
        onnx: Whether graphs are to be written, too.
    """
    with suppress(ImportError):
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # torch's captures open bars of it, the first of which starts a thread
    with suppress(NotExportable, ImportError):  # what is in the way is said of each network that is to be exported
        captured = capture(nn.Linear(1, 1).eval(), torch.zeros(2, 1))
        if onnx:
            with _silence_exporter():
                _translate(captured)


def _translate(captured: Captured) -> Any:
    return torch.onnx.export(captured.program, dynamo=True, verbose=False)


def _call(inputs: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Positional and keyword arguments of a call."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (inputs,) if isinstance(inputs, Tensor) else tuple(inputs), {}


def _obstacle(error: BaseException) -> str:
    """Name the operation that is in the way, or the line of the network, and say what torch said of it."""
    chain = [error]
    while (following := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(following)
    whole = "\n".join(str(each) for each in chain)
    said = [first for each in chain if (first := _take_first_line(str(each))) and "\x1b" not in first]
    sentence = said[0] if said else type(error).__name__
    operation = re.search(r"op='([\w.]+)'", whole) or re.search(r"\b(aten\.[\w.]+|torchvision\.\w+)", whole)
    if operation:
        text = f"operation {operation.group(1)}: {sentence}"
    else:
        place = _place(whole, chain)
        text = f"{place}: {sentence}" if place else sentence
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _place(said: str, chain: Sequence[BaseException]) -> str | None:
    """The last line of the user's that torch names, or else that the traceback went through."""
    named = re.findall(r'File "([^"]+)", line (\d+), in \w+\n\s+(\S[^\n]*)', said)
    frames = [(file, number, code) for file, number, code in named if _is_foreign(file)]
    if not frames:
        steps = [step for each in chain for step in traceback.extract_tb(each.__traceback__)]
        steps = [step for step in steps if _is_foreign(step.filename)]
        frames = [(step.filename, str(step.lineno), step.line or step.name) for step in steps]
    if not frames:
        return None
    file, number, code = frames[-1]
    return f"`{code.strip()}` ({Path(file).name}, line {number})"


def _is_foreign(file: str) -> bool:
    """Whether a file is neither the exporter's nor this one."""
    homes = (Path(torch.__file__).parent, Path(__file__))
    return not any(Path(file).is_relative_to(home) for home in homes) and "onnxscript" not in file


def _take_first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


@contextmanager
def _silence_exporter() -> Generator[None]:
    """Exporters warn, log and print about themselves; what matters is checked by the answers of what they wrote."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
