from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from spaces.errors import LISTED, InputError, explain, explain_unknown_name


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class One(Strict):
    mode: Literal["one"] = "one"
    ratio: float = Field(0.5, lt=1)


class Two(Strict):
    mode: Literal["two"] = "two"
    share: float


class Inner(Strict):
    depth: int = 3


class Whole(Strict):
    name: str = "x"
    inner: Inner = Inner()
    kind: Annotated[One | Two, Field(discriminator="mode")] = One()

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name == "own":
            raise InputError("in our own words")
        if name == "plain":
            raise ValueError("too plain")
        return name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nam": 1}, "unknown key in file: 'nam'; did you mean 'name'? (known: inner, kind, name)"),
        ({"inner": {"dept": 1}}, "unknown key in file, section inner: 'dept'; did you mean 'depth'? (known: depth)"),
        (
            {"kind": {"mode": "one", "ratios": 1}},
            "unknown key in file, section kind: 'ratios'; did you mean 'ratio'? (known: mode, ratio)",
        ),
        ({"kind": {"mode": "one", "ratio": 1.5}}, "file: kind.ratio = 1.5 is not allowed: Input should be less than 1"),
        ({"kind": {"mode": "two"}}, "file: kind.share needs a value"),
        ({"name": "own"}, "file: in our own words"),
        ({"name": "plain"}, "file: name = 'plain' is not allowed: too plain"),
    ],
)
def test_first_bad_value_is_explained_as_the_user_wrote_it(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(given)
    assert explain(caught.value, Whole, "file") == said


def test_only_similar_names_of_many_are_listed() -> None:
    names = [f"layer{n}.conv" for n in range(500)]
    said = explain_unknown_name("group", "layer7.con", names)
    assert said.startswith("unknown group 'layer7.con'; did you mean 'layer7.conv'? (known: layer7.conv, ")
    assert said.endswith(f" and {500 - LISTED} more)")
    assert explain_unknown_name("group", "zzz", names).startswith("unknown group 'zzz' (known: layer0.conv, ")
    assert explain_unknown_name("group", "zzz", []) == "unknown group 'zzz' (known: none)"
