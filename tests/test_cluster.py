"""The files for clusters say what the command line takes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

CLUSTER = Path(__file__).parent.parent / "examples" / "cluster"


@pytest.mark.parametrize(
    ("given", "address", "directory"),
    [({}, "auto", None), ({"RAY_HEAD": "10.0.0.1:6379", "SHARED": "/my disk"}, "10.0.0.1:6379", "/my disk")],
)
def test_the_launcher_starts_a_sweep(
    given: dict[str, str], address: str, directory: str | None, tmp_path: Path
) -> None:
    said = tmp_path / "paretoprune"
    said.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    said.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **given}
    line = ["sh", str(CLUSTER / "sweep.sh"), "a study.toml", "--name", "mine"]
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    kept = directory or f"{tmp_path}/mlruns"
    wanted = ["sweep", "a study.toml", "--address", address, "--directory", kept, "--name", "mine"]
    assert done.stdout.splitlines() == wanted


def test_all_nodes_of_the_manifest_share_one_volume() -> None:
    spec = yaml.safe_load((CLUSTER / "kuberay.yaml").read_text(encoding="utf-8"))["spec"]
    pods = [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    assert len(pods) == 2
    for pod in pods:
        (container,) = pod["containers"]
        assert container["volumeMounts"] == [{"name": "shared", "mountPath": "/shared"}]
        assert pod["volumes"] == pods[0]["volumes"]
