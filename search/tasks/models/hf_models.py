"""Image classifiers of Hugging Face, built from a configuration that lies here; transformers is asked for only here.

``hf:FILE`` names a ``config.json``, ``hf:FOLDER`` a folder that holds one, as ``save_pretrained`` writes them. Nothing
is downloaded, and no code that such a folder may hold is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from search.tasks.image_format import IMAGENET, ImageFormat
from search.tasks.models.weights import WRAPPER, read_weights
from spaces import InputError, explain_unknown_name
from spaces.errors import shorten_error

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files of trained weights in a folder, in the order in which they are looked for."""

RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Names of Pillow's filters by their numbers."""


class Logits(nn.Module):
    """A classifier of Hugging Face that takes a tensor of images and gives a tensor of logits.

    Args:
        network: The classifier.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Classify.

        Args:
            images: ``[batch, channels, height, width]``.

        Returns:
            Logits ``[batch, classes]``.
        """
        logits: Tensor = self.network(pixel_values=images).logits
        return logits


def hf_model(place: str, classes: int) -> nn.Module:
    """Build an image classifier with initial weights.

    Args:
        place: A ``config.json`` or the folder that holds it.
        classes: Number of classes.

    Returns:
        The network.

    Raises:
        InputError: If transformers is not installed, the configuration cannot be read, or it is not one of an image
            classifier.
    """
    transformers = _transformers(place)
    config = _config(transformers, place)
    config.num_labels = classes
    config.architectures = config.architectures or []  # some versions of transformers stumble over None
    kinds = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    if type(config) not in kinds:
        known = sorted({kind.model_type for kind in kinds})
        raise InputError(explain_unknown_name(f"image classifier in {place}:", config.model_type, known))
    try:
        return Logits(transformers.AutoModelForImageClassification.from_config(config))
    except (ImportError, TypeError, ValueError, AttributeError, KeyError, RuntimeError) as error:
        raise InputError(f"no network can be built from {_file(place)}: {shorten_error(error)}") from error


def hf_input(place: str) -> tuple[int, ...]:
    """Say which input a classifier was made for.

    Args:
        place: A ``config.json`` or the folder that holds it.

    Returns:
        Shape of one input, ``(1, channels, height, width)``.
    """
    config = _config(_transformers(place), place)
    side = getattr(config, "image_size", None) or _read_format(place).side or 224
    height, width = (side, side) if isinstance(side, int) else side
    return (1, int(getattr(config, "num_channels", 3)), int(height), int(width))


def hf_format(place: str) -> ImageFormat:
    """Say how images are made ready for a classifier.

    Args:
        place: A ``config.json`` or the folder that holds it, and perhaps a ``preprocessor_config.json``.

    Returns:
        The format of the folder's preprocessor, of the side that the network was made for.
    """
    found = _read_format(place)
    side = hf_input(place)[-1]
    return ImageFormat(side, found.mean, found.std, found.interpolation, found.crop)


def hf_weights(place: str) -> Mapping[str, Tensor]:
    """Read the trained weights that lie beside a configuration.

    Args:
        place: A ``config.json`` or the folder that holds it.

    Returns:
        The state dictionary, under the names that :func:`hf_model` gives.

    Raises:
        InputError: If there are none.
    """
    folder = _file(place).parent
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise InputError(f"there are no weights in {folder}: it holds neither {' nor '.join(WEIGHTS)}")
    return {WRAPPER + name: tensor for name, tensor in read_weights(file).items()}


def _file(place: str) -> Path:
    path = Path(place).expanduser()
    return path / CONFIG if path.is_dir() else path


def _config(transformers: Any, place: str) -> Any:
    """Read a configuration."""
    described = _read_json(_file(place), place)
    kind = described.get("model_type")
    if not isinstance(kind, str):
        raise InputError(f"{_file(place)} names no model_type, as configurations of Hugging Face do")
    if kind not in transformers.CONFIG_MAPPING:
        raise InputError(
            explain_unknown_name(f"model_type in {_file(place)}:", kind, sorted(transformers.CONFIG_MAPPING))
        )
    try:
        return transformers.CONFIG_MAPPING[kind].from_dict(described)
    except Exception as error:  # of the library's own validation
        raise InputError(f"{_file(place)} is not a configuration of {kind}: {shorten_error(error)}") from error


def _read_json(file: Path, place: str) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"hf:{place} names no configuration ({file}: {error.strerror}); give a config.json, or a folder that holds "
            "one, on this machine: nothing is downloaded"
        ) from error
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{file} is not a configuration: it holds a {type(found).__name__}")
    return found


def _read_format(place: str) -> ImageFormat:
    """Read the format of the folder's preprocessor; the usual one where there is none."""
    file = _file(place).parent / PREPROCESSOR
    if not file.is_file():
        return IMAGENET
    given = _read_json(file, place)
    size, number = given.get("size") or {}, given.get("resample", 2)
    side = size if isinstance(size, int) else size.get("height") or size.get("shortest_edge")
    normalised = given.get("do_normalize", True)
    known = isinstance(number, int) and 0 <= number < len(RESAMPLING)
    return ImageFormat(
        side=None if side is None else int(side),
        mean=tuple(map(float, given.get("image_mean", IMAGENET.mean))) if normalised else (0.0, 0.0, 0.0),
        std=tuple(map(float, given.get("image_std", IMAGENET.std))) if normalised else (1.0, 1.0, 1.0),
        interpolation=RESAMPLING[number] if known else IMAGENET.interpolation,
        crop=float(given.get("crop_pct") or (IMAGENET.crop if given.get("do_center_crop") else 1.0)),
    )


def _transformers(place: str) -> Any:
    try:
        return import_module("transformers")
    except ImportError as error:
        raise InputError(f"hf:{place} needs the package transformers; install it (pip install transformers)") from error
