from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from search.records.environment import versions


def test_versions_wait_for_a_backport_that_another_thread_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``importlib_metadata`` does, it answers searches before what it answers with is defined."""
    (tmp_path / "importlib_metadata.py").write_text(
        "import sys, threading, time\n"
        "class Finder:\n"
        "    def find_distributions(self, context=None): return Half()\n"
        "    def find_spec(self, *given): return None\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.begun.set()\n"
        "time.sleep(0.2)\n"
        "Half = lambda: iter(())\n"
    )
    begun = threading.Event()
    monkeypatch.setattr(sys, "begun", begun, raising=False)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "importlib_metadata", raising=False)
    importing = threading.Thread(target=__import__, args=("importlib_metadata",))
    importing.start()
    try:
        assert begun.wait(30)
        assert {"python", "torch"} <= versions().keys()
    finally:
        importing.join()
        sys.modules.pop("importlib_metadata", None)
