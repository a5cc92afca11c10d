"""What is wrong with parts of somebody else's is said in one sentence before anything is trained or written."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from search.driver.sweep import Sweep
from search.records.listener import NullListener
from search.study.samplers.base import Aim
from spaces import InputError
from tests.search.cases import make_quick_config

HERE = "tests.search.driver.test_prepare"


class Moody:
    """A sampler that cannot be made."""

    def __init__(self, aim: Aim, seed: int) -> None:
        raise OSError("not today")

    def observe(self, trial: object) -> None: ...

    def propose(self, *given: object) -> list[object]:
        return []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sampler": "nowhere:Mine"}, "sampler 'nowhere:Mine': there is no module 'nowhere'"),
        ({"sampler": f"{HERE}:Mine"}, "unknown name in .*: 'Mine'"),
        ({"sampler": f"{HERE}:math"}, "is a module, not a class of samplers"),
        ({"sampler": f"{HERE}:Path"}, "has no observe and propose"),
        ({"sampler": f"{HERE}:Moody"}, r"cannot be made as Name\(aim, seed\): not today"),
        ({"scheduler": f"{HERE}:math"}, "scheduler .*:math'"),
        ({"methods": [f"{HERE}:Moody"]}, "is no subclass of methods.Method"),
        ({"task": f"{HERE}:Moody", "objectives": ["accuracy", "flops"]}, "is the class Moody, not a subclass of"),
        ({"resources": {"executor": f"{HERE}:math"}}, "executor .*:math'"),
        ({"latency": {"targets": [f"{HERE}:math"]}}, "is a module, not a search.speed.targets.Target"),
        ({"model": f"{HERE}:HERE"}, "is a str, not a function"),
        ({"data": f"{HERE}:HERE"}, "is a str, not a function"),
    ],
)
def test_parts_of_the_wrong_kind(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    assert math  # a module to be named
    with pytest.raises(InputError, match=said) as caught:
        Sweep(make_quick_config(tmp_path, **given), NullListener()).run()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "studies").exists() and not (tmp_path / "dense").exists()
