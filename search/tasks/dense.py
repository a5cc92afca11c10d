"""The trained dense network of a workload: trained once, then found under the hash of all that decides it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from filelock import FileLock
from torch import nn

from methods.contract.method import Record, Report, ignore_record
from methods.contract.recipe import Recipe
from methods.contract.session import Saved
from methods.training.evaluation import evaluate
from methods.training.precision import choose_half_type
from methods.training.trainer import Trainer
from search.store.checkpoints import Checkpoints
from search.store.files import create_folder, json_text, read_object
from search.store.weights import load_weights, save_weights
from search.tasks.identity import answers, has_same_answers
from search.tasks.models.weight_files import is_weight_file
from search.tasks.workload import Workload, task_identity
from spaces import InputError

FORMAT = 1

LATER = ("span", "mixup", "cutmix", "ema", "keep")
"""Fields of a recipe that were not there from the beginning."""


class HeadOnly(nn.Module):
    """A network of which only the head learns: all else keeps its weights, and its batch norms their statistics.

    Args:
        model: The network; what is not its head no longer asks for gradients.
        head: Names of the head's tensors.
    """

    def __init__(self, model: nn.Module, head: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self._layers = sorted({name.rpartition(".")[0] for name in head})
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in head)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the head; all else stays in eval mode.

        Args:
            mode: Whether the head trains.

        Returns:
            Itself.
        """
        super().train(False)
        self.training = mode
        for layer in self._layers:
            self.model.get_submodule(layer).train(mode)
        return self

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run the network.

        Args:
            *inputs: Positional inputs.
            **named: Inputs by name.

        Returns:
            What the network returns.
        """
        return self.model(*inputs, **named)


@dataclass(frozen=True)
class Dense:
    """A trained dense network.

    Attributes:
        model: The network in eval mode, on the CPU.
        metrics: Metrics of the task on validation, by name.
        seconds: Wall-clock seconds of its training; 0 if it came with its weights.
        history: One record per epoch; empty if it came with its weights.
        folder: Where it is stored.
        cached: Whether it was found there rather than trained now.
    """

    model: nn.Module
    metrics: Mapping[str, float]
    seconds: float
    history: list[Record]
    folder: Path
    cached: bool

    @property
    def accuracy(self) -> float:
        """Accuracy on validation, 0..1, for tasks that measure it."""
        return self.metrics["accuracy"]


def dense_network(
    workload: Workload,
    recipe: Recipe,
    epochs: float,
    seed: int,
    directory: Path,
    report: Report = ignore_record,
    device: str = "cpu",
) -> Dense:
    """Return the trained dense network of a workload; train it if that was never done.

    A training that was interrupted goes on after its last whole epoch, and ends at the same network.

    Networks with the user's weights are evaluated and stored; they are trained only where their head is new.

    Args:
        workload: The network and its data.
        recipe: How to train.
        epochs: How long to train; may be a fraction.
        seed: Decides everything random in training.
        directory: The run store; the network is stored below ``dense/HASH/``.
        report: Called with one record per epoch, if there is training.
        device: Where to train.

    Returns:
        The network and what is known of it. A store that cannot be written, or that holds a damaged
        network, is an :class:`spaces.InputError`.
    """
    model, fit = workload.build_with_fit()
    trains = workload.weights is None or bool(fit.head)
    frozen = fit.head if workload.freeze_backbone else ()
    identity = _identity(workload, model, trains, recipe, epochs, seed)
    digest = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    own = answers(model, workload.data.example)
    folder = _folder(directory / "dense", digest, own)
    cached = folder.exists()
    if not cached:
        with _lock(folder):
            cached = folder.exists()  # the process that came second has waited, and loads
            if not cached:
                plan = recipe, epochs if trains else 0.0, seed
                unfinished = Checkpoints(folder.with_suffix(".unfinished"), {"answers": own}, is_same=_is_same_network)
                done = _train(workload, model, *plan, report, device, frozen, unfinished)
                _store(folder, model, identity, own, *done)
                unfinished.clear()
    return _load(folder, model, cached)


def _folder(store: Path, digest: str, own: list[float]) -> Path:
    """Find the folder of a network that began with these answers, or a free one: code may change under one name."""
    number = 1
    while True:
        folder = store / (digest if number == 1 else f"{digest}-{number}")
        path = folder / "record.json"
        if not path.exists():
            return folder
        try:
            then = read_object(path).get("answers")
        except InputError:
            return folder  # damaged: said when it is loaded
        # Networks of earlier versions have no answers, and are taken for what they seem.
        if then is None or has_same_answers(then, own):
            return folder
        number += 1


def _is_same_network(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Compare what untrained networks answer: code may change under one name, and its training begins again."""
    return has_same_answers(one["answers"], other["answers"])


