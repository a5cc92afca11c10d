"""In which forms a network can leave a study. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spaces import InputError, explain_unknown_name


@dataclass(frozen=True)
class Format:
    """A form of a network on disk.

    Attributes:
        title: What it is, and what loads it.
        files: Names of its files in the folder of an export.
    """

    title: str
    files: tuple[str, ...]


FORMATS: dict[str, Format] = {
    "pt2": Format("a program of torch.export; needs torch alone", ("model.pt2",)),
    "onnx": Format("an ONNX graph; runs in ONNX Runtime and whatever else reads ONNX", ("model.onnx",)),
    "safetensors": Format(
        "weights and widths, to train or prune further; needs paretoprune and the network's own code",
        ("weights.safetensors", "architecture.json"),
    ),
}
"""Every form by its name on the command line."""

PROGRAMS = ("pt2", "onnx")
"""The forms that hold the computation itself and run without this package and without the network's code."""


def check_formats(names: Sequence[str]) -> tuple[str, ...]:
    """Check names of formats.

    Args:
        names: What the user wrote.

    Returns:
        The names in the order of :data:`FORMATS`, each once.

    Raises:
        InputError: If one is unknown.
    """
    for name in names:
        if name not in FORMATS:
            raise InputError(explain_unknown_name("export format", name, FORMATS))
    return tuple(name for name in FORMATS if name in names)
