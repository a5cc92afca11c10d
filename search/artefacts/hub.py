"""An export as a repository of the Hugging Face Hub: a card with metadata in front, and the files as they are.

Nothing is sent but by :func:`push`, which alone needs ``huggingface_hub`` and a connection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from search.artefacts.card import card_page
from search.store.files import write_atomically
from spaces import InputError
from spaces.errors import shorten_error

TAGS = {"classification": "image-classification", "segmentation": "image-segmentation"}
"""What the Hub calls the tasks here; others have no name there that always fits."""

LARGE = ("*.onnx", "*.pt2", "*.safetensors")
"""Files that the Hub keeps apart from the history (Git LFS)."""


def validate_repository(name: str) -> str:
    """Check the name of a repository.

    Args:
        name: ``USER/NAME``.

    Returns:
        The name.

    Raises:
        InputError: If the Hub would not take it.
    """
    part = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
    if not re.fullmatch(f"{part}/{part}", name) or len(name) > 96 or "--" in name or ".." in name:
        raise InputError(
            f"--hub {name!r} is not the name of a repository: USER/NAME of letters, digits, '-', '_' and '.' "
            "(example: --hub ann/small-resnet)"
        )
    return name


def write_hub_files(folder: Path, card: Mapping[str, Any], repository: str) -> None:
    """Make the folder of an export one that the Hub shows well: ``README.md`` with metadata in place of ``card.md``.

    Args:
        folder: The export.
        card: Its card.
        repository: ``USER/NAME``.
    """
    lines = [
        "---",
        *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in _metadata(card, repository).items()),
        "---",
        "",
        card_page(card).rstrip("\n"),
        "",
        "## From the Hub",
        "",
        "```python",
        "from huggingface_hub import snapshot_download",
        "",
        f'folder = snapshot_download("{repository}")',
        "```",
        "",
    ]
    write_atomically(folder / "README.md", "\n".join(lines))
    attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE)
    write_atomically(folder / ".gitattributes", attributes)
    (folder / "card.md").unlink(missing_ok=True)


def push(folder: Path, repository: str) -> str:
    """Send a folder to the Hub, as the user who is logged in there.

    Args:
        folder: What :func:`write_hub_files` made.
        repository: ``USER/NAME``; made, private, where it is not there.

    Returns:
        Its address.

    Raises:
        InputError: If ``huggingface_hub`` is not installed, nobody is logged in, or the Hub cannot be reached; says how
            to send the folder later.
    """
    later = f"the folder is complete; send it later with `hf upload {repository} {folder}`"
    try:
        hub: Any = import_module("huggingface_hub")
    except ImportError as error:
        raise InputError(f"--push needs the package huggingface_hub (pip install huggingface_hub); {later}") from error
    interface = hub.HfApi()
    try:
        interface.create_repo(repository, private=True, exist_ok=True)
        return str(interface.upload_folder(repo_id=repository, folder_path=str(folder)))
    except Exception as error:  # no connection, nobody logged in, no right to write: the library has an error for each
        raise InputError(
            f"{repository} could not be sent to the Hugging Face Hub ({shorten_error(error)}); {later}"
        ) from error


def _metadata(card: Mapping[str, Any], repository: str) -> dict[str, Any]:
    """What stands before the card, by key, each in JSON, which is YAML too."""
    onnx = ["onnx"] if card["formats"].get("onnx", {}).get("verified") else []
    found: dict[str, Any] = {"library_name": "pytorch", "tags": ["pruning", "paretoprune", card["method"], *onnx]}
    tag = TAGS.get(card["network"]["name"])
    if tag is None:
        return found
    found["pipeline_tag"] = tag
    result = {
        "task": {"type": tag},
        "dataset": {"name": card["data"]["name"], "type": card["data"]["name"], "split": "test"},
        "metrics": [
            {"type": name, "name": f"test {name}", "value": value} for name, value in card["test_metrics"].items()
        ],
    }
    if result["metrics"]:
        found["model-index"] = [{"name": repository.partition("/")[2], "results": [result]}]
    return found
