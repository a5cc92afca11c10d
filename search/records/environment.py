"""What a result was computed with: stored with every study."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("paretoprune", "torch", "torchvision", "optuna", "ray", "mlflow")


def versions() -> dict[str, str]:
    """Name the versions of what decides a result.

    Returns:
        Version by package; a package that is not installed is left out. Also ``python``, ``machine`` and
        ``cpus``.
    """
    # This backport, which MLflow imports, looks for packages before it is whole; a thread may be importing it just now,
    # and importing it here waits for that.
    with suppress(ModuleNotFoundError):
        import_module("importlib_metadata")
    found = {"python": platform.python_version(), "machine": platform.platform(), "cpus": str(os.cpu_count())}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # a single trial runs without ray and mlflow
    return found
