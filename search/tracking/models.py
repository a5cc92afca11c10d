"""Networks as MLflow's logged models: with a signature and an example, loadable without this package.

What is stored is a program of ``torch.export``, so that ``mlflow.pytorch.load_model`` and ``mlflow.pyfunc.load_model``
need torch and MLflow, and none of the code that the network was made by. MLflow is imported when a model is written.

A network that takes one tensor and gives one is run by MLflow's own loader. For one of several inputs (by position or
by name) or several outputs it has none: such a model brings a file of its own, ``network_of_arrays.py``.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaces import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import Model, ModelSignature
    from torch import nn

    from methods.contract.inputs import Inputs

KIND = "pruned network"
"""MLflow's ``model_type`` of these models."""

EXAMPLES = 4
"""Inputs of the example: more than one, so that the batch size stays free."""

LOADER = Path(__file__).with_name("network_of_arrays.py")
"""What a model of several inputs or outputs brings to be run by ``mlflow.pyfunc``; it knows these two files."""

PROGRAM, ARGUMENTS = "model.pt2", "arguments.json"


@dataclass(frozen=True)
class ModelSource:
    """A network that is to be logged.

    Attributes:
        name: What the model is called; characters that MLflow does not take become ``-``.
        build: Gives the network in eval mode, on the CPU.
        inputs: A few real inputs.
        write: Writes a network, called with such inputs, as a program of ``torch.export``; gives the batch size that
            it is bound to, ``None`` for any.
        params: What made it, as text by name.
        metrics: What it reaches.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Inputs
    write: Callable[[nn.Module, Inputs, Path], int | None]
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def find_logged_model(client: MlflowClient, experiment_id: str, run_id: str) -> LoggedModel | None:
    """Find the model that a run has.

    Args:
        client: MLflow's client.
        experiment_id: The experiment.
        run_id: The run.

    Returns:
        The model that is ready; ``None`` if there is none.
    """
    found = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    return next((each for each in found if each.status == "READY"), None)


def log_model(client: MlflowClient, experiment_id: str, run_id: str, source: ModelSource) -> str:
    """Log a network as the model of a run, unless the run has one.

    Args:
        client: MLflow's client.
        experiment_id: The experiment.
        run_id: The run.
        source: The network.

    Returns:
        Id of the model; it is loaded as ``models:/ID``.
    """
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.models import Model

    known = find_logged_model(client, experiment_id, run_id)
    if known is not None:
        return str(known.model_id)
    name = re.sub(r"[/:.%\"']", "-", source.name)
    made = client.create_logged_model(
        experiment_id, name, source_run_id=run_id, params=dict(source.params), model_type=KIND
    )
    model_id = str(made.model_id)
    try:
        with tempfile.TemporaryDirectory(prefix="paretoprune-model-") as scratch:
            folder = Path(scratch) / "model"
            _save(source, folder, Model(model_id=model_id, run_id=run_id))
            client.log_model_artifacts(model_id, str(folder))
    except BaseException:
        client.finalize_logged_model(model_id, "FAILED")
        raise
    client.finalize_logged_model(model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])
    now = round(1000 * time.time())
    points = [Metric(name, value, now, 0, model_id=model_id, run_id=run_id) for name, value in source.metrics.items()]
    for start in range(0, len(points), 500):
        client.log_batch(run_id, metrics=points[start : start + 500])
    return model_id


def register(client: MlflowClient, model_id: str, run_id: str, name: str, alias: str | None) -> str:
    """Make a logged model a version of a registered one.

    Args:
        client: MLflow's client.
        model_id: The logged model.
        run_id: Its run.
        name: Name of the registered model; it is made where there is none.
        alias: Alias that points at this version from now on, such as ``"champion"``.

    Returns:
        The number of the version.

    Raises:
        InputError: If MLflow does not take the name or the alias.
    """
    from mlflow.exceptions import MlflowException

    try:
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        place = client.get_logged_model(model_id).artifact_location  # models:/ID would be sought in another store
        made = client.create_model_version(name, place, run_id=run_id, model_id=model_id)
        if alias is not None:
            client.set_registered_model_alias(name, alias, made.version)
    except MlflowException as error:
        said = str(error).strip().partition("\n")[0]
        raise InputError(f"MLflow does not register {name!r}{f' as {alias!r}' if alias else ''}: {said}") from error
    return str(made.version)


def _save(source: ModelSource, folder: Path, described: Model) -> None:
    """Write a folder in MLflow's format."""
    import torch

    from methods.contract.inputs import call, take

    model, program = source.build(), folder.with_name("network")
    program.mkdir()
    with _silence_exporter():
        import mlflow.pyfunc  # which warns of itself, too

        batch = source.write(model, source.inputs, program / PROGRAM)
        inputs = take(source.inputs, slice(batch or EXAMPLES))
        with torch.inference_mode():
            answer = call(model, inputs)
        names = _input_names(model, inputs)
        example = _arrays(inputs, names)
        plain = isinstance(inputs, torch.Tensor) and isinstance(answer, torch.Tensor)
        if not plain:
            called = {"names": names, "keywords": isinstance(inputs, Mapping)}
            (program / ARGUMENTS).write_text(json.dumps(called), encoding="utf-8")
        described.add_flavor("pytorch", model_data=f"data/{program.name}", pytorch_version=str(torch.__version__))
        mlflow.pyfunc.save_model(
            str(folder),
            mlflow_model=described,
            data_path=str(program),
            loader_module="mlflow.pytorch" if plain else LOADER.stem,
            code_paths=None if plain else [str(LOADER)],
            signature=_signature(example, answer, batch or -1),
            input_example=example,
            pip_requirements=[f"torch=={_public_version('torch')}", f"mlflow=={version('mlflow')}", "numpy", "pandas"],
        )


