"""Pruned networks as folders that can be given away.

A folder holds the network in the formats that were asked for (``search.records.formats``) with a card, as data
(``card.json``) and as a page (``card.md``). What holds the computation itself is run in a clean process, without this
package and without the user's code, on real inputs of the study, and compared with the network: a file that fails
there is marked in the card and set aside under another name. Weights with their architecture are rebuilt and compared.

Layers with equal forms (layers of blocks, chains of small layers, a user's own) can run in many ways that give the same
answer. Which is fastest on this machine is measured here, layer by layer, and written into the card;
programs hold that form.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.artefacts.card import card_page, describe_files, make_card
from search.artefacts.rebuild import LIBRARIES, rebuild
from search.records.errors import RunError
from search.records.formats import FORMATS, PROGRAMS, check_formats
from search.speed.conditions import Conditions
from search.store.files import create_folder, read_json, read_object, remove_folder, write_atomically, write_json
from search.store.studies import IN_HAND, StudyFiles
from spaces import InputError

if TYPE_CHECKING:
    from torch import nn

    from methods.contract.inputs import Inputs
    from search.artefacts.verify import Job

INPUTS = "inputs.safetensors"
"""The file of a study that holds real inputs, as networks get them."""

UNVERIFIED = "unverified"
"""What is put into the name of a file whose answers are not the network's."""

Spread = Callable[[Callable[[Mapping[int, Path]], float], Mapping[int, Path]], None]
"""Has a function called on parts of the folders to make."""


@dataclass(frozen=True)
class _Draft:
    """An export that is written and not yet checked."""

    folder: Path
    card: dict[str, Any]
    jobs: dict[str, Job]


def export_member(files: StudyFiles, number: int, to: Path, formats: Sequence[str] = tuple(FORMATS)) -> dict[str, Any]:
    """Export the network of a finished trial, checked.

    Args:
        files: The study.
        number: Number of the trial.
        to: The folder to make; it must not exist, or be empty.
        formats: Names in :data:`search.records.formats.FORMATS`.

    Returns:
        The card. Its ``formats`` says of each format whether it counts (``verified``), how far its answers are from
        the network's (``largest_difference`` on ``inputs`` real inputs), or the ``reason`` why not.
    """
    return export_members(files, {number: to}, formats)[0]


def export_members(
    files: StudyFiles, folders: Mapping[int, Path], formats: Sequence[str] = tuple(FORMATS), *, measure: bool = True
) -> list[dict[str, Any]]:
    """Export networks of a study, all checked in one clean process.

    Args:
        files: The study.
        folders: The folder to make for each trial; none may exist with content.
        formats: Names in :data:`search.records.formats.FORMATS`.
        measure: Whether to measure how layers with equal forms run fastest.

    Returns:
        The cards, in the order of ``folders``.
    """
    from search.artefacts.verify import run_clean, write_arrays

    formats = check_formats(formats)
    cards = {number: make_card(files, number) for number in folders}
    for to in folders.values():
        _refuse_content(to)
    inputs = study_inputs(files)
    drafts: list[_Draft] = []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="paretoprune-export-")))
        for number, to in folders.items():
            draft = _Draft(_make_folder(stack, to), cards[number], {})
            drafts.append(draft)
            model = _write_weights(files, number, draft, inputs, measure)
            arrays = scratch / f"{number}.npz"
            write_arrays(arrays, model, inputs)
            _write_programs(model, draft, inputs, arrays, formats)
        jobs = [job for draft in drafts for job in draft.jobs.values()]
        found = iter(run_clean(jobs, _users_modules(files)))
        for draft in drafts:
            for name in draft.jobs:
                _settle(draft, name, next(found))
            _finish(draft, formats)
    return [draft.card for draft in drafts]


