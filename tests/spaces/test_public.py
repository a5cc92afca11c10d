from __future__ import annotations

import subprocess
import sys

import pytest

import spaces

HEAVY = ("torch", "optuna", "ray", "mlflow", "numpy", "pandas", "pydantic")


def test_the_public_list_is_the_truth() -> None:
    assert spaces.__all__ == sorted(spaces.__all__, key=lambda name: (not name[0].isupper(), name))
    for name in spaces.__all__:
        assert getattr(spaces, name) is not None
    with pytest.raises(AttributeError, match="module 'spaces' has no attribute 'Sparsty'"):
        spaces.Sparsty  # noqa: B018


def test_importing_the_room_imports_nothing_heavy() -> None:
    code = f"import sys, spaces; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = f"import sys, spaces.dialects; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
