"""The garbage collector around imports."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest

from search.records.collector import import_for_good, pause_collector


@pytest.fixture(autouse=True)
def as_before() -> Generator[None]:
    enabled = gc.isenabled()
    yield
    gc.unfreeze()
    (gc.enable if enabled else gc.disable)()


def test_the_collector_is_as_before_also_where_the_block_raises() -> None:
    gc.enable()
    with pytest.raises(KeyError), pause_collector():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
    gc.disable()
    with pause_collector():
        pass
    assert not gc.isenabled()


def test_what_was_imported_for_good_is_not_looked_through_again() -> None:
    gc.unfreeze()
    with import_for_good():
        kept: list[list[int]] = [[] for _ in range(1000)]
    assert gc.get_freeze_count() >= len(kept)