def export_front(
    files: StudyFiles, numbers: Sequence[int], formats: Sequence[str], spread: Spread | None = None
) -> list[dict[str, Any]]:
    """Keep the networks of a front beside their study, in ``networks/NNNN/``.

    Args:
        files: The study.
        numbers: The trials on the front; networks of others are removed, those that are there already stay.
        formats: Names in :data:`search.records.formats.FORMATS`; none keeps nothing.
        spread: Has the work done in parts; ``None`` does it here.

    Returns:
        The cards of all networks on the front, in order of ``numbers``.
    """
    home = files.root / "networks"
    wanted = {number: home / f"{number:04d}" for number in numbers} if formats else {}
    for old in home.glob("[0-9]*"):
        card = old / "card.json"
        if old not in wanted.values() or not card.exists() or set(read_json(card)["formats"]) != set(formats):
            remove_folder(old)
    missing = {number: to for number, to in wanted.items() if not to.exists()}
    if missing:
        work = partial(_export_part, files, formats)
        (spread or _do_here)(work, missing)
    return [read_json(to / "card.json") for to in wanted.values()]


def prepare_exports(formats: Sequence[str]) -> None:
    """Import what exports need before there is anything to export.

    Args:
        formats: Names in :data:`search.records.formats.FORMATS`.
    """
    from search.artefacts.programs import import_exporters

    import_exporters("onnx" in formats)


def _export_part(files: StudyFiles, formats: Sequence[str], folders: Mapping[int, Path]) -> float:
    """Export some networks; return the seconds that it took."""
    began = time.perf_counter()
    export_members(files, folders, formats, measure=False)
    return time.perf_counter() - began


def _do_here(work: Callable[[Mapping[int, Path]], float], folders: Mapping[int, Path]) -> None:
    work(folders)


def study_inputs(files: StudyFiles) -> Inputs:
    """Read real inputs of a study; taken from its validation data where none were kept.

    Args:
        files: The study.

    Returns:
        A few inputs as the network gets them.

    Raises:
        InputError: If none were kept, and the data was handed in and is gone.
    """
    from search.artefacts.inputs import read_inputs, take_inputs, write_inputs

    path = files.root / INPUTS
    if not path.exists():
        from search.tasks.named_tasks import load_task
        from search.tasks.workload import Workload

        config = files.config()
        if config.data.startswith(IN_HAND):
            raise InputError(f"study {files.name!r} keeps no inputs, and its data was in hand: run the search again")
        task = load_task(config.task, config.task_options)
        workload = Workload.load(config.model, config.data, config.data_root, config.split, config.seed, task=task)
        write_inputs(path, take_inputs(workload.data.validation))
    return read_inputs(path)


def _refuse_content(to: Path) -> None:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"{to} exists and is not an empty folder; choose another --to")


def _make_folder(stack: ExitStack, to: Path) -> Path:
    """Make the folder that becomes the export when the stack ends well."""
    try:
        return stack.enter_context(create_folder(to))
    except OSError as error:
        raise InputError(f"{to} cannot be written: {error.strerror}; choose another --to") from error


def _write_weights(files: StudyFiles, number: int, draft: _Draft, inputs: Inputs, measure: bool) -> nn.Module:
    """Write weights and architecture, rebuild the network from them and compare it; return it as it runs fastest."""
    source, folder = files.folder(number), draft.folder
    stored = files.rebuild(number)  # a damaged file is named where it lies, before anything is copied
    shutil.copyfile(source / "weights.safetensors", folder / "weights.safetensors")
    architecture = read_object(source / "architecture.json") | {"network": draft.card["network"]}
    write_json(folder / "architecture.json", architecture)
    own = files.network or draft.card["network"]["model"]  # a study of the user's own: its code is known
    layers = files.layers_of(number, architecture)
    model = rebuild(folder, network=own, layers=layers)
    _check_size(model, draft.card)
    draft.card["formats"] = {"safetensors": _compare(model, stored, inputs)}
    forms: dict[str, Any] = _measure_fastest(folder, files.record()["config"], layers, own) if measure else {}
    draft.card.update(forms)
    if any(forms.values()):
        write_json(folder / "card.json", draft.card)
        return rebuild(folder, network=own, layers=layers, inference=True)
    return model


def _write_programs(model: nn.Module, draft: _Draft, inputs: Inputs, arrays: Path, formats: Sequence[str]) -> None:
    """Write what holds the computation; what cannot be written gets its reason."""
    from search.artefacts.programs import NotExportable, capture, write_onnx, write_pt2
    from search.artefacts.verify import Job

    told = draft.card["formats"]
    if "safetensors" not in formats:
        del told["safetensors"]
    programs = [name for name in formats if name in PROGRAMS]
    if not programs:
        return
    try:
        captured = capture(model, inputs)
    except NotExportable as error:
        told |= {name: {"file": None, "verified": False, "reason": str(error)} for name in programs}
        return
    writers = {"pt2": write_pt2, "onnx": write_onnx}
    for name in programs:
        file = draft.folder / FORMATS[name].files[0]
        try:
            writers[name](captured, file)
        except NotExportable as error:
            told[name] = {"file": None, "verified": False, "reason": str(error)}
            continue
        told[name] = {"file": file.name, "batch": captured.batch}
        draft.jobs[name] = Job(file, name, arrays, isinstance(inputs, dict), captured.batch)


