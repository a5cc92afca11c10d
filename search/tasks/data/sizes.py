"""How a data set is split. No torch here, so that configurations load fast."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from methods.contract.recipe import LARGEST_SEED

Part = Annotated[float, Field(gt=0)]


class SplitSizes(BaseModel):
    """Sizes of the validation and test parts.

    A value below 1 is a share of the examples, a value of 1 or more a number of examples. ``None`` means the
    data set's own default. A data set with an official test set keeps it, and ``test`` must stay ``None``.

    Attributes:
        validation: Size of the part that search and method decisions look at.
        test: Size of the part that is touched once, for the finished front.
        seed: Decides which examples fall where; stored with the study.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    validation: Part | None = None
    test: Part | None = None
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
