"""The card of an exported network: what its user must know, as data and as a page. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from search.objectives import OBJECTIVES, Objective
from search.records.environment import versions
from search.records.formats import FORMATS
from search.records.outcome import DenseRow, Outcome
from search.store.reruns import read_confirmation
from search.store.studies import StudyFiles
from spaces import InputError


def make_card(files: StudyFiles, number: int) -> dict[str, Any]:
    """Collect what a user of a trial's network must know.

    Args:
        files: The study.
        number: Number of the trial.

    Returns:
        Numbers of the network and of the dense one on validation and test (with ``confirmed``: means and intervals
        over further seeds, where the study has them), latency where it was measured, method and point, widths, data
        with hashes of their content, seeds and versions (of the study, and ``exported_with`` now), in JSON's types.

    Raises:
        InputError: If the trial failed.
    """
    outcome, record, dense = files.outcome(number), files.record(), files.dense()
    if outcome.state != "complete":
        raise InputError(f"trial {number} of study {files.name!r} failed: it has no network")
    config, told = record["config"], outcome.to_json()
    return {
        "study": files.name,
        "trial": number,
        "method": outcome.method,
        "point": outcome.point,
        **({"accuracy": outcome.metrics["accuracy"]} if "accuracy" in outcome.metrics else {}),
        **({"test_accuracy": outcome.test_accuracy} if "accuracy" in outcome.metrics else {}),
        "metrics": dict(outcome.metrics),
        "test_metrics": dict(outcome.test_metrics),
        "flops": int(outcome.metrics["flops"]),
        "flops_share": outcome.metrics["flops"] / dense.flops,
        "params": int(outcome.metrics["params"]),
        "params_share": outcome.metrics["params"] / dense.params,
        **_latency(outcome, dense),
        "timings": told["timings"],
        "confirmed": _read_confirmation(files, number),
        "widths": told["widths"],
        "dense": dense.to_json(),
        "rows": _rows(files, outcome, dense),
        "network": {"model": config["model"], "seed": config["seed"], **record["task"]},
        "data": {"name": config["data"], "split": config["split"], "hashes": _hashes(record)},
        "seeds": {"study": config["seed"], "trial": outcome.seed},
        "versions": record.get("versions", versions()),
        "exported_with": versions(),
    }


def describe_files(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Describe files so that a copy can be checked.

    Args:
        folder: Where they are.
        names: Their names.

    Returns:
        ``bytes`` and ``sha256`` of each.
    """
    described = {}
    for name in names:
        content = (folder / name).read_bytes()
        described[name] = {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    return described


def card_page(card: Mapping[str, Any]) -> str:
    """Write a card as a page.

    Args:
        card: What :func:`make_card` gave, with ``formats`` and ``files``.

    Returns:
        Markdown.
    """
    lines = [
        f"# {card['network']['model']}, pruned by {card['method']}",
        "",
        f"Trial {card['trial']} of study `{card['study']}` on {card['data']['name']}.",
        "",
        "| | pruned | dense |",
        "|---|---|---|",
        *(_row(*row) for row in card["rows"]),
        "",
        "## Files",
        "",
        "| format | file | size | checked in a clean process |",
        "|---|---|---|---|",
        *(_format_row(name, each, card["files"]) for name, each in card["formats"].items()),
        "",
        "## Load",
        "",
        *_describe_loading(card),
        "## Inputs",
        "",
        f"Shape of one input: {card['network']['example_shape']} (the first number is the batch), normalised as the "
        f"data set `{card['data']['name']}` was in the study.",
        "",
        "## How it was made",
        "",
        f"Method `{card['method']}`: {', '.join(f'`{k} = {v}`' for k, v in card['point'].items()) or 'defaults'}",
        f"(seed {card['seeds']['trial']}). Channels kept by layer group:",
        "",
        "| group | kept | dense |",
        "|---|---|---|",
        *(f"| `{group}` | {kept} | {of} |" for group, (kept, of) in card["widths"].items()),
        "",
        "Versions: " + ", ".join(f"{name} {value}" for name, value in card["versions"].items()) + ".",
        "",
    ]
    return "\n".join(lines)


def _latency(outcome: Outcome, dense: DenseRow) -> dict[str, float]:
    """Seconds of one pass on the study's first target, and its share of the dense network's; nothing if not timed."""
    seconds = outcome.metrics.get("latency")
    if seconds is None or dense.latency is None:
        return {}
    return {"latency": seconds, "latency_share": seconds / dense.latency}


def _read_confirmation(files: StudyFiles, number: int) -> dict[str, Any] | None:
    """What further seeds said of a trial: seeds, confidence, verdict, means and half widths; ``None`` without them."""
    found = read_confirmation(files)
    member = next((each for each in found.get("members", ()) if each["trial"] == number), None)
    if member is None:
        return None
    chosen = {name: member[name] for name in ("verdict", "into", "validation", "test", "optimism")}
    return {"seeds": found["seeds"], "confidence": found["confidence"], **chosen}


def _hashes(record: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the parts of the data; studies of earlier versions have none."""
    return {name: value for name, value in record.get("identity", {}).items() if name.endswith(" data")}


def _rows(files: StudyFiles, outcome: Outcome, dense: DenseRow) -> list[list[str]]:
    """What is measured, as text: title, the network's value, the dense one's."""
    confirmed = _read_confirmation(files, outcome.number)
    known = {**OBJECTIVES, **{objective.name: objective for objective in files.objectives()}}
    rows = []
    for name in outcome.metrics:
        objective = known.get(name)
        if objective is None:
            continue
        title = f"{objective.heading} on validation" if objective.quality else objective.heading
        rows.append([title, *(_text(objective, each.metrics, name) for each in (outcome, dense))])
        if confirmed is not None and name in confirmed["validation"]:
            over = confirmed["validation"][name]
            rows.append([f"{title}, mean of {confirmed['seeds']} further seeds", _interval(objective, over), ""])
        if name in outcome.test_metrics:
            test = [_text(objective, each.test_metrics, name) for each in (outcome, dense)]
            rows.append([f"{objective.heading} on test", *test])
    shares = [["share of the dense FLOPs", f"{outcome.metrics['flops'] / dense.flops:.1%}", "100.0%"]]
    return rows + shares


def _text(objective: Objective, values: Mapping[str, float], name: str) -> str:
    return objective.format(values[name]) if name in values else ""


def _interval(objective: Objective, spread: Mapping[str, Any]) -> str:
    """A mean with half the width of its interval, as text."""
    if spread["mean"] is None:
        return ""
    half = spread["half_width"]
    return objective.format(spread["mean"]) + ("" if half is None else f" ± {objective.format(half)}")


def _row(title: str, pruned: str, dense: str) -> str:
    return f"| {title} | {pruned} | {dense} |"


def _format_row(name: str, told: Mapping[str, Any], files: Mapping[str, Any]) -> str:
    """One format: its main file, how large it is, and whether it counts."""
    file = told.get("file")
    size = f"{files[file]['bytes'] / 1e3:,.0f} kB" if file is not None and file in files else "–"
    if told.get("verified"):
        checked = f"yes: differs by at most {told['largest_difference']:.1e} on {told['inputs']} real inputs"
        if told.get("batch") is not None:
            checked += f"; takes {told['batch']} input at a time"
        if "metrics" in told:
            checked += (
                f"; reaches {_describe_reached(told)}, in {told['latency_share']:.0%} of the time of `model.onnx`"
            )
    else:
        checked = f"**does not count**: {told['reason']}"
    return f"| {name} | {f'`{file}`' if file else '–'} | {size} | {checked} |"


def _describe_reached(told: Mapping[str, Any]) -> str:
    """What a network of its own accuracy reaches."""
    sets = (("validation", told["metrics"]), ("test", told["test_metrics"]))
    return " and ".join(f"{name} {value:.4f} on {where}" for where, found in sets for name, value in found.items())


def _calls(shapes: Any) -> tuple[str, str]:
    """Write how inputs of these shapes are handed to the program of torch, and to ONNX Runtime."""
    if isinstance(shapes, Mapping):
        feed = ", ".join(f'"{name}": {name}' for name in shapes)
        return ", ".join(f"{name}={name}" for name in shapes), f"{{{feed}}}"
    if shapes and not isinstance(shapes[0], int):
        names = ", ".join(f"input_{place}" for place in range(len(shapes)))
        return names, f"dict(zip([each.name for each in session.get_inputs()], [{names}]))"
    return "inputs", "{session.get_inputs()[0].name: inputs}"


def _describe_loading(card: Mapping[str, Any]) -> list[str]:
    """How each format that counts is loaded."""
    call, feed = _calls(card["network"]["example_shape"])
    snippets = {
        "pt2": f'import torch\n\nmodel = torch.export.load("model.pt2").module()\noutputs = model({call})  # tensors',
        "onnx": 'import onnxruntime\n\nsession = onnxruntime.InferenceSession("model.onnx")\n'
        f"outputs = session.run(None, {feed})  # arrays of NumPy",
        "safetensors": 'from paretoprune import rebuild\n\nmodel = rebuild(".")  # to train or prune further',
    }
    lines = []
    for name, told in card["formats"].items():
        if told.get("verified"):
            title = FORMATS[name].title if name in FORMATS else "the ONNX graph with 8-bit weights and activations"
            code = snippets.get(name) or snippets["onnx"].replace("model.onnx", str(told["file"]))
            lines += [f"{name}: {title}.", "", "```python", code, "```", ""]
    return lines
