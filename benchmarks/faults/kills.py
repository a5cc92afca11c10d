"""Kill parts of a running sweep at random moments, and compare it with one that was left alone.

Run ``python -m benchmarks.faults.kills WHAT --kills 20``. What is killed with SIGKILL:

- ``driver``: of an inline sweep, which is resumed.
- ``drivers``: one of two that run one study together over PostgreSQL; it is started again.
- ``worker``: the process of a local Ray that runs the trial.
- ``raylet``: of one of two nodes that run trials, beside a head without CPUs; another node takes its place. Needs root,
  for a network namespace of its own.
- ``mlflow``, ``postgresql``: the server, with all its processes; it is started again after some seconds. PostgreSQL is
  Debian's package, run as its user where this is root, in a temporary folder.

Where a driver ends, its study is resumed.

Prints a Markdown table: finished trials that were lost or begun again, trials that are in Optuna's storage twice or not
at an end, and whether points, states and metrics (all but times) equal those of the undisturbed sweep.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import optuna

from search.records.outcome import Outcome
from search.store.studies import StudyFiles

COMMON = [
    *("--seed", "5", "--methods", "magnitude,random", "--set", "finetune.epochs=2", "--set", "dense.epochs=2"),
    *("--set", "exports=[]", "--quiet"),
]
INLINE = ["--executor", "inline"]
MANY_RETRIES = ["--retries", "30"]
"""Chance may hit one trial more often than a user's cluster would."""

POSTGRESQL = Path("/usr/lib/postgresql")
HEAD = "127.0.0.1:6399"


@dataclass
class Victim:
    """What is killed, and how the sweep around it is run.

    Attributes:
        strike: Kills it once; tells whether there was something to kill.
        trials: How many trials a sweep has.
        words: Options of ``sweep`` and of ``resume``.
        waits: Seconds between two kills, least and most.
        url: Optuna's storage, where that is not the directory's.
        look: Called before each kill, once the study is there.
        check: Looks at what else must be whole in the end; counts of what is not, by name.
    """

    strike: Callable[[subprocess.Popen[bytes]], bool]
    trials: int = 8
    words: list[str] = field(default_factory=list)
    waits: tuple[float, float] = (3.0, 25.0)
    url: str | None = None
    look: Callable[[Path, str], None] = lambda store, name: None
    check: Callable[[Path, str], dict[str, int]] = lambda store, name: {}


def command(directory: Path, *words: str) -> list[str]:
    """Write a command line of the product."""
    return [sys.executable, "-m", "paretoprune", *words, "--directory", str(directory)]


def numbers(outcomes: list[Outcome]) -> list[tuple[object, ...]]:
    """Return what must be equal whatever happened: all but times."""
    return [
        (o.number, o.method, o.point, o.seed, o.state, {k: v for k, v in o.metrics.items() if k != "seconds"})
        for o in outcomes
    ]


