"""Do exports work where nothing of paretoprune is installed, and reach what their cards say, to the last image?

    python -m benchmarks.exports --study default --to exports

Exports every network on the front of a study of images, makes two fresh virtual environments, one with ONNX Runtime
alone and one with torch alone (``--onnx-python`` and ``--torch-python`` take those that are there), runs
``exports_alone.py`` in each over all of validation and test, and prints one table. The exit status is 1 where a file
does not load or one image is answered otherwise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
import torch

from search.artefacts.export import export_members
from search.store.studies import StudyFiles
from search.tasks.data.sets import load_data

ALONE = Path(__file__).with_name("exports_alone.py")
PACKAGES = {"onnx": ("onnxruntime", "numpy"), "pt2": ("torch",)}


def write_data(files: StudyFiles, to: Path) -> None:
    """Write validation and test data of a study as networks get them, for NumPy and for torch.

    Args:
        files: The study.
        to: A folder.
    """
    config = files.config()
    data = load_data(config.data, config.data_root, config.split)
    tensors = {}
    for name, split in (("validation", data.validation), ("test", data.test)):
        batches = list(split.batches(512))
        tensors[f"{name}_images"] = torch.cat([inputs for inputs, _ in batches])
        tensors[f"{name}_labels"] = torch.cat([labels for _, labels in batches])
    torch.save(tensors, to / "data.pt")
    np.savez(to / "data.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})


def make_environment(to: Path, packages: tuple[str, ...]) -> Path:
    """Make a virtual environment with some packages and nothing else.

    Args:
        to: Its folder.
        packages: What is installed.

    Returns:
        Its Python.
    """
    venv.create(to, with_pip=True)
    python = to / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def run_alone(python: Path, kind: str, to: Path) -> list[dict[str, Any]]:
    """Run all exports in an environment.

    Args:
        python: Its Python.
        kind: ``"onnx"`` or ``"pt2"``.
        to: The folder that holds ``networks`` and the data.

    Returns:
        What it printed: first what is installed, then one entry per export.
    """
    data = to / ("data.npz" if kind == "onnx" else "data.pt")
    command = [str(python), "-I", str(ALONE), kind, str(to / "networks"), str(data)]
    done = subprocess.run(command, cwd=to, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def report(found: dict[str, list[dict[str, Any]]]) -> bool:
    """Print what was found.

    Args:
        found: What each environment printed, by kind of file.

    Returns:
        Whether every file reaches what its card says, to the last image.
    """
    good = True
    for kind, (environment, *_) in found.items():
        print(f"model.{kind}: of {', '.join(PACKAGES[kind])} and our packages, it has {environment['installed']}")
    print("\n| trial | method | part | card | ONNX Runtime alone | torch alone |\n|---|---|---|---|---|---|")
    for onnx, pt2 in zip(found["onnx"][1:], found["pt2"][1:], strict=True):
        for part in ("validation", "test"):
            one, other = onnx[part], pt2[part]
            good &= one["right"] == other["right"] == one["card"]
            print(
                f"| {int(onnx['export'])} | {onnx['method']} | {part} | {one['card']:g} of {one['of']} | "
                f"{one['right']} | {other['right']} |"
            )
    print(f"\n{len(found['onnx']) - 1} networks: {'all as their cards say' if good else 'NOT as their cards say'}")
    return good


def main() -> int:
    """Run the check.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", help="name of the study; the last one by default")
    parser.add_argument("--directory", type=Path, default=Path("mlruns"))
    parser.add_argument("--to", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--onnx-python", type=Path, help="Python of an environment with onnxruntime alone")
    parser.add_argument("--torch-python", type=Path, help="Python of an environment with torch alone")
    asked = parser.parse_args()
    to = asked.to.absolute()
    files = StudyFiles.open(asked.directory, asked.study)
    numbers = [member.trial for member in files.front().members]
    export_members(files, {number: to / "networks" / f"{number:04d}" for number in numbers})
    write_data(files, to)
    pythons = {
        "onnx": asked.onnx_python or make_environment(to / "with-onnxruntime", PACKAGES["onnx"]),
        "pt2": asked.torch_python or make_environment(to / "with-torch", PACKAGES["pt2"]),
    }
    return 0 if report({kind: run_alone(python, kind, to) for kind, python in pythons.items()}) else 1


if __name__ == "__main__":
    sys.exit(main())
