"""Networks that can be named, for people: read from the builders' files, without importing them or torch."""

from __future__ import annotations

from search.tasks.listing import entry_point_names, read_first_sentence
from search.tasks.models import MODELS

FORMS = {
    "torchvision:NAME": 'a classifier of torchvision, with weights = "DEFAULT" for its trained weights',
    "timm:NAME": 'a classifier of timm, with weights = "pretrained" for its trained weights',
    "hf:FOLDER": 'a classifier of Hugging Face from a folder with a config.json, with "pretrained" likewise',
    "package.module:function": "your own: a function or class that gives an nn.Module; it may take num_classes",
}
"""Other names, and what they stand for."""

GROUP = "paretoprune.models"


def list_models(part: str | None = None) -> list[dict[str, str]]:
    """List networks.

    Args:
        part: Names of torchvision's classifiers that have this in them are listed as well (this imports torchvision).

    Returns:
        ``name`` and ``what``: ours, those of installed packages, torchvision's if asked for, then the forms of names.
    """
    rows = [{"name": name, "what": read_first_sentence(place)} for name, place in MODELS.items()]
    rows += [{"name": name, "what": f"of {package}"} for name, package in entry_point_names(GROUP)]
    if part is not None:
        from torchvision import models

        rows += [{"name": f"torchvision:{name}", "what": "torchvision"} for name in models.list_models(module=models)]
        rows = [row for row in rows if part in row["name"]]
    return rows + [{"name": name, "what": what} for name, what in FORMS.items()]
