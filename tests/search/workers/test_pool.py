"""Executors by name: ours, and one from a module in the working directory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.study.config import EXECUTORS, Resources
from search.study.config_file import load_config
from search.workers.inline import InlinePool
from search.workers.pool import Pool, load_executor, open_pool
from spaces import InputError

MINE = """
from contextlib import contextmanager
entered = []

class Mine:
    slots = 2
    def __init__(self, resources, gpus_per_trial, warn):
        self.given = (resources.cpus_per_trial, gpus_per_trial)
    def run(self, schedule, setting, files, on_started): ...

@contextmanager
def managed(resources, gpus_per_trial, warn):
    entered.append("in")
    yield Mine(resources, gpus_per_trial, warn)
    entered.append("out")

def no_pool(resources, gpus_per_trial, warn):
    return 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "pool_mine.py").write_text(MINE)
    yield
    sys.modules.pop("pool_mine", None)


def warn(text: str) -> None:
    raise AssertionError(text)


def test_ours_have_a_place() -> None:
    assert {"ray", "inline"} <= set(EXECUTORS)
    assert all(callable(load_executor(name)) for name in EXECUTORS)
    with open_pool(Resources(executor="inline"), 0, warn) as pool:
        assert isinstance(pool, InlinePool) and isinstance(pool, Pool)


def test_an_executor_of_somebody_elses() -> None:
    with open_pool(Resources(executor="pool_mine:Mine", cpus_per_trial=3), 0.5, warn) as pool:
        assert pool.slots == 2 and vars(pool)["given"] == (3, 0.5)
    with open_pool(Resources(executor="pool_mine:managed"), 0, warn):
        assert sys.modules["pool_mine"].entered == ["in"]
    assert sys.modules["pool_mine"].entered == ["in", "out"]


def test_what_is_wrong_is_said_in_one_sentence() -> None:
    with pytest.raises(InputError, match=r"unknown executor 'rey'; did you mean 'ray'\?.*package.module:Name"):
        load_config(None, ["resources.executor=rey"])
    with pytest.raises(InputError, match="executor 'pool_mine:Mime': unknown name in pool_mine: 'Mime'"):
        load_executor("pool_mine:Mime")
    with (
        pytest.raises(InputError, match="executor 'pool_mine:no_pool' makes a int, which lacks slots or run"),
        open_pool(Resources(executor="pool_mine:no_pool"), 0, warn),
    ):
        raise AssertionError("not entered")
