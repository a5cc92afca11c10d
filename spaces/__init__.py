"""What may vary: parameters, spaces made of them, and how sparsity is shared out over the layers.

Needs neither torch nor a search library. The names of ``spaces.sparsity`` are loaded when they are first
asked for, because pydantic takes longer to import than all the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spaces.errors import InputError, explain_unknown_name
from spaces.layers import LayerBlock, LayerGroup, round_down_width, round_up_width
from spaces.parameters import Categorical, Integer, LogReal, Parameter, Range, Real, Value
from spaces.space import Condition, Point, Space

if TYPE_CHECKING:
    from spaces.sparsity import (
        ByDamage,
        ByEnergy,
        FlopsTarget,
        PerLayer,
        PerStage,
        Sparsity,
        Uniform,
        sparsity_space,
    )

__all__ = [
    "ByDamage",
    "ByEnergy",
    "Categorical",
    "Condition",
    "FlopsTarget",
    "InputError",
    "Integer",
    "LayerBlock",
    "LayerGroup",
    "LogReal",
    "Parameter",
    "PerLayer",
    "PerStage",
    "Point",
    "Range",
    "Real",
    "Space",
    "Sparsity",
    "Uniform",
    "Value",
    "explain_unknown_name",
    "round_down_width",
    "round_up_width",
    "sparsity_space",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("spaces.sparsity"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
