"""The networks of a finished front, kept in forms that run anywhere, beside the study and in MLflow."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.contract.inputs import Inputs
from search.artefacts.card import card_page, describe_files
from search.artefacts.export import INPUTS, export_front, study_inputs
from search.artefacts.inputs import take_inputs, write_inputs
from search.artefacts.programs import NotExportable, capture, write_pt2
from search.artefacts.quantise import OnnxNetwork, measure_quantised, quantise
from search.artefacts.verify import Job, run_clean, write_arrays
from search.driver.prepare import plan
from search.fronts.front import Front, Member
from search.records.errors import RunError
from search.records.listener import Listener
from search.store.files import read_object, write_atomically, write_json
from search.store.quantised import write_quantised
from search.store.studies import StudyFiles
from search.tasks.workload import Workload
from search.tracking.away import Away
from search.tracking.models import ModelSource
from search.tracking.tracker import Tracker
from search.workers.lender import Lender
from spaces import InputError

if TYPE_CHECKING:
    from torch import nn

INT8 = "model.int8.onnx"
CALIBRATION_BATCH = 32
CALIBRATION_BATCHES = 8
"""How many training inputs decide the ranges of activations: 256 at most."""


def keep_networks(
    files: StudyFiles,
    workload: Workload,
    front: Front,
    tracker: Tracker | Away,
    listener: Listener,
    formats: Sequence[str],
    lender: Lender | None = None,
    several: int = 1,
) -> float:
    """Export the networks of a front, and log those that run anywhere as MLflow's models.

    A network that cannot be exported is a warning: the sweep has ended well, and its weights are kept.

    Args:
        files: The study's files.
        workload: Holds real inputs.
        front: The front.
        tracker: Where models are logged.
        listener: Hears of what could not be exported.
        formats: Names in ``search.records.formats.FORMATS``; none keeps nothing.
        lender: Does the work; ``None`` does it in this process.
        several: How many parts of it are done at a time.

    Returns:
        Seconds that processes spent on it, all together.
    """
    tests = {member.trial: member_tests(front, member) for member in front.members}
    tracker.log_tests({number: metrics for number, metrics in tests.items() if metrics})
    write_inputs(files.root / INPUTS, take_inputs(workload.data.validation))  # for exports later on, too
    if not formats:
        export_front(files, [], [])
        return 0.0
    spent: list[float] = []

    def spread(part: Callable[[Mapping[int, Path]], float], folders: Mapping[int, Path]) -> None:
        parts = [dict(islice(folders.items(), first, None, several)) for first in range(min(several, len(folders)))]
        spent.extend(map(part, parts) if lender is None else lender.spread(part, parts))

    try:
        cards = export_front(files, [member.trial for member in front.members], formats, spread)
    except (InputError, RunError) as error:
        listener.warning(f"the networks of the front were not exported ({error}); try `paretoprune export --all`")
        return sum(spent)
    members = {member.trial: member for member in front.members}
    for card in cards:
        for name, found in card["formats"].items():
            if not found["verified"]:
                listener.warning(f"trial {card['trial']} has no {name} that counts: {found['reason']}")
        if any(card["formats"].get(name, {}).get("verified") for name in ("pt2", "onnx")):
            tracker.log_model(card["trial"], model_source(files, members[card["trial"]]))
    return sum(spent)


def add_quantised(files: StudyFiles, folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Add to exports the network in 8 bits: calibrated on training data, measured on validation and test.

    Args:
        files: The study's files.
        folders: Exports with ``model.onnx``.

    Returns:
        The cards, whose ``formats`` have ``int8``: what it reaches (``metrics``, ``test_metrics``), and its time as a
        share of that of ``model.onnx`` (``latency_share``). The study keeps the same, so that fronts show it.
    """
    workload = plan(files.config()).workload
    batches = [inputs for inputs, _ in islice(workload.data.train.batches(CALIBRATION_BATCH), CALIBRATION_BATCHES)]
    cards = []
    for folder in folders:
        card = read_object(folder / "card.json")
        card["formats"]["int8"] = found = _quantise(folder, card, workload, batches, study_inputs(files))
        if found["file"] is not None:
            card["files"] |= describe_files(folder, [found["file"]])
            card["bytes"] = sum(each["bytes"] for each in card["files"].values())
            measured = {name: found[name] for name in ("metrics", "test_metrics", "latency", "bytes")}
            write_quantised(files, card["trial"], measured)
        write_json(folder / "card.json", card)
        write_atomically(folder / "card.md", card_page(card))
        cards.append(card)
    return cards


