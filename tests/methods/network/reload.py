"""Run in a process of its own: networks are rebuilt from what lies in a folder, and must answer as they did."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from methods.contract.inputs import Inputs, outputs_in
from methods.network.architecture import rebuild
from tests.methods.network.further_networks import PROVEN, Case
from tests.methods.network.networks import EXAMPLE, KINDS

CASES: dict[str, Case] = {**{f"kinds {name}": (build, EXAMPLE) for name, build in KINDS.items()}, **PROVEN}


def batch_of(example: Inputs) -> Any:
    """Return two examples that differ."""
    assert isinstance(example, Tensor)
    return torch.cat([example, example.flip(-1)])


def answers_of(model: nn.Module, example: Inputs) -> list[Tensor]:
    with torch.no_grad():
        return outputs_in(model.eval()(batch_of(example)))


def main(folder: Path) -> None:
    """Print the names of the networks that answer otherwise, as JSON."""
    different = []
    for place, (name, (build, example)) in enumerate(CASES.items()):
        torch.manual_seed(1)  # other weights than those that are loaded
        description = json.loads((folder / f"{place}.json").read_text())
        saved = torch.load(folder / f"{place}.pt", weights_only=True)
        found = answers_of(rebuild(build(), description, saved["weights"]), example)
        if len(found) != len(saved["answers"]) or not all(map(torch.equal, found, saved["answers"])):
            different.append(name)
    print(json.dumps({"read": len(CASES), "different": different}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