def _lock(folder: Path) -> AbstractContextManager[object]:
    """Take the lock beside a folder that is to be."""
    with _refuse_unwritable(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(folder.with_suffix(".lock")).acquire()


@contextmanager
def _refuse_unwritable(folder: Path) -> Generator[None]:
    """Name the folder that cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(f"the dense network cannot be stored in {folder}: {error.strerror or error}") from error


def _identity(
    workload: Workload, model: nn.Module, trains: bool, recipe: Recipe, epochs: float, seed: int
) -> dict[str, Any]:
    """Collect all that decides the trained network, as JSON."""
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    # Fields that came later count where they are used: networks that were trained before are found again.
    later = {name for name in LATER if getattr(recipe, name) == Recipe.model_fields[name].default}
    training = {"recipe": recipe.model_dump(mode="json", exclude=later), "epochs": epochs, "seed": seed}
    return {
        "format": FORMAT,
        "model": workload.model,
        "model_seed": workload.seed,
        # The user's own code may change under the same name.
        "structure": sha256(f"{model}{shapes}".encode()).hexdigest(),
        "data": workload.data.name,
        "split": workload.split.model_dump(mode="json"),
        "train": workload.data.train.fingerprint(),
        "validation": workload.data.validation.fingerprint(),
        "weights": _weights_identity(workload.weights),
        "training": training if trains else None,
        **({"freeze_backbone": True} if trains and workload.freeze_backbone else {}),
        **task_identity(workload.task),
    }


def _weights_identity(weights: str | None) -> str | None:
    """Name a torchvision enum by its name, a file by its content."""
    if weights is None or not is_weight_file(weights):
        return weights
    with Path(weights).open("rb") as file:
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _train(
    workload: Workload,
    model: nn.Module,
    recipe: Recipe,
    epochs: float,
    seed: int,
    report: Report,
    device: str,
    head: Sequence[str],
    unfinished: Checkpoints,
) -> tuple[list[Record], float, dict[str, float]]:
    """Train the network in place, its head alone if one is named; return history, seconds and metrics."""
    model.to(device)
    train, validation = workload.data.train.to(device), workload.data.validation.to(device)
    history: list[Record] = []
    seconds = 0.0
    if epochs > 0:
        session = Saved(unfinished)
        steps = max(1, math.ceil(epochs * train.steps(recipe.batch_size)))
        trained = HeadOnly(model, head) if head else model
        started = time.perf_counter()
        trainer = Trainer(
            trained,
            train,
            recipe,
            steps,
            seed,
            validation=validation,
            report=report,
            task=workload.task,
            comparable=True,
        )
        history = session.train("dense", trainer)
        seconds = session.earlier_seconds + time.perf_counter() - started
        model.requires_grad_(True)
    metrics = evaluate(model, validation, autocast=choose_half_type(recipe), task=workload.task).metrics
    model.to("cpu")
    return history, seconds, dict(metrics)


def _store(
    folder: Path,
    model: nn.Module,
    identity: dict[str, Any],
    own: list[float],
    history: list[Record],
    seconds: float,
    metrics: Mapping[str, float],
) -> None:
    """Write weights and record: the folder appears as a whole or not at all."""
    versions = {name: version(name) for name in ("torch", "torchvision")}
    record = {
        "config": identity,
        "answers": own,
        **{name: value for name, value in metrics.items() if name == "accuracy"},  # where earlier versions look
        "metrics": dict(metrics),
        "seconds": seconds,
        "history": history,
        "versions": versions,
    }
    with _refuse_unwritable(folder), create_folder(folder) as fresh:
        save_weights(model.state_dict(), fresh / "weights.safetensors")
        (fresh / "record.json").write_text(json_text(record), encoding="utf-8")


def _load(folder: Path, model: nn.Module, cached: bool) -> Dense:
    """Read what was stored, also when it was stored a moment ago: both ways lead to the same network."""
    try:
        record = read_object(folder / "record.json")
        model.load_state_dict(load_weights(folder / "weights.safetensors"))
        known = record["metrics"] if "metrics" in record else {"accuracy": record["accuracy"]}  # of earlier versions
        metrics, seconds, history = dict(known), record["seconds"], record["history"]
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            f"the dense network in {folder} is damaged ({error}); remove this folder to train it again"
        ) from error
    return Dense(model.eval(), metrics, seconds, history, folder, cached)
