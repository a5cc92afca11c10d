"""Ray itself: started on this machine, or found where it runs. With ``ray_workers`` the only import of ray."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Before ray is imported: no output of its own, no loggers, interrupts as usual, nothing sent anywhere.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")  # it takes SIGTERM while Ray starts and stops

import ray

from search.records.errors import RunError
from search.records.paths import resolve_path
from search.study.config import Resources
from spaces import InputError
from spaces.errors import shorten_error

PATIENCE = 60.0
"""Seconds within which a cluster must answer, and have room for a trial."""

SOCKET_PATH = 107 - len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.1")
"""Longest temporary directory under which Ray's sockets get names that the system allows."""

PACKAGES = ("paretoprune", "search", "methods", "spaces")
"""What is sent to nodes where this project is not installed."""

CLIENT = "ray://"


def cluster_address(resources: Resources) -> str | None:
    """Say which cluster is meant.

    Args:
        resources: Where trials run.

    Returns:
        What was configured, else ``RAY_ADDRESS``; ``None`` where Ray is to be started on this machine.
    """
    address = resources.address or os.environ.get("RAY_ADDRESS") or None
    return None if address == "local" else address


def start_ray(resources: Resources, ahead: str | None = None) -> None:
    """Connect to the cluster that was named; only where none was, start one here.

    A cluster that cannot be reached is a ``RunError``, an address that is none an ``InputError``.

    Args:
        resources: Where trials run.
        ahead: A module that the workers of a Ray that is started here import before they have work.
    """
    address = cluster_address(resources)
    with _own_handlers():
        if address is not None:
            _connect(address, resources.working_dir)
            return
        cpus = max(os.cpu_count() or 1, resources.cpus_per_trial)
        if resources.max_concurrent is not None:
            cpus = min(cpus, resources.max_concurrent * resources.cpus_per_trial)
        # Ray starts a worker for each CPU: where not each will have a trial, most would import in vain.
        with _loopback_alone(), preloaded(ahead if resources.cpus_per_trial == 1 else None):
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=_short_directory(),
            )


@contextmanager
def preloaded(module: str | None) -> Generator[None]:
    """Have the workers that Ray starts with itself, one for each CPU, import a module before they have work.

    Args:
        module: Its name; ``None`` for none.

    Yields:
        Nothing; the environment of this process, which those of Ray get, asks for it meanwhile.
    """
    if module is None:
        yield
        return
    name = "RAY_preload_python_modules"
    before = os.environ.get(name)
    os.environ[name] = module if before is None else f"{before},{module}"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def is_running() -> bool:
    """Look whether this process is connected to a Ray.

    Returns:
        Whether it is.
    """
    return bool(ray.is_initialized())


def stop_ray() -> None:
    """Stop Ray, or leave the cluster; a second Ctrl-C in the second that this takes would leave processes behind."""
    main = threading.current_thread() is threading.main_thread()
    with _own_handlers():
        if main:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
        ray.shutdown()