def _quantise(
    folder: Path, card: Mapping[str, Any], workload: Workload, batches: Sequence[Inputs], inputs: Inputs
) -> dict[str, Any]:
    """Write and measure one graph in 8 bits."""
    nothing = {"file": None, "verified": False}
    if not card["formats"].get("onnx", {}).get("verified"):
        return {**nothing, "reason": "it is made from model.onnx, which is not there or does not count"}
    whole, file = folder / "model.onnx", folder / INT8
    try:
        quantise(whole, file, batches)
    except NotExportable as error:
        return {**nothing, "reason": str(error)}
    with tempfile.TemporaryDirectory(prefix="paretoprune-int8-") as scratch:
        arrays = Path(scratch) / "arrays.npz"
        write_arrays(arrays, OnnxNetwork(whole), inputs)
        (parity,) = run_clean([Job(file, "onnx", arrays, isinstance(inputs, dict), card["formats"]["onnx"]["batch"])])
    if parity.error is not None:
        file.unlink()
        return {**nothing, "reason": str(parity.reason())}
    measured = measure_quantised(whole, file, workload.data.validation, workload.data.test, workload.task)
    ran = {"largest_difference": parity.largest_difference, "inputs": parity.inputs}
    sizes = {"whole": whole.stat().st_size, "int8": file.stat().st_size}
    return {"file": file.name, "verified": True, **ran, **measured, "bytes": sizes}


def register_network(files: StudyFiles, number: int, name: str, alias: str | None) -> str:
    """Register the network of a finished trial in the MLflow store that mirrors its study.

    Args:
        files: The study's files.
        number: Number of the trial.
        name: Name of the registered model.
        alias: Alias that points at this version from now on; ``None`` for none.

    Returns:
        The number of the version.

    Raises:
        InputError: If the trial has no network, or its study was never sent to that store.
    """
    front = files.front()
    member = next((each for each in (*front.members, *front.dominated) if each.trial == number), None)
    if member is None:
        raise InputError(f"trial {number} of study {files.name!r} has no network to register")
    tracker = Tracker.open(files.directory, files.config().tracking_uri)
    try:
        parent = tracker.store.find_known_run(files.read_tracked())
        if parent is None:
            raise InputError(
                f"study {files.name!r} is not in the MLflow store {tracker.store.public}; give the store that it was "
                f"sent to (tracking_uri), or send it there with `paretoprune resume {files.name}`"
            )
        return tracker.register_model(parent, number, model_source(files, member), name, alias)
    finally:
        tracker.close()


def write_program(model: nn.Module, inputs: Inputs, path: Path) -> int | None:
    """Write a network as a program of ``torch.export``.

    Args:
        model: The network in eval mode, on the CPU.
        inputs: At least two inputs.
        path: The file, ending in ``.pt2``.

    Returns:
        The batch size that it is bound to; ``None`` where it takes any.

    Raises:
        InputError: If the network cannot be written; names the operation.
    """
    try:
        captured = capture(model, inputs)
        write_pt2(captured, path)
    except NotExportable as error:
        raise InputError(
            f"MLflow keeps networks as programs, and this one cannot be written as one: {error}"
        ) from error
    return captured.batch


def member_tests(front: Front, member: Member) -> dict[str, float]:
    """Return what the test set said of a network.

    Args:
        front: The front it is on.
        member: The network.

    Returns:
        ``test_NAME`` by metric; empty before the test set was looked at.
    """
    outcome = next(each for each in front.outcomes if each.number == member.trial)
    return {f"test_{name}": value for name, value in outcome.test_metrics.items()}


def _write_kept(folder: Path, model: nn.Module, inputs: Inputs, path: Path) -> int | None:
    """Copy the program that was exported and checked when the sweep ended, or make it where there is none."""
    card = read_object(folder / "card.json") if (folder / "card.json").exists() else {"formats": {}}
    found = card["formats"].get("pt2", {})
    if not found.get("verified") or not (folder / str(found["file"])).exists():
        return write_program(model, inputs, path)
    shutil.copyfile(folder / found["file"], path)
    batch: int | None = found["batch"]
    return batch


def model_source(files: StudyFiles, member: Member) -> ModelSource:
    """Describe the network of a trial for MLflow.

    Args:
        files: The study's files.
        member: The network.

    Returns:
        What MLflow logs.
    """
    outcome = files.outcome(member.trial)
    params: Mapping[str, Any] = {"method": outcome.method, "seed": outcome.seed, **outcome.point}
    tests = {f"test_{name}": value for name, value in outcome.test_metrics.items()}
    return ModelSource(
        name=f"{files.name}-{member.trial:04d}",
        build=member.model,
        inputs=study_inputs(files),
        write=partial(_write_kept, files.root / "networks" / f"{member.trial:04d}"),
        params={name: str(value) for name, value in params.items()},
        metrics={**outcome.metrics, **tests},
    )
