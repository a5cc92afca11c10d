"""MLflow's web page over the runs: started, waited for, opened at a prepared view.

Nothing here imports mlflow: the server is a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import IO
from urllib.parse import quote

from search.tracking.run_store import SERVERS, RunStore, experiment_name
from search.tracking.ui_views import APP, START, VIEW_TAG
from spaces import InputError

SERVER_SETTINGS = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 2 processes instead of 10
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONSAFEPATH": "1",  # the user's directory may hold a types.py or a queue.py
}
READY_SECONDS = 90.0  # 5 on an idle machine
END_SECONDS = 10.0


def serve(
    directory: Path,
    tracking_uri: str | None = None,
    host: str = "127.0.0.1",
    port: int = 5000,
    open_browser: bool = False,
    *,
    experiment: str | None = None,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Show the runs until Ctrl-C or SIGTERM.

    Where the runs are kept by a server already, only its address is announced. An :class:`~spaces.InputError`
    is raised when the store or the port cannot be used.

    Args:
        directory: The directory of the project's runs (``mlruns/``).
        tracking_uri: MLflow's address, as for :meth:`search.tracking.tracker.Tracker.open`.
        host: Address to listen on.
        port: Port to listen on.
        open_browser: Whether to open the page in the user's browser.
        experiment: Name of the experiment to open at, as for :meth:`search.tracking.tracker.Tracker.open`.
        announce: Called with the page's address as soon as it answers; prints it by default.
    """
    store = RunStore.resolve(directory, tracking_uri)
    name = experiment_name(experiment)
    if store.scheme in SERVERS:
        store.prepare()
        _show(ui_url(store.uri.rstrip("/"), name), open_browser, announce)
        return
    try:
        with _interrupt_on_sigterm(), run_server(store, host, port) as server:
            _show(ui_url(server.base, name, start=server.start), open_browser, announce)
            server.wait()
    except KeyboardInterrupt:  # the way to end it
        return


class Server:
    """A running MLflow server; made by :func:`run_server`.

    Attributes:
        base: Its address, without a slash at the end.
        process: Its main process, the leader of a process group.
        start: Path of the page to open first.
    """

    def __init__(self, base: str, process: subprocess.Popen[bytes], log: IO[bytes], start: str = "/") -> None:
        self.base = base
        self.start = start
        self.process = process
        self._log = log

    def wait(self) -> None:
        """Wait until the server ends by itself, which it should not.

        Raises:
            RuntimeError: When it did; its output is on stderr.
        """
        code = self.process.wait()
        self._show_log()
        raise RuntimeError(f"the MLflow server ended with code {code}; its output stands above")

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        """Wait until the server answers.

        Args:
            timeout: How long to wait at most, in seconds.

        Raises:
            RuntimeError: If it ended or did not answer in time; its output is on stderr.
        """
        deadline = time.monotonic() + timeout
        while not _is_healthy(self.base):
            code = self.process.poll()
            if code is not None or time.monotonic() > deadline:
                self._show_log()
                what = f"did not answer within {timeout:.0f} s" if code is None else f"ended with code {code}"
                raise RuntimeError(f"the MLflow server {what}; its output stands above")
            time.sleep(0.1)

    def end(self) -> None:
        """End all processes of the server."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def _show_log(self) -> None:
        self._log.seek(0)
        sys.stderr.write(self._log.read().decode(errors="replace"))


@contextmanager
def run_server(store: RunStore, host: str = "127.0.0.1", port: int = 5000) -> Generator[Server]:
    """Run a server over a local store or a database.

    Args:
        store: The store to show.
        host: Address to listen on.
        port: Port to listen on.

    Yields:
        The server, once it answers; it is ended on the way out.
    """
    store.prepare()
    _check_port(host, port)
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    # In the environment, since a database's address may hold a password and command lines are public.
    settings = {**os.environ, **SERVER_SETTINGS, "MLFLOW_BACKEND_STORE_URI": store.uri}
    own = _has_start_page()
    command += ["--app-name", APP] if own else []
    if store.artifacts is not None:
        command += ["--artifacts-destination", store.artifacts]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--uvicorn-opts", "--log-level warning"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=settings,
            start_new_session=True,
        )
        server = Server(f"http://{_name_host(host)}:{port}", process, log, START if own else "/")
        try:
            server.wait_ready()
            yield server
        finally:
            server.end()


def _has_start_page() -> bool:
    """Whether MLflow can find our application; not where only an older version of this package is installed."""
    return any(each.name == APP for each in entry_points(group="mlflow.app"))


def ui_url(base: str, experiment: str, view: str = "trials", start: str = "/") -> str:
    """Return the address of an experiment's prepared view.

    Args:
        base: Address of an MLflow server, without a slash at the end.
        experiment: Name of the experiment.
        view: Name of a prepared view, ``sweeps`` or ``trials``.
        start: Path of the page that goes on to it.

    Returns:
        The address; the server's first page where it does not (let us) see such an experiment.
    """
    query = f"{base}/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(experiment, safe='')}"
    try:
        with urllib.request.urlopen(query, timeout=READY_SECONDS) as answer:
            found = json.load(answer)["experiment"]
    except urllib.error.HTTPError as refusal:  # no such experiment yet, or a server that wants a password
        refusal.close()
        return f"{base}/"
    tags = {tag["key"] for tag in found.get("tags", [])}
    share = f"viewStateShareKey={view}&" if f"{VIEW_TAG}{view}" in tags else ""
    return f"{base}{start}#/experiments/{found['experiment_id']}/runs?{share}workflowType=machine_learning"


def _show(url: str, open_browser: bool, announce: Callable[[str], None] | None) -> None:
    if announce is None:
        print(url, flush=True)
    else:
        announce(url)
    if open_browser:
        webbrowser.open(url)


def _is_healthy(base: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base}/health", timeout=READY_SECONDS) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def _interrupt_on_sigterm() -> Generator[None]:
    """Let SIGTERM act like Ctrl-C, so that the server does not outlive this process."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_port(host: str, port: int) -> None:
    """Refuse a port that cannot be had; MLflow would start, and fail over and over in a worker."""
    if not 1 <= port <= 65535:
        raise InputError(f"port {port} does not exist; give one from 1024 to 65535")
    try:
        _bind(host, port)
    except socket.gaierror as error:
        raise InputError(f"the host {host!r} is not known here; give an address of this machine") from error
    except OSError as error:
        raise InputError(
            f"cannot listen on port {port} of {host} ({error.strerror}); try --port {_find_free_port(host, port)}"
        ) from error


def _find_free_port(host: str, taken: int) -> int:
    for port in range(max(taken, 5000) + 1, max(taken, 5000) + 20):
        try:
            return _bind(host, port)
        except (OSError, OverflowError):
            continue
    return _bind(host, 0)


def _bind(host: str, port: int) -> int:
    """Return the port after taking it for a moment; 0 asks for any."""
    family, kind, _, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
    with closing(socket.socket(family, kind)) as listener:
        # As servers do: a port whose last connections are still fading is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        return int(listener.getsockname()[1])


def _name_host(host: str) -> str:
    """Return the address to type for a host that is listened on."""
    if host in {"", "0.0.0.0", "::"}:
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
