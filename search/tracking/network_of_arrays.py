"""What MLflow's ``python_function`` runs for a network of several inputs or outputs; copied into each such model.

MLflow's own loader for torch passes one array and takes one tensor back. This one passes arrays by the names in the
signature (or in their order) and gives all outputs back. It needs torch and NumPy alone, and imports nothing of the
package that it comes from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

PROGRAM = "model.pt2"
ARGUMENTS = "arguments.json"


class ArrayNetwork:
    """A program of ``torch.export`` as a function of arrays.

    Args:
        folder: Holds the program, and how it is called: ``names`` of its inputs in order, and whether they are
            ``keywords``.
    """

    def __init__(self, folder: Path) -> None:
        self.program = torch.export.load(folder / PROGRAM).module()
        called = json.loads((folder / ARGUMENTS).read_text(encoding="utf-8"))
        self.names: list[str] = called["names"]
        self.keywords: bool = called["keywords"]

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Run the network.

        Args:
            data: Arrays by name of the input, a list or tuple of arrays in their order, or one array.
            params: Not used; part of MLflow's call.

        Returns:
            An array for one output; a dict or a tuple of arrays for several.

        Raises:
            ValueError: If an input is missing.
        """
        if isinstance(data, Mapping):
            missing = [name for name in self.names if name not in data]
            if missing:
                raise ValueError(f"inputs {', '.join(missing)} are missing; the network takes {', '.join(self.names)}")
            several = [data[name] for name in self.names]
        else:
            several = list(data) if isinstance(data, list | tuple) else [data]
        tensors = [torch.from_numpy(np.ascontiguousarray(each)) for each in several]
        with torch.no_grad():
            if self.keywords:
                return _arrays(self.program(**dict(zip(self.names, tensors, strict=True))))
            return _arrays(self.program(*tensors))


def _arrays(answer: Any) -> Any:
    """Turn every tensor into an array."""
    if isinstance(answer, torch.Tensor):
        return answer.numpy()
    if isinstance(answer, Mapping):
        return {name: _arrays(each) for name, each in answer.items()}
    return tuple(_arrays(each) for each in answer)


def _load_pyfunc(path: str) -> ArrayNetwork:
    """Load a network; MLflow calls this by its name.

    Args:
        path: The folder of the program.

    Returns:
        What ``mlflow.pyfunc`` calls ``predict`` of.
    """
    return ArrayNetwork(Path(path))
