from __future__ import annotations

import socket
import sys

import pytest
import ray

from search.study.config import Resources
from search.workers.ray_workers import ray_pool


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address of this machine")
def test_a_local_cluster_listens_on_loopback_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with ray_pool(Resources(), 0), socket.create_server(("", 0)) as everywhere:
        (node,) = ray.nodes()  # type: ignore[no-untyped-call]
        store = int(ray.get_runtime_context().gcs_address.rpartition(":")[2])
        for port in (node["NodeManagerPort"], node["ObjectManagerPort"], store):
            assert answers("127.0.0.1", port)
            assert not answers("127.0.0.2", port), "it listens on further addresses"
        assert answers("127.0.0.2", everywhere.getsockname()[1]), "what listens on all of them is found so"
