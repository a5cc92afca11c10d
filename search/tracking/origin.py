"""Who ran what, in MLflow's tags."""

from __future__ import annotations

import getpass
import subprocess
import sys
from pathlib import Path


def origin() -> dict[str, str]:
    """Return the tags by which MLflow shows who ran what; its client sets none by itself.

    Returns:
        User, program and, when this code runs from a git checkout, its commit.
    """
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user without a name
        user = "unknown"
    tags = {
        "mlflow.user": user,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": Path(sys.argv[0]).name or "python",
        "mlflow.source.git.commit": _commit(),
    }
    return {name: text for name, text in tags.items() if text}


def _commit() -> str:
    """Return the commit of this code, empty when it does not run from a git checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git here, or a repository of another user
        return ""
