"""The files for clusters say what the command line takes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
import ray
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


def test_the_launchers_file_is_one_for_it() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    config = yaml.safe_load((CLUSTER / "ray-up.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError, match="Additional properties"):
        jsonschema.validate(config | {"head_start_commands": []}, schema)
    head, worker = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    assert "--num-cpus=0" in head and "--address=$RAY_HEAD_IP:6379" in worker


CLUSTER_FIELDS = {
    "rayVersion",
    "enableInTreeAutoscaling",
    "autoscalerOptions",
    "headGroupSpec",
    "workerGroupSpecs",
    "suspend",
    "gcsFaultToleranceOptions",
    "authOptions",
}
GROUP_FIELDS = {"rayStartParams", "template", "resources", "labels"}
WORKER_FIELDS = GROUP_FIELDS | {
    *("groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "idleTimeoutSeconds", "suspend")
}
HEAD_FIELDS = GROUP_FIELDS | {"serviceType", "headService", "enableIngress"}
"""Fields of a ``RayCluster``, as KubeRay's reference of ``ray.io/v1`` lists them."""


def test_the_manifest_has_the_fields_of_a_ray_cluster() -> None:
    manifest = yaml.safe_load((CLUSTER / "kuberay.yaml").read_text(encoding="utf-8"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayCluster")
    spec = manifest["spec"]
    assert spec.keys() <= CLUSTER_FIELDS and spec["headGroupSpec"].keys() <= HEAD_FIELDS
    for group in spec["workerGroupSpecs"]:
        assert {"groupName", "template"} <= group.keys() <= WORKER_FIELDS
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "they are texts"
        for container in group["template"]["spec"]["containers"]:
            assert {"name", "image", "resources"} <= container.keys()


def test_all_nodes_of_the_manifest_share_one_volume() -> None:
    spec = yaml.safe_load((CLUSTER / "kuberay.yaml").read_text(encoding="utf-8"))["spec"]
    pods = [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    assert len(pods) == 2
    for pod in pods:
        (container,) = pod["containers"]
        assert container["volumeMounts"] == [{"name": "shared", "mountPath": "/shared"}]
        assert pod["volumes"] == pods[0]["volumes"]