@contextmanager
def _silence_exporter() -> Generator[None]:
    """Exporter and MLflow talk of themselves; a sweep has a display of its own."""
    logger = logging.getLogger("mlflow.pyfunc")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _input_names(model: nn.Module, inputs: Inputs) -> list[str]:
    """Name the inputs: by their keywords, or as the parameters of the forward pass are called."""
    import torch

    if isinstance(inputs, Mapping):
        return list(inputs)
    count = 1 if isinstance(inputs, torch.Tensor) else len(inputs)
    single = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [name for name, each in inspect.signature(model.forward).parameters.items() if each.kind in single]
    return named[:count] if len(named) >= count else [f"input_{place}" for place in range(count)]


def _arrays(inputs: Inputs, names: Sequence[str]) -> Any:
    """Inputs as arrays: one, or several by name."""
    import torch

    from methods.contract.inputs import tensors

    if isinstance(inputs, torch.Tensor):
        return inputs.numpy()
    return {name: tensor.numpy() for name, tensor in zip(names, tensors(inputs), strict=True)}


def _signature(example: Any, answer: Any, batch: int) -> ModelSignature:
    """Types and shapes of inputs and outputs; a batch of -1 is any."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(several: Mapping[str | None, Any]) -> Schema:
        return Schema([
            TensorSpec(np.dtype(array.dtype), (batch, *array.shape[1:]), name) for name, array in several.items()
        ])

    return ModelSignature(
        inputs=schema(example if isinstance(example, Mapping) else {None: example}), outputs=schema(_outputs(answer))
    )


def _outputs(answer: Any) -> dict[str | None, Any]:
    """Name the outputs: by their keys, or by their places."""
    import torch

    if isinstance(answer, torch.Tensor):
        return {None: answer.numpy()}
    several = (
        answer.items() if isinstance(answer, Mapping) else ((f"output_{n}", each) for n, each in enumerate(answer))
    )
    return {name: tensor.numpy() for name, tensor in several}


def _public_version(package: str) -> str:
    """The version without what only says how it was built, such as ``+cpu``."""
    return version(package).partition("+")[0]
