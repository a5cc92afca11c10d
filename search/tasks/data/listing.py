"""Data sets that can be named, for people; needs no torch."""

from __future__ import annotations

from pathlib import Path

from search.tasks.data.sets import DATA, GROUP
from search.tasks.listing import entry_point_names, read_first_sentence
from search.tasks.recipes import default_recipe

FORMS = {
    "hf:FOLDER": "a folder of Hugging Face's datasets: of save_to_disk, of parquet files, or of images",
    "package.module:function": "your own function: it gives (inputs, labels) or a torch Dataset; see docs/tasks.md",
}
"""Other names, and what they stand for."""


def list_data(root: Path) -> list[dict[str, str]]:
    """List data sets.

    Args:
        root: Where data sets lie or are downloaded to.

    Returns:
        ``name``, ``what`` and ``epochs`` (of the dense network, and of a trial), ours first.
    """
    rows = [{"name": name, "what": read_first_sentence(place), "epochs": _epochs(name)} for name, place in DATA.items()]
    rows += [{"name": name, "what": f"of {owner}", "epochs": _epochs(name)} for name, owner in entry_point_names(GROUP)]
    rows += [{"name": name, "what": what, "epochs": _epochs(name)} for name, what in FORMS.items()]
    return rows


def _epochs(name: str) -> str:
    """How long is trained unless the configuration says otherwise."""
    return f"{default_recipe(name, 'dense')[1]:g} dense, {default_recipe(name, 'finetune')[1]:g} per trial"