def count_room(cpus: int, gpus: float) -> int:
    """Count the trials that the nodes which are up can run at a time.

    Args:
        cpus: CPUs of each trial.
        gpus: GPUs of each trial, may be a fraction.

    Returns:
        The count; a trial never spans two nodes.
    """
    room = 0
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if not node["Alive"]:
            continue
        offered = node["Resources"]
        fit = int(offered.get("CPU", 0) // cpus)
        if gpus:
            whole = int(offered.get("GPU", 0))  # a trial's share lies on one GPU, unless it takes several
            fit = min(fit, whole * int(1 / gpus + 1e-9) if gpus <= 1 else int(whole // gpus))
        room += fit
    return room


def wait_for_room(
    cpus: int, gpus: float, say: Callable[[str], None], patience: float = PATIENCE, every: float = 1.0
) -> int:
    """Wait until a trial fits on some node.

    Args:
        cpus: CPUs of each trial.
        gpus: GPUs of each trial.
        say: Hears that there is a wait.
        patience: Seconds to wait at most.
        every: Seconds between two looks.

    Returns:
        How many trials fit.

    Raises:
        RunError: If none does in time; it says what was asked for and what there is.
    """
    until = time.monotonic() + patience
    told = False
    while (room := count_room(cpus, gpus)) < 1:
        if time.monotonic() >= until:
            nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
            offered = "; ".join(
                f"{node['NodeManagerAddress']}: {node['Resources'].get('CPU', 0):g} CPUs, "
                f"{node['Resources'].get('GPU', 0):g} GPUs"
                for node in nodes
            )
            raise RunError(
                f"no trial fits: each asks for {cpus} CPUs and {gpus:g} GPUs on one node, Ray offers {offered}"
            )
        if not told and patience > every:
            say(f"no node has room for a trial ({cpus} CPUs, {gpus:g} GPUs); waiting up to {patience:g} s for one")
            told = True
        time.sleep(every)
    return room


def _connect(address: str, working_dir: str | None) -> None:
    """Connect to a running cluster, within a bounded time."""
    if address.startswith(CLIENT):  # Tune would move to the cluster, away from the schedule and its databases
        raise RunError(
            f"Ray at {address!r}: Ray Tune does not run through Ray's client; start the sweep on a node of the cluster "
            "with --address auto, or submit it: `ray job submit --address http://HEAD:8265 -- paretoprune sweep ... "
            "--address auto`"
        )
    if address != "auto" and not _answers(address):
        raise RunError(f"nothing answers at Ray's address {address!r}; is `ray start --head` running there?")
    os.environ.setdefault("RAY_gcs_server_request_timeout_seconds", str(int(PATIENCE)))
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if working_dir is not None:
        options["runtime_env"] = describe_code(working_dir)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        hint = ""
        if "auth" in str(error).lower() or os.environ.get("RAY_AUTH_MODE") is None:
            hint = "; if it asks for a token, set RAY_AUTH_MODE=token and copy ~/.ray/auth_token from its head node"
        raise RunError(f"Ray at {address!r} cannot be reached: {shorten_error(error)}{hint}") from error


def describe_code(working_dir: str) -> dict[str, Any]:
    """Describe the runtime environment of workers on nodes that have Ray and torch, but not this project.

    Args:
        working_dir: The folder with the user's modules.

    Returns:
        What Ray sends to each node.

    Raises:
        InputError: If there is no such folder.
    """
    folder = resolve_path(Path(working_dir))
    if not folder.is_dir():
        raise InputError(f"working_dir {working_dir!r} is not a folder; give the one that holds your modules")
    # Of the usual places of results and data sets, one that holds modules is no such place.
    held_back = [f"/{name}/" for name in ("mlruns", "data") if not any((folder / name).glob("*.py"))]
    ours = [str(Path(spec.origin).parent) for name in PACKAGES if (spec := find_spec(name)) and spec.origin]
    return {
        "working_dir": str(folder),
        "py_modules": ours,
        "excludes": [*held_back, "/.git/", "*.safetensors", "*.pt", "*.pt2", "*.onnx"],
    }


def _answers(address: str) -> bool:
    """Whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"Ray's address {address!r} is not allowed: give auto, or HOST:PORT such as 10.0.0.1:6379")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10):
            return True
    except (OSError, OverflowError):
        return False


@contextmanager
def _loopback_alone() -> Generator[None]:
    """Let a cluster that is started meanwhile listen on loopback alone: who reaches its ports can run code here.

    Where Ray supports clusters it takes the machine's outer address, even when it is given 127.0.0.1, and listens on
    all interfaces; where it does not, as on macOS and Windows, it stays on loopback. This is that switch.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _short_directory() -> str | None:
    """Choose where Ray keeps its sockets where the usual place has too long a name for them."""
    usual = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(usual) <= SOCKET_PATH:
        return None
    return tempfile.mkdtemp(prefix="pp-", dir="/tmp")


@contextmanager
def _own_handlers() -> Generator[None]:
    """Keep the process's signal handlers: Ray sets its own, which end the driver with a stack of C++."""
    main = threading.current_thread() is threading.main_thread()  # only there may a handler be set
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if main and handler is not None:
                signal.signal(number, handler)


def named_error(error: Exception) -> str:
    """Find what is to be told of an error that holds the traceback of another process.

    Args:
        error: What Ray raised.

    Returns:
        The last line that names an error, else the first line.
    """
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return next((line for line in reversed(lines) if "Error:" in line), lines[0])
