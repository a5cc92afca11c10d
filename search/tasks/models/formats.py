"""How images are made ready for a network that is known by name."""

from __future__ import annotations

from search.tasks.image_format import ImageFormat
from search.tasks.models import HF, TIMM


def image_format(name: str) -> ImageFormat | None:
    """Say how images are made ready for a network.

    Args:
        name: Name of the network.

    Returns:
        The format that a library gives for it; None where the data's own is right.
    """
    if name.startswith(TIMM):
        from search.tasks.models.timm_models import timm_format

        return timm_format(name.removeprefix(TIMM))
    if name.startswith(HF):
        from search.tasks.models.hf_models import hf_format

        return hf_format(name.removeprefix(HF))
    return None
