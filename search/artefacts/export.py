"""A pruned network as a folder that can be given away, and back.

The folder holds ``weights.safetensors``, ``architecture.json`` and ``card.json``. Nothing in it is code: to
rebuild, the dense network's builder is called by name and cut to the described widths.

A network with layers of blocks can run in many ways that give the same answer, and so can layers that were rewritten
into chains of small ones. Which is fastest on this machine is measured here, layer by layer, and written into the card.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.records.environment import versions
from search.records.errors import RunError
from search.speed.conditions import Conditions
from search.store.files import create_folder, read_json, read_object, write_json
from search.store.studies import StudyFiles
from spaces import InputError

if TYPE_CHECKING:
    from torch import nn


def export_member(files: StudyFiles, number: int, to: Path) -> dict[str, Any]:
    """Export the network of a finished trial, and check that it comes back as it was (a ``RunError`` if not).

    Args:
        files: The study.
        number: Number of the trial.
        to: The folder to make; it must not exist, or be empty.

    Returns:
        The card: accuracy, FLOPs, parameters, method, point, widths, seeds, versions, and how layers of blocks
        (``execution``) and chains of layers (``realisation``) run fastest here, with the conditions; ``None`` if
        there are none.

    Raises:
        InputError: If the folder has content or cannot be made, or the trial has no network.
    """
    card = _card(files, number)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"{to} exists and is not an empty folder; choose another --to")
    source = files.folder(number)
    files.weights(number)  # a damaged file is named where it lies, before anything is copied
    try:
        with create_folder(to) as fresh:
            shutil.copyfile(source / "weights.safetensors", fresh / "weights.safetensors")
            architecture = read_object(source / "architecture.json") | {"network": card["network"]}
            write_json(fresh / "architecture.json", architecture)
            _verify(fresh, card)
            card |= _fastest(fresh, files.record()["config"])
            write_json(fresh / "card.json", card)
    except OSError as error:
        raise InputError(f"{to} cannot be written: {error.strerror}") from error
    return card


def rebuild(folder: Path | str, *, inference: bool = False) -> nn.Module:
    """Rebuild an exported network.

    Args:
        folder: A folder that ``paretoprune export`` made.
        inference: Whether the network is only run: then batch norms are folded into the layers before them, and
            layers of blocks and chains of layers run in the ways that the card names as fastest. It cannot be
            trained.

    Returns:
        The network in eval mode, on the CPU.

    Raises:
        InputError: If the folder is not such an export.
    """
    from methods.network.architecture import rebuild as rebuilt
    from search.store.weights import load_weights
    from search.tasks.models import build_model

    folder = Path(folder)
    if not (folder / "architecture.json").exists():
        raise InputError(f"{folder} is not an exported network: it has no architecture.json")
    architecture = read_json(folder / "architecture.json")
    network = architecture["network"]
    dense = build_model(network["model"], network["classes"], tuple(network["example_shape"]), network["seed"])
    model = rebuilt(dense, architecture, load_weights(folder / "weights.safetensors"))
    if not inference:
        return model
    from search.speed import blocks, chains

    card = read_json(folder / "card.json")
    try:
        return blocks.deploy(chains.deploy(model, card.get("realisation")), card.get("execution"))
    except (ValueError, AttributeError) as error:
        raise InputError(f"{folder}/card.json does not fit the network: {error}") from error


def _card(files: StudyFiles, number: int) -> dict[str, Any]:
    """Collect what a user of the network must know."""
    outcome, record, dense = files.outcome(number), files.record(), files.dense()
    if outcome.state == "failed":
        raise InputError(f"trial {number} of study {files.name!r} failed: it has no network")
    config = record["config"]
    return {
        "study": files.name,
        "trial": number,
        "method": outcome.method,
        "point": outcome.point,
        "accuracy": outcome.metrics["accuracy"],
        "test_accuracy": outcome.test_accuracy,
        "flops": int(outcome.metrics["flops"]),
        "flops_share": outcome.metrics["flops"] / dense.flops,
        "params": int(outcome.metrics["params"]),
        "params_share": outcome.metrics["params"] / dense.params,
        "timings": outcome.to_json()["timings"],
        "widths": outcome.to_json()["widths"],
        "dense": dense.to_json(),
        "network": {"model": config["model"], "seed": config["seed"], **record["task"]},
        "data": {"name": config["data"], "split": config["split"]},
        "seeds": {"study": config["seed"], "trial": outcome.seed},
        "versions": versions(),
    }


def _verify(folder: Path, card: dict[str, Any]) -> None:
    """Count the rebuilt network: a file that gives another network is not an export."""
    import torch

    from methods.network.cost import count

    cost = count(rebuild(folder), torch.zeros(card["network"]["example_shape"]))
    if (cost.flops, cost.params) != (card["flops"], card["params"]):
        raise RunError(
            f"the exported network has {cost.flops} FLOPs and {cost.params} parameters, the trial had "
            f"{card['flops']} and {card['params']}: {json.dumps(card['network'])}"
        )


def _fastest(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Measure how blocks and chains run fastest on this machine's CPU, with batch and threads of the study."""
    import torch

    from methods.pivoting.dispatch import undecided_layers
    from search.speed import blocks, chains
    from search.speed.measure import turn
    from search.speed.targets import like, threads_of, watch

    model = rebuild(folder)
    wanted = config["latency"]
    threads = wanted["threads"] or config["resources"]["cpus_per_trial"]
    setting = Conditions(("cpu",), wanted["batch_size"], threads)
    shape = read_json(folder / "architecture.json")["network"]["example_shape"]
    inputs = like(torch.zeros(shape), setting.batch_size)
    with turn(), threads_of(setting):
        return {
            "execution": blocks.deployment(model, inputs, setting) if undecided_layers(model) else None,
            "realisation": chains.deployment(model, inputs, chains.eager, watch("cpu", threads), setting),
        }