def kill_sweeps(victim: Victim, kills: int, seed: int) -> dict[str, int]:
    """Kill until that has happened often enough.

    Args:
        victim: What is killed.
        kills: How often.
        seed: Decides the moments.

    Returns:
        Counts by what was counted.
    """
    draw = random.Random(seed)
    found = dict.fromkeys(("kills", "sweeps", "resumed", "lost", "doubled", "stuck", "different"), 0)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        store = Path(scratch)
        settings = ["--trials", str(victim.trials), *COMMON]
        subprocess.run(command(store, "sweep", "--name", "whole", *settings, *INLINE), check=True, capture_output=True)
        whole = numbers(StudyFiles.open(store, "whole").outcomes())
        while found["kills"] < kills:
            name = f"killed{found['sweeps']}"
            found["sweeps"] += 1
            _disturb(victim, store, name, kills, draw, found)
            found["different"] += numbers(StudyFiles.open(store, name).outcomes()) != whole
            trials = optuna.load_study(study_name=name, storage=victim.url or f"sqlite:///{store}/optuna.db").trials
            found["stuck"] += sum(not trial.state.is_finished() for trial in trials)
            found["doubled"] += len(trials) - len(whole)
            for what, count in victim.check(store, name).items():
                found[what] = found.get(what, 0) + count
            print(f"{found}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    return found


def _disturb(victim: Victim, store: Path, name: str, kills: int, draw: random.Random, found: dict[str, int]) -> None:
    """Run one sweep to its end, killing on the way."""
    settings = ["--trials", str(victim.trials), *COMMON, *victim.words]
    words, kept = ["sweep", "--name", name, *settings], dict[int, int]()
    while True:
        driver = subprocess.Popen(command(store, *words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while driver.poll() is None:
            try:
                driver.wait(draw.uniform(*victim.waits) if found["kills"] < kills else None)
            except subprocess.TimeoutExpired:
                found["kills"] += victim.strike(driver)
            if (store / "studies" / name / "study.json").exists():
                victim.look(store, name)
                words = ["resume", name, "--quiet", *victim.words]
                files = StudyFiles(store, name)
                stamps = {n: (files.folder(n) / "outcome.json").stat().st_mtime_ns for n in files.numbers()}
                found["lost"] += sum(stamps.get(number) != stamp for number, stamp in kept.items())
                kept = stamps
        if driver.returncode == 0:
            return
        found["resumed"] += 1
        if found["resumed"] > 2 * kills + 2:
            raise RuntimeError(f"{' '.join(words)} ends with {driver.returncode} again and again")


def kill_driver(driver: subprocess.Popen[bytes]) -> bool:
    """Kill the driver itself."""
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    return True


def kill_worker(driver: subprocess.Popen[bytes]) -> bool:
    """Kill the process of Ray that runs a trial of a driver."""
    for pid, parents, line in _processes():
        if driver.pid in parents and line.startswith("ray::ImplicitFunc"):
            return _kill(pid)
    return False


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _processes() -> list[tuple[int, set[int], str]]:
    """List all processes: id, ids of all ancestors, command line."""
    parent, lines = dict[int, int](), dict[int, str]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = []
    for pid, line in lines.items():
        above, at = set[int](), pid
        while (at := parent.get(at, 0)) and at not in above:
            above.add(at)
        found.append((pid, above, line))
    return found


@contextmanager
def kill_one_of_two_nodes(draw: random.Random) -> Generator[Victim]:
    """Start a head without CPUs and two nodes on this machine; a node that is killed is replaced."""
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_ADDRESS": ""}

    def start(*words: str) -> None:
        subprocess.run(["ray", "start", *words], check=True, env=environment, capture_output=True)

    def raylets() -> list[int]:
        return [pid for pid, _, line in _processes() if "/raylet/raylet " in line and "CPU,1" in line]

    def strike(driver: subprocess.Popen[bytes]) -> bool:
        running = raylets()
        hit = bool(running) and _kill(draw.choice(running))
        time.sleep(1)
        if len(raylets()) < 2:
            start(f"--address={HEAD}", "--num-cpus=1")
        return hit

    port = HEAD.rpartition(":")[2]
    start("--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")
    try:
        for _ in range(2):
            start(f"--address={HEAD}", "--num-cpus=1")
        os.environ["RAY_AUTH_MODE"] = "token"
        yield Victim(strike, 30, ["--address", HEAD, "--max-concurrent", "2", *MANY_RETRIES], (6, 20))
    finally:
        for pid, _, line in _processes():
            if "/ray/" in line or line.startswith("ray::"):
                _kill(pid)


@contextmanager
def mlflow_server(draw: random.Random) -> Generator[Victim]:
    """Start MLflow's server over a database of its own; one that is killed is started again."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, ExitStack() as stack:
        port = _find_free_port()
        line = ["mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
        line += ["--backend-store-uri", f"sqlite:///{scratch}/mlflow.db", "--artifacts-destination", f"{scratch}/a"]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        address = f"http://127.0.0.1:{port}"
        server = _Server(line, port, environment)
        stack.callback(server.kill)

        def strike(driver: subprocess.Popen[bytes]) -> bool:
            server.kill()
            time.sleep(draw.uniform(0, 8))
            server.start()
            return True

        def check(store: Path, name: str) -> dict[str, int]:
            """Count trials and parents that MLflow lacks after ``mirror``."""
            import mlflow

            subprocess.run(command(store, "mirror", name), check=True, capture_output=True)
            client = mlflow.MlflowClient(address)
            experiment = client.get_experiment_by_name("paretoprune")
            assert experiment is not None
            runs = client.search_runs([experiment.experiment_id], f"tags.sweep = '{name}'", max_results=1000)
            trials = [int(run.data.tags["trial"]) for run in runs if run.data.tags["kind"] == "trial"]
            expected = StudyFiles.open(store, name).numbers()
            return {
                "not mirrored": len(set(expected) - set(trials)),
                "mirrored twice": len(trials) - len(set(trials)),
                "open in MLflow": sum(run.info.status == "RUNNING" for run in runs),
            }

        yield Victim(strike, 24, ["--tracking-uri", address, *INLINE], (2, 15), check=check)


@contextmanager
def postgresql_server() -> Generator[tuple[_Server, str]]:
    """Start PostgreSQL as a user without rights; give it and the address of its database."""
    programs = sorted(POSTGRESQL.glob("*/bin"))[-1]
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        owner = "postgres" if os.geteuid() == 0 else None
        if owner is not None:
            shutil.chown(scratch, owner, owner)
        port, data = _find_free_port(), f"{scratch}/data"
        secret = Path(scratch, "secret")
        secret.write_text("p@ss/w?rd")
        made = [f"{programs}/initdb", "-D", data, "-U", "anna", "-A", "scram-sha-256", "--pwfile", str(secret)]
        subprocess.run(made, check=True, capture_output=True, user=owner, cwd=scratch)
        line = [f"{programs}/postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", scratch]
        ready = (f"{programs}/pg_isready", "-h", "127.0.0.1", "-p", str(port))
        server = _Server(line, port, dict(os.environ), owner, scratch, ready)
        try:
            yield server, f"postgresql+psycopg://anna:p%40ss%2Fw%3Frd@127.0.0.1:{port}/postgres"
        finally:
            server.kill()


@contextmanager
def kill_database(draw: random.Random) -> Generator[Victim]:
    """Kill PostgreSQL, and start it again."""
    with postgresql_server() as (server, url):

        def strike(driver: subprocess.Popen[bytes]) -> bool:
            server.kill()
            time.sleep(draw.uniform(0, 8))
            server.start()
            return True

        yield Victim(strike, 24, ["--study-storage", url, *INLINE], (2, 15), url)


@contextmanager
def kill_one_of_two_drivers(draw: random.Random) -> Generator[Victim]:
    """Kill one of two drivers of a study."""
    with postgresql_server() as (_, url):
        words = ["--study-storage", url, *INLINE]
        second: list[subprocess.Popen[bytes]] = []

        def look(store: Path, name: str) -> None:
            """Start the second driver, again after it was killed."""
            if not second or second[0].poll() not in (None, 0):
                line = command(store, "resume", name, "--quiet", *words)
                second[:] = [subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]

        def strike(driver: subprocess.Popen[bytes]) -> bool:
            hit = draw.choice([driver, *second])
            if hit.poll() is not None:
                return False
            hit.kill()
            hit.wait()
            return True

        def check(store: Path, name: str) -> dict[str, int]:
            """Wait for the second driver."""
            code = second.pop().wait(120) if second else 0
            return {"second driver not 0": int(code not in (0, -signal.SIGKILL))}

        yield Victim(strike, 80, words, (5, 16), url, look, check)


class _Server:
    """A server in a session of its own."""

    def __init__(
        self,
        line: list[str],
        port: int,
        environment: dict[str, str],
        user: str | None = None,
        cwd: str | None = None,
        ready: tuple[str, ...] = ("true",),
    ) -> None:
        self._line, self._port, self._environment, self._user, self._cwd = line, port, environment, user, cwd
        self._ready = ready
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        until = time.monotonic() + 120
        while True:
            self._process = subprocess.Popen(
                self._line,
                env=self._environment,
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                user=self._user,
                cwd=self._cwd,
            )
            while self._process.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                    if subprocess.run(self._ready, stdout=subprocess.DEVNULL).returncode == 0:
                        return
                except OSError:
                    pass
                time.sleep(0.2)
            if time.monotonic() > until:  # processes of the last one may hold the place for a moment
                raise RuntimeError(f"{self._line[0]} does not start")
            time.sleep(0.5)

    def kill(self) -> None:
        """Kill it with all its processes."""
        for pid, above, _ in _processes():
            if self._process.pid in above:
                _kill(pid)
        _kill(self._process.pid)
        self._process.wait()


def _find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def make_simple(victim: Victim) -> Generator[Victim]:
    """Give a victim that needs nothing around it."""
    yield victim


def choose(what: str, draw: random.Random) -> AbstractContextManager[Victim]:
    """Make ready what shall be killed."""
    match what:
        case "driver":
            return make_simple(Victim(kill_driver, 8, INLINE))
        case "worker":
            return make_simple(Victim(kill_worker, 40, ["--max-concurrent", "1", *MANY_RETRIES], (4, 14)))
        case "raylet":
            return kill_one_of_two_nodes(draw)
        case "mlflow":
            return mlflow_server(draw)
        case "drivers":
            return kill_one_of_two_drivers(draw)
    return kill_database(draw)


def main() -> None:
    """Parse the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    choices = ("driver", "drivers", "worker", "raylet", "mlflow", "postgresql")
    parser.add_argument("what", nargs="?", default="driver", choices=choices)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.what == "raylet" and "PARETOPRUNE_NAMESPACE" not in os.environ:
        # Ray's nodes listen on the address of their machine: here there is none but loopback.
        again = subprocess.list2cmdline([sys.executable, "-m", "benchmarks.faults.kills", *sys.argv[1:]])
        inner = f"ip link set lo up && exec {again}"
        line = ["unshare", "-n", "-p", "-f", "--mount-proc", "bash", "-c", inner]
        raise SystemExit(subprocess.run(line, env=os.environ | {"PARETOPRUNE_NAMESPACE": "1"}).returncode)
    began = time.perf_counter()
    with choose(options.what, random.Random(options.seed + 1)) as victim:
        found = kill_sweeps(victim, options.kills, options.seed)
    print(f"| killed | {' | '.join(found)} | minutes |\n|{'---|' * (len(found) + 2)}")
    numbers_ = " | ".join(map(str, found.values()))
    print(f"| {options.what} | {numbers_} | {(time.perf_counter() - began) / 60:.1f} |")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
