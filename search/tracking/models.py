"""Networks as MLflow's logged models: with a signature and an example, loadable without this package.

What is stored is a program of ``torch.export``, so that ``mlflow.pytorch.load_model`` and ``mlflow.pyfunc.load_model``
need torch and MLflow, and none of the code that the network was made by. MLflow is imported when a model is written.
"""

from __future__ import annotations

import re
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaces import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from torch import nn

    from methods.contract.inputs import Inputs

KIND = "pruned network"
"""MLflow's ``model_type`` of these models."""


@dataclass(frozen=True)
class ModelSource:
    """A network that is to be logged.

    Attributes:
        name: What the model is called; characters that MLflow does not take become ``-``.
        build: Gives the network in eval mode, on the CPU.
        inputs: A few real inputs.
        params: What made it, as text by name.
        metrics: What it reaches.
    """

    name: str
    build: Any
    inputs: Inputs
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def logged_model(client: MlflowClient, experiment_id: str, run_id: str) -> LoggedModel | None:
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

    known = logged_model(client, experiment_id, run_id)
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
            _save(source.build(), source.inputs, folder, Model(model_id=model_id, run_id=run_id))
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


def _save(model: nn.Module, inputs: Inputs, folder: Path, described: Any) -> None:
    """Write a folder in MLflow's format."""
    import mlflow.pytorch

    arrays = _arrays(inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's talk of itself
        mlflow.pytorch.save_model(
            model,
            str(folder),
            mlflow_model=described,
            signature=_signature(model, inputs),
            input_example=arrays[0] if len(arrays) == 1 else list(arrays),
            pip_requirements=[f"torch=={_public_version('torch')}", f"mlflow=={version('mlflow')}", "numpy", "pandas"],
            serialization_format="pt2",
        )


def _arrays(inputs: Inputs) -> list[Any]:
    """A few inputs as arrays: more than one, so that the batch size stays free."""
    import torch

    if isinstance(inputs, dict):
        raise InputError("MLflow's format for torch programs takes positional inputs, and this network has named ones")
    several: Sequence[torch.Tensor] = (inputs,) if isinstance(inputs, torch.Tensor) else inputs
    return [tensor[:4].numpy() for tensor in several]


def _signature(model: nn.Module, inputs: Inputs) -> Any:
    """Types and shapes of inputs and outputs, any number of examples."""
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec
    from torch.utils._pytree import tree_leaves

    def spec(array: Any, name: str | None = None) -> Any:
        return TensorSpec(np.dtype(array.dtype), (-1, *array.shape[1:]), name)

    arrays = _arrays(inputs)
    with torch.inference_mode():
        outputs = tree_leaves(model(*(torch.from_numpy(array) for array in arrays)))
    named = len(arrays) > 1
    ins = [spec(array, f"input_{place}" if named else None) for place, array in enumerate(arrays)]
    outs = [spec(each.numpy(), f"output_{place}" if len(outputs) > 1 else None) for place, each in enumerate(outputs)]
    return ModelSignature(inputs=Schema(ins), outputs=Schema(outs))


def _public_version(package: str) -> str:
    """The version without what only says how it was built, such as ``+cpu``."""
    return version(package).partition("+")[0]
