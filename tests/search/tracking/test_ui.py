from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.records.outcome import DenseRow, Outcome
from search.tracking import ui
from search.tracking.run_store import RunStore
from search.tracking.tracker import Tracker
from search.tracking.ui import run_server, serve, ui_url
from search.tracking.ui_views import APP, START, describe_views
from spaces import InputError

EXPERIMENT = {"experiment_id": "7", "tags": [{"key": "mlflow.sharedViewState.trials", "value": "{}"}]}


class FakeMlflow(BaseHTTPRequestHandler):
    """Knows one experiment, ``a/b c``."""

    def do_GET(self) -> None:
        known = self.path == "/api/2.0/mlflow/experiments/get-by-name?experiment_name=a%2Fb%20c"
        self.send_response(200 if known or self.path == "/health" else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"experiment": EXPERIMENT}).encode() if known else b"")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


@pytest.fixture
def fake() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), FakeMlflow) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def find_free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


def test_page_opens_at_the_prepared_view(fake: str) -> None:
    page = f"{fake}/#/experiments/7/runs?"
    assert ui_url(fake, "a/b c") == f"{page}viewStateShareKey=trials&workflowType=machine_learning"
    assert ui_url(fake, "a/b c", "charts") == f"{page}workflowType=machine_learning"  # has no such view
    assert ui_url(fake, "unknown") == f"{fake}/"
    assert ui_url(fake, "a/b c", start=START).startswith(f"{fake}/paretoprune#/experiments/7/runs?")


def test_a_server_of_the_users_is_only_announced(fake: str, tmp_path: Path) -> None:
    urls: list[str] = []
    serve(tmp_path, f"{fake}/", experiment="a/b c", announce=urls.append)
    assert urls == [f"{fake}/#/experiments/7/runs?viewStateShareKey=trials&workflowType=machine_learning"]


