"""Whether exported networks work for somebody who has neither this package nor the code of the network.

They are run in a process of their own: isolated (``python -I -S``), in an empty folder, with the folders of installed
packages on the import path, and with a guard that finds none of our packages and none of the user's modules.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from methods.contract.inputs import Inputs, call
from search.records.errors import RunError

TOLERANCE = 1e-4
"""Largest difference from the network's own answers, in units of the largest of them where that is above 1."""

OURS = ("paretoprune", "search", "methods", "spaces")

SECONDS = 900.0


@dataclass(frozen=True)
class Job:
    """One file to run.

    Attributes:
        file: The file.
        format: ``"pt2"`` or ``"onnx"``.
        arrays: Where inputs and expected answers are (:func:`write_arrays`).
        keywords: Whether the inputs are keyword arguments.
        batch: The batch size it is made for; ``None`` for any.
    """

    file: Path
    format: str
    arrays: Path
    keywords: bool = False
    batch: int | None = None


@dataclass(frozen=True)
class Parity:
    """What came of running a file.

    Attributes:
        largest_difference: Largest absolute difference from the network's own answers; NaN if it did not run.
        scale: Largest absolute number among those answers.
        inputs: How many real inputs were run.
        error: Why it did not run; ``None`` if it did.
    """

    largest_difference: float
    scale: float
    inputs: int
    error: str | None = None

    @property
    def verified(self) -> bool:
        """Whether the file gives the network's answers."""
        return self.error is None and self.largest_difference <= TOLERANCE * max(1.0, self.scale)

    def reason(self) -> str | None:
        """Say why the file does not count.

        Returns:
            The reason; ``None`` if it is verified.
        """
        if self.error is not None:
            return f"it does not run in a clean process: {self.error}"
        if self.verified:
            return None
        return f"its answers differ by {self.largest_difference:.3g} where the largest is {self.scale:.3g}"


def write_arrays(path: Path, model: nn.Module, inputs: Inputs) -> None:
    """Write inputs and the answers of a network to them.

    Args:
        path: The file, ending in ``.npz``.
        model: The network in eval mode, on the CPU.
        inputs: At least two inputs: a tensor ``[n, ...]``, positional arguments, or keyword arguments.
    """
    with torch.inference_mode():
        answer = call(model, inputs)
    named = inputs if isinstance(inputs, Mapping) else {str(n): each for n, each in enumerate(_positional(inputs))}
    outputs = [leaf for leaf in tree_leaves(answer) if isinstance(leaf, Tensor)]
    arrays = {f"in.{name}": each.numpy() for name, each in named.items()}
    arrays |= {f"out.{n}": each.numpy() for n, each in enumerate(outputs)}
    np.savez(path, allow_pickle=False, **arrays)


def run_clean(jobs: Sequence[Job], refused: Iterable[str] = ()) -> list[Parity]:
    """Run files in a clean process and compare their answers with the network's.

    Args:
        jobs: What to run.
        refused: Names of further packages that must not be found, such as the module of the user's network.

    Returns:
        What came of each file, in order.

    Raises:
        RunError: If the process itself failed.
    """
    if not jobs:
        return []
    asked = {
        "libraries": sorted({sysconfig.get_path(kind) for kind in ("purelib", "platlib")} | _homes()),
        "refused": sorted({*OURS, *refused}),
        "jobs": [_describe_job(job) for job in jobs],
    }
    script = Path(__file__).with_name("clean_run.py")
    with tempfile.TemporaryDirectory(prefix="paretoprune-clean-") as empty:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(script)],
            input=json.dumps(asked),
            cwd=empty,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    try:
        answered = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        last = done.stderr.strip().rpartition("\n")[2]
        raise RunError(f"the process that checks exported files ended with code {done.returncode}: {last}") from error
    if answered["loaded"]:
        raise RunError(f"the process that checks exported files was not clean: it holds {answered['loaded']}")
    return [_parity(each) for each in answered["answers"]]


def _positional(inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs,) if isinstance(inputs, Tensor) else inputs


def _homes() -> set[str]:
    """Where torch is installed: not always where Python keeps its packages."""
    return {str(Path(torch.__file__).resolve().parent.parent), str(Path(np.__file__).resolve().parent.parent)}


def _describe_job(job: Job) -> dict[str, Any]:
    paths = {"file": str(job.file.resolve()), "arrays": str(job.arrays.resolve())}
    return {**paths, "format": job.format, "keywords": job.keywords, "batch": job.batch}


def _parity(answer: Mapping[str, Any]) -> Parity:
    if "error" in answer:
        return Parity(math.nan, math.nan, 0, str(answer["error"]))
    return Parity(float(answer["largest_difference"]), float(answer["scale"]), int(answer["inputs"]))
