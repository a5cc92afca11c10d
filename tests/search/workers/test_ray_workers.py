"""Trials on Ray: one start of it serves what can be tried in a few seconds."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from methods.contract.method import Problem, Pruned
from methods.magnitude import Magnitude
from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.store.studies import StudyFiles
from search.study.config import Resources
from search.study.schedule import Schedule
from search.testing import check_executor
from search.trials.trial import Setting
from search.workers import ray_workers
from search.workers.ray_workers import RayPool, ray_pool
from tests.search.workers.settings import POINT, Trials, make_tiny_setting


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def find_workers() -> list[str]:
    """Names of the logs of the processes for work: each begins its own when Ray has heard of it."""
    head = ray._private.worker._global_node
    assert head is not None
    return [path.name for path in Path(head.get_logs_dir_path()).glob("worker-*.out")]


class Dies(Magnitude):
    """Ends its process by a signal as long as a file says so."""

    def prune(self, problem: Problem) -> Pruned:
        lives = Path(os.environ["PARETOPRUNE_TEST_LIVES"])
        left = int(lives.read_text())
        if left:
            lives.write_text(str(left - 1))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().prune(problem)


def run(pool: RayPool, files: StudyFiles, setting: Setting, specs: list[TrialSpec]) -> list[Outcome]:
    files.root.mkdir(parents=True)
    heard: list[Outcome] = []
    pool.run(Schedule(Trials(specs), len(specs), 6, lambda number: None, heard.append), setting, files, lambda _: None)
    return heard


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address of this machine")
def test_a_local_ray_listens_on_loopback_and_keeps_what_executors_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with ray_pool(Resources(max_concurrent=1), 0) as pool, socket.create_server(("", 0)) as all_:
        (node,) = ray.nodes()  # type: ignore[no-untyped-call]
        store = int(ray.get_runtime_context().gcs_address.rpartition(":")[2])
        for port in (node["NodeManagerPort"], node["ObjectManagerPort"], store):
            assert answers("127.0.0.1", port)
            assert not answers("127.0.0.2", port), "it listens on further addresses"
        assert answers("127.0.0.2", all_.getsockname()[1]), "what listens on all of them is found so"
        until = time.monotonic() + 60  # work that comes before that process is up has Ray start another
        while not find_workers():
            assert time.monotonic() < until, "Ray has started no process ahead"
            time.sleep(0.1)
        check_executor(lambda *_: pool, tmp_path / "contract")
        job = ray.get_runtime_context().get_job_id()
        assert not [name for name in find_workers() if f"-{job}-" in name], (
            "trials ran in processes that Ray had not started ahead"
        )


@pytest.mark.slow
def test_workers_that_are_lost_or_far_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    lives = tmp_path / "lives"
    monkeypatch.setenv("PARETOPRUNE_TEST_LIVES", str(lives))
    said: list[str] = []
    setting = make_tiny_setting()
    with ray_pool(Resources(retries=1, max_concurrent=1), 0, said.append) as pool:
        # A worker that is lost is replaced, and its trial runs again, as often as that is allowed.
        dies = f"{__name__}:Dies"
        lives.write_text("1")
        (outcome,) = run(pool, StudyFiles(tmp_path, "once"), setting, [TrialSpec(0, dies, POINT, 1)])
        assert outcome.complete and len(said) == 1 and "trial 0 was lost" in said[0] and "(1 of 1)" in said[0]
        lives.write_text("9")
        (outcome,) = run(pool, StudyFiles(tmp_path, "often"), setting, [TrialSpec(0, dies, POINT, 1)])
        assert outcome.state == "lost" and "2 times" in str(outcome.error)

        # Workers that do not see the study's folder send their trials, through Ray or through a storage.
        here = run(pool, StudyFiles(tmp_path, "here"), setting, [TrialSpec(0, "magnitude", POINT, 7)])
        monkeypatch.setattr(ray_workers, "_Errand", Unseen)
        for resources in (Resources(), Resources(storage=str(tmp_path / "storage"))):
            pool._resources = resources
            away = StudyFiles(tmp_path, f"away-{resources.storage is None}")
            (outcome,) = run(pool, away, setting, [TrialSpec(0, "magnitude", POINT, 7)])
            timed = {"seconds": 0.0}
            assert outcome.metrics | timed == here[0].metrics | timed
            assert sorted(path.name for path in away.folder(0).iterdir()) == sorted(
                path.name for path in StudyFiles(tmp_path, "here").folder(0).iterdir()
            )
        assert not list((tmp_path / "storage").iterdir()), "nothing stays in the storage"


class Unseen(ray_workers._Errand):
    """The errand of a study whose folder no worker sees."""

    @property
    def probe(self) -> Path:
        name = "hidden" if "ray::" in _title() else "shared.json"
        return self.files.root / name


def _title() -> str:
    return Path("/proc/self/cmdline").read_text()


def test_no_room_is_said() -> None:
    from search.records.errors import RunError
    from search.workers import cluster

    nodes = [{"Alive": True, "NodeManagerAddress": "10.0.0.1", "Resources": {"CPU": 4.0, "GPU": 1.0}}]
    count: Callable[[int, float], int] = cluster.count_room
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "nodes", lambda: nodes)
        assert (count(1, 0), count(3, 0), count(1, 0.25), count(1, 2), count(8, 0)) == (4, 1, 4, 0, 0)
        nodes.append({"Alive": True, "NodeManagerAddress": "10.0.0.2", "Resources": {"CPU": 4.0}})
        assert count(8, 0) == 0, "a trial does not span nodes"
        assert count(2, 0) == 4
        nodes.append({"Alive": False, "NodeManagerAddress": "10.0.0.3", "Resources": {"CPU": 64.0}})
        assert count(8, 0) == 0, "a dead node has no room"
        with pytest.raises(RunError, match=r"8 CPUs and 0 GPUs on one node.*10.0.0.1: 4 CPUs, 1 GPUs; 10.0.0.2"):
            cluster.wait_for_room(8, 0, lambda text: None, patience=0)
        said: list[str] = []
        timer = threading.Timer(0.1, lambda: nodes[-1].update(Alive=True))
        timer.start()
        began = time.monotonic()
        assert cluster.wait_for_room(8, 0, said.append, patience=60, every=0.02) == 8
        timer.join()
        assert time.monotonic() - began < 60 and len(said) == 1 and "waiting up to 60 s" in said[0]


def test_rays_client_is_refused_with_the_way_to_go() -> None:
    from search.records.errors import RunError
    from search.workers.cluster import start_ray

    with pytest.raises(RunError, match=r"does not run through Ray's client; .* --address auto, or submit it"):
        start_ray(Resources(address="ray://127.0.0.1:10001"))
