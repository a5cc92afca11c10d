"""Analyses of the dense network on disk: computed by the first trial that asks, read by all others.

They lie beside the dense networks, in the store that every worker writes its trials to. The name of a file is the
hash of all that decides its content (weights, data, name, settings), so an analysis of other weights is simply not
found. Files appear by rename, whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor, nn

from methods.contract.analyses import Settings, Tensors
from search.store.weights import load_weights, save_weights
from spaces import InputError


@dataclass(frozen=True)
class StoredAnalyses:
    """The :class:`methods.contract.analyses.Analyses` of a run store.

    Attributes:
        folder: Where the files lie.
        identity: Hash of the dense network's weights and of the data.
    """

    folder: Path
    identity: str

    def get(self, name: str, settings: Settings, compute: Callable[[], Tensors]) -> Tensors:
        """Read an analysis; compute and store it if it is not there.

        Trials that ask at the same time wait for the one that computes.

        Args:
            name: Which analysis.
            settings: All that decides it beside the network and the data.
            compute: Computes it.

        Returns:
            Tensors by name, on the CPU.
        """
        text = json.dumps([self.identity, name, dict(settings)], sort_keys=True)
        path = self.folder / f"{name}-{sha256(text.encode()).hexdigest()[:16]}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            found = _read(path)
            if found is None:
                found = {key: tensor.detach().cpu() for key, tensor in compute().items()}
                save_weights(found, path)
        return found


def analysis_identity(model: nn.Module, data: Mapping[str, str]) -> str:
    """Hash what all analyses of a sweep depend on.

    Args:
        model: The trained dense network.
        data: Fingerprints of the data by part.

    Returns:
        The hash: other weights, of whatever origin, have another.
    """
    digest = sha256(json.dumps(dict(data), sort_keys=True).encode())
    digest.update(str(model).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    # Seen as bytes, for numpy does not know every type that weights may have.
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _read(path: Path) -> Tensors | None:
    """Read a file; one that is damaged is as good as none, for it can be computed again."""
    if not path.exists():
        return None
    try:
        return load_weights(path)
    except InputError:
        return None