def _compare(model: nn.Module, stored: nn.Module, inputs: Inputs) -> dict[str, Any]:
    """Compare the network that an export gives with the one that the study holds: the same to the last bit."""
    import torch
    from torch.utils._pytree import tree_leaves

    from methods.contract.inputs import batch_size, call

    with torch.inference_mode():
        answers = [tree_leaves(call(each, inputs)) for each in (model, stored)]
    differences = [float((one - other).abs().max()) for one, other in zip(*answers, strict=True)]
    if any(differences):
        raise RunError(f"the exported network answers otherwise than the trial's, by {max(differences):.3g}")
    return {"file": "weights.safetensors", "verified": True, "largest_difference": 0.0, "inputs": batch_size(inputs)}


def _settle(draft: _Draft, name: str, parity: Any) -> None:
    """Write down what came of running a file; one that fails is set aside."""
    told = draft.card["formats"][name]
    if parity.verified:
        told |= {"verified": True, "largest_difference": parity.largest_difference, "inputs": parity.inputs}
        return
    file = draft.folder / told["file"]
    aside = file.with_name(f"{file.stem}.{UNVERIFIED}{file.suffix}")
    file.rename(aside)
    told |= {"file": aside.name, "verified": False, "reason": parity.reason()}


def _finish(draft: _Draft, formats: Sequence[str]) -> None:
    """Write the card, as data and as a page."""
    if "safetensors" not in formats:
        for name in FORMATS["safetensors"].files:
            (draft.folder / name).unlink()
    kept = sorted(path.name for path in draft.folder.iterdir() if path.name != "card.json")
    draft.card["files"] = describe_files(draft.folder, kept)
    draft.card["bytes"] = sum(each["bytes"] for each in draft.card["files"].values())
    write_json(draft.folder / "card.json", draft.card)
    write_atomically(draft.folder / "card.md", card_page(draft.card))


def _users_modules(files: StudyFiles) -> list[str]:
    """The package of the user's network, which a stranger does not have."""
    package, colon, _ = files.config().model.partition(":")
    return [package.partition(".")[0]] if colon and package not in LIBRARIES else []


def _check_size(model: nn.Module, card: dict[str, Any]) -> None:
    """Count the rebuilt network: a file that gives another network is not an export."""
    from methods.contract.inputs import zeros
    from methods.network.cost import count

    cost = count(model, zeros(card["network"]["example_shape"], card["network"].get("example_dtypes")))
    if (cost.flops, cost.params) != (card["flops"], card["params"]):
        raise RunError(
            f"the exported network has {cost.flops} FLOPs and {cost.params} parameters, the trial had "
            f"{card['flops']} and {card['params']}: {json.dumps(card['network'])}"
        )


def _measure_fastest(
    folder: Path,
    config: dict[str, Any],
    layers: Sequence[type[nn.Module]] = (),
    own: str | nn.Module | None = None,
) -> dict[str, Any]:
    """Measure how layers with equal forms run fastest on this machine's CPU, with batch and threads of the study."""
    from methods.contract.inputs import zeros
    from search.speed.measure import turn
    from search.speed.targets import make_noise_like, threads_of, watch
    from search.speed.tuner import deployment

    wanted = config["latency"]
    threads = wanted["threads"] or config["resources"]["cpus_per_trial"]
    setting = Conditions(("cpu",), wanted["batch_size"], threads)
    network = read_json(folder / "architecture.json")["network"]
    model = rebuild(folder, network=own or network["model"], layers=layers)
    inputs = make_noise_like(zeros(network["example_shape"], network.get("example_dtypes")), setting.batch_size)
    with turn(), threads_of(setting):
        return {"execution": deployment(model, inputs, watch("cpu", threads), setting)}
