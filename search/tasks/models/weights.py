"""Trained weights: reading files without running code, and fitting them to a network that may have another head.

Weights for another number of classes are the start of transfer learning: all tensors but those of the head are taken,
the head stays as it was initialised, and must be trained. Anything else that does not fit is an error that lists it.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from search.store import weights as stored
from spaces import InputError

AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Classifiers for training alone in files of GoogLeNet and Inception; networks here have none."""

WRAPPINGS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Under which keys checkpoints keep the state dictionary."""

PREFIXES = ("module.", "model.", "_orig_mod.", "net.", "network.", "backbone.", "encoder.")
"""What wrappers put before names: DataParallel, Lightning and other trainers, torch.compile."""

WRAPPER = "network."
"""What stands before the names of networks that are wrapped here."""

LISTED = 3


@dataclass(frozen=True)
class Fit:
    """How weights fitted a network.

    Attributes:
        head: Tensors of the network's head that the weights do not have for this number of outputs.
        unused: Tensors of the weights that the network has no place for.
    """

    head: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Say what did not fit.

        Returns:
            A sentence; empty if everything did.
        """
        if not self.head:
            return ""
        also = f" and {_summarise_names(self.unused)} of the weights are not used" if self.unused else ""
        head = _summarise_names(self.head)
        return f"the head is new ({head}): weights are for other outputs{also}; the network is trained"


def load_weights(model: nn.Module, file: Path, outputs: int) -> Fit:
    """Load weights from a file into a network.

    The file may hold the state dictionary itself or a checkpoint with it under one of :data:`WRAPPINGS`, and names may
    begin with :data:`PREFIXES`, one or several.

    Args:
        model: The network, changed in place.
        file: A file with a suffix of :data:`search.tasks.models.weight_files.SUFFIXES`.
        outputs: Number of classes, or of numbers that are predicted.

    Returns:
        What fitted; an ``InputError`` if the file cannot be read, or more than the head does not fit.
    """
    own = model.state_dict()
    return fit_weights(model, _strip_prefixes(read_weights(file), own), outputs, f"the weights in {file}")


def fit_weights(model: nn.Module, given: Mapping[str, Tensor], outputs: int, what: str) -> Fit:
    """Put weights into a network; its head may be of another size.

    Args:
        model: The network, changed in place.
        given: Tensors by name.
        outputs: Number of classes, or of numbers that are predicted.
        what: What the weights are, for messages.

    Returns:
        What fitted.

    Raises:
        InputError: If names or shapes differ in more than the head.
    """
    own = model.state_dict()
    given = {name: t for name, t in given.items() if name in own or not name.startswith(AUXILIARY)}
    # Counters of batch norms play no part in their output, and old files lack them.
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    surplus = [name for name in given if name not in own]
    misshapen = [name for name in own if name in given and given[name].shape != own[name].shape]
    head = _head(own, [*missing, *misshapen], given, surplus, outputs)
    if head is None:
        shapes = [f"{name} {list(given[name].shape)} instead of {list(own[name].shape)}" for name in misshapen]
        listed = (("it lacks", missing), ("it has in addition", surplus), ("it has", shapes))
        problems = [f"{said} {_summarise_names(names)}" for said, names in listed if names]
        raise InputError(
            f"{what} do not fit the model: {'; '.join(problems)}; only the last layer may be of another size: "
            "give the weights that belong to this model"
        )
    model.load_state_dict({**own, **{name: given[name] for name in own if name in given and name not in head}})
    return Fit(head, tuple(surplus))


def _head(
    own: Mapping[str, Tensor],
    misfits: list[str],
    given: Mapping[str, Tensor],
    surplus: list[str],
    outputs: int,
) -> tuple[str, ...] | None:
    """The tensors of the head, if they are all that does not fit; ``None`` if more does not."""
    if not misfits:
        return () if not surplus else None
    layers = {name.rpartition(".")[0] for name in misfits}
    whole = [name for name in own if name.rpartition(".")[0] in layers]
    # The head has one row for each output, and what comes into it is as wide as before.
    for name in whole:
        shape = own[name].shape
        known = given.get(name)
        if not shape or shape[0] != outputs or (known is not None and known.shape[1:] != shape[1:]):
            return None
    shared = [name for name in own if name in given and name not in whole]
    lost_heads = all(given[name].ndim <= 4 for name in surplus) and len(surplus) <= len(whole)
    return tuple(whole) if shared and lost_heads else None


def read_weights(file: Path) -> Mapping[str, Tensor]:
    """Read the tensors of a weight file; no code in it is run.

    Args:
        file: A file with a suffix of :data:`search.tasks.models.weight_files.SUFFIXES`.

    Returns:
        Tensors by the names that they have in the file.

    Raises:
        InputError: If the file cannot be read, or holds anything but tensors.
    """
    if not file.is_file():
        raise InputError(f"there is no weight file {file}")
    try:
        if file.suffix == ".safetensors":
            return stored.load_weights(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{file} holds more than tensors, or is damaged; save model.state_dict() instead of the model "
            "(of a checkpoint: torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pth'))"
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise InputError(f"{file} cannot be read as weights: {error}") from error
    for key in WRAPPINGS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{file} does not hold a state dictionary; save model.state_dict()")
    return {str(name): tensor for name, tensor in content.items()}


def _strip_prefixes(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Take away what wrappers put before names, as long as more names fit without it."""
    names = {name: name for name in given}
    while True:
        fitting = sum(name in own for name in names.values())
        shorter = [{whole: name.removeprefix(prefix) for whole, name in names.items()} for prefix in PREFIXES]
        longer = {whole: f"{WRAPPER}{name}" for whole, name in names.items()}  # networks that we wrap
        shorter += [longer] if any(name in own for name in longer.values()) else []
        changed = [each for each in shorter if each != names and len(set(each.values())) == len(each)]
        best = max(changed, key=lambda each: sum(name in own for name in each.values()), default=names)
        gained = sum(name in own for name in best.values()) - fitting
        if best is names or gained < 0 or (gained == 0 and fitting):
            return {names[whole]: tensor for whole, tensor in given.items()}
        names = best


def _summarise_names(names: tuple[str, ...] | list[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
