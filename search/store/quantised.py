"""What networks of a study reach in 8 bits: ``studies/NAME/quantised.json``, written by ``export --int8``."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from search.store.files import read_object, write_json
from search.store.studies import StudyFiles


def read_quantised(files: StudyFiles) -> dict[int, dict[str, Any]]:
    """Read what was measured in 8 bits.

    Args:
        files: The study.

    Returns:
        By trial ``metrics``, ``test_metrics``, and ``latency`` (seconds of one input) and ``bytes`` of both graphs, as
        ``whole`` and ``int8``. A trial that was run again since then is left out: it has another network.
    """
    path = files.root / "quantised.json"
    if not path.exists():
        return {}
    found = {int(number): told for number, told in read_object(path).items()}
    return {number: told for number, told in found.items() if told["weights"] == _weights_hash(files, number)}


def write_quantised(files: StudyFiles, number: int, told: Mapping[str, Any]) -> None:
    """Keep what was measured of one network, beside what is known of others.

    Args:
        files: The study.
        number: Number of the trial.
        told: As :func:`read_quantised` returns it for one trial.
    """
    path = files.root / "quantised.json"
    known = read_object(path) if path.exists() else {}
    write_json(path, known | {str(number): {**told, "weights": _weights_hash(files, number)}})


def _weights_hash(files: StudyFiles, number: int) -> str | None:
    weights = files.folder(number) / "weights.safetensors"
    return sha256(weights.read_bytes()).hexdigest() if weights.exists() else None