def test_address_is_printed_by_default(fake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serve(tmp_path, fake)
    assert capsys.readouterr().out == f"{fake}/\n"


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        taken = listener.getsockname()[1]
        with pytest.raises(InputError, match=rf"cannot listen on port {taken} of 127\.0\.0\.1 \(.*\); try --port \d+"):
            serve(tmp_path, port=taken)


@pytest.mark.parametrize("port", [0, -1, 70000])
def test_a_port_that_does_not_exist(port: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"port {port} does not exist; give one from 1024 to 65535"):
        serve(tmp_path, port=port)


def test_a_host_that_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the host 'no\.such\.host\.invalid' is not known here"):
        serve(tmp_path, host="no.such.host.invalid")


def test_an_unusable_directory_is_told_before_a_server_starts(tmp_path: Path) -> None:
    (tmp_path / "mlruns").write_text("in the way")
    with pytest.raises(InputError, match="cannot write to"):
        serve(tmp_path / "mlruns", port=find_free_port())


def test_a_server_that_fails_shows_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A program that knows no module mlflow.
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'No module named mlflow' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    with pytest.raises(RuntimeError, match="ended with code 3; its output stands above"):
        serve(tmp_path, port=find_free_port())
    assert "No module named mlflow" in capsys.readouterr().err


def test_views_are_small_json_with_columns_and_charts() -> None:
    for tag, view in describe_views().items():
        assert tag.startswith("mlflow.sharedViewState.")
        assert len(json.dumps(view)) < 5000  # the limit of a tag is 20000
        assert {"metrics.`accuracy`", "metrics.`flops_share`", "params.`method`"} <= set(view["selectedColumns"])
        assert [chart["xaxis"]["key"] for chart in view["compareRunCharts"]] == ["flops_share", "params_share"]


def test_views_show_what_is_searched_for_within_1600_pixels() -> None:
    for view in describe_views("mean_iou", ("energy", "flops", "params", "latency")).values():
        wanted = {"metrics.`mean_iou`", "metrics.`test_mean_iou`", "metrics.`energy_share`"}
        assert wanted <= set(view["selectedColumns"])
        assert [chart["yaxis"]["key"] for chart in view["compareRunCharts"]] == ["mean_iou", "mean_iou"]
        assert sum(view["columnWidths"].values()) <= 1600


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one sweep of eight trials, one of them failed."""
    home = tmp_path_factory.mktemp("ui") / "mlruns"
    dense = DenseRow.from_metrics(accuracy=0.99, flops=1_000_000, params=80_000, seconds=12.0)
    tracker = Tracker.open(home, f"sqlite:///{home}/mlflow.db")
    tracker.start_sweep("digits-001", {"model": "digits"}, dense)
    for number in range(8):
        kept = (number + 1) / 10
        metrics = {"accuracy": 0.98 - 0.1 * (1 - kept) ** 3, "flops": 1e6 * kept, "params": 8e4 * kept, "seconds": 5.0}
        error = "RuntimeError: out of memory" if number == 3 else None
        method = ("increg", "magnitude")[number % 2]
        state = "failed" if error else "complete"
        given = {} if error else metrics
        tracker.log_trial(Outcome(number, method, {}, state, given, [], {}, {}, 0, error, 1e9, 5.0), dense)  # type: ignore[arg-type]
    tracker.finish_sweep({number: 0 for number in range(8) if number != 3}, {}, 0.8, "# Front of digits-001")
    assert tracker.close().warning is None
    return home


@pytest.mark.slow
def test_server_starts_answers_and_ends_with_sigterm(swept: Path) -> None:
    port = find_free_port()
    code = f"from pathlib import Path; from search.tracking.ui import serve; serve(Path({str(swept)!r}), port={port})"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            url = process.stdout.readline().strip()
            start = START if any(each.name == APP for each in entry_points(group="mlflow.app")) else "/"
            assert url.startswith(f"http://127.0.0.1:{port}{start}#/experiments/")
            assert url.endswith("/runs?viewStateShareKey=trials&workflowType=machine_learning")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as answer:
                assert answer.read() == b"OK"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert (process.stdout.read(), process.stderr.read()) == ("", "")
        finally:  # a server that is not as it should be must not keep the tests waiting
            process.terminate()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_page_opens_on_the_trials_below_the_front(swept: Path, tmp_path: Path) -> None:
    browser = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    store = RunStore.resolve(swept, None)
    with run_server(store, port=find_free_port()) as server, browser.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1700, "height": 1000})
        page.goto(ui_url(server.base, "paretoprune"))
        page.get_by_text("0000 90.71% 0.10x increg").wait_for(timeout=60_000)
        assert page.get_by_text("digits-001", exact=True).count() == 0, "the sweep is no row among its trials"
        text = page.inner_text("body")
        page.screenshot(path=tmp_path / "table.png")
        page.locator("label:has(input[value=CHART])").click()
        page.get_by_text("flops_share vs. accuracy").wait_for(timeout=60_000)
        page.screenshot(path=tmp_path / "chart.png")
        chromium.close()
    for expected in ("0003 failed magnitude", "accuracy", "flops_share", "params_share", "pareto_rank", "method"):
        assert expected in text
    assert "Front of digits-001" in text and "0.9071" in text


@pytest.mark.filterwarnings("ignore")  # importing MLflow's server warns of its own dependencies
def test_the_start_page_goes_on_to_model_training() -> None:
    from search.tracking.ui_app import SETTINGS, WithStartPage

    asked: list[str] = []
    sent: list[Any] = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {}

    application = WithStartPage(answer)
    for kind, path in (("http", "/"), ("http", START), ("http", "/paretoprune/x"), ("lifespan", START)):
        asyncio.run(application({"type": kind, "path": path}, receive, send))
    assert asked == ["/", "/paretoprune/x", START], "all else is MLflow's"
    page = sent[1]["body"].decode()
    assert sent[0]["status"] == 200 and len(sent) == 2
    assert 'setItem("mlflow.workflowType_v1", "\\"machine_learning\\"")' in page and len(SETTINGS) == 2
    assert "location.replace('/' + location.hash)" in page


def test_the_start_page_is_used_where_mlflow_can_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "entry_points", lambda group: [SimpleNamespace(name=APP)] if group == "mlflow.app" else [])
    assert ui._has_start_page()
    monkeypatch.setattr(ui, "entry_points", lambda group: [])
    assert not ui._has_start_page()
    declared = tomllib.loads((Path(ui.__file__).parents[2] / "pyproject.toml").read_text())["project"]["entry-points"]
    assert declared["mlflow.app"] == {APP: "search.tracking.ui_app:app"}
