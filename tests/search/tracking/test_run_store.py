from __future__ import annotations

import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from search.records.text import remove_credentials
from search.tracking.run_store import RunStore, experiment_name
from spaces import InputError


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


@pytest.fixture
def closed_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


class Stranger(BaseHTTPRequestHandler):
    """A server that knows nothing of MLflow: every GET is answered 501."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{stranger.server_port}"
        stranger.shutdown()


def test_argument_comes_before_environment_before_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert RunStore.resolve(tmp_path, None).uri == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment:5000")
    assert RunStore.resolve(tmp_path, None).uri == "http://environment:5000"
    assert RunStore.resolve(tmp_path, "http://argument:5000").uri == "http://argument:5000"


def test_experiment_name_argument_environment_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert experiment_name(None) == "paretoprune"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert experiment_name(None) == "mine"
    assert experiment_name("given") == "given"


def test_relative_directory_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = RunStore.resolve(Path("mlruns"), None)
    assert store.uri == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    assert store.artifacts == (tmp_path / "mlruns" / "artifacts").as_uri()


def test_artifacts_are_quoted_and_left_to_a_server(tmp_path: Path) -> None:
    assert str(RunStore.resolve(tmp_path / "a b#1", None).artifacts).endswith("/a%20b%231/artifacts")
    assert RunStore.resolve(tmp_path, "postgresql+psycopg2://host/db").artifacts == (tmp_path / "artifacts").as_uri()
    assert RunStore.resolve(tmp_path, "https://host").artifacts is None


@pytest.mark.parametrize("uri", ["file:mlruns", "file:///somewhere", "./mlruns", "/somewhere/mlruns"])
def test_old_file_store_is_refused_with_a_cure(uri: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"names a directory.*give a database such as 'sqlite:////.*mlflow\.db'"):
        RunStore.resolve(tmp_path, uri)


def test_question_mark_in_the_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds a '\\?'.*rename the directory"):
        RunStore.resolve(tmp_path / "why?", None)


def test_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "mlruns").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write to .*mlruns, where runs are kept \(File exists\); free that"):
        RunStore.resolve(tmp_path / "mlruns", None).prepare()


def test_file_above_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write to .*file/mlruns"):
        RunStore.resolve(tmp_path / "file" / "mlruns", None).prepare()


def test_directory_where_the_database_should_be(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(InputError, match=r"cannot use .*mlflow\.db as MLflow's database \(unable to open"):
        RunStore.resolve(tmp_path, None).prepare()


def test_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, and it is long enough to be noticed\n" * 40)
    with pytest.raises(InputError, match=r"mlflow\.db as MLflow's database \(file is not a database\)"):
        RunStore.resolve(tmp_path, None).prepare()


def test_database_that_another_program_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.tracking.run_store.PROBE_SECONDS", 0.05)
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match="database is locked"):
            RunStore.resolve(tmp_path, None).prepare()


def test_database_in_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no file"):
        RunStore.resolve(tmp_path, "sqlite:///:memory:").prepare()


def test_preparing_leaves_a_usable_directory(tmp_path: Path) -> None:
    store = RunStore.resolve(tmp_path / "a b" / "mlruns", None)
    store.prepare()
    store.prepare()
    assert [path.name for path in (tmp_path / "a b" / "mlruns").iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("scheme", ["http", "postgresql", "mysql+pymysql"])
def test_nobody_answers(scheme: str, closed_port: int, tmp_path: Path) -> None:
    uri = f"{scheme}://anna:secret@127.0.0.1:{closed_port}"
    with pytest.raises(InputError, match=r"nothing answers at .*refused.*leave it out to use .*mlflow\.db") as caught:
        RunStore.resolve(tmp_path, uri).prepare()
    assert "secret" not in str(caught.value)


def test_any_answer_is_a_server(server: str, tmp_path: Path) -> None:
    RunStore.resolve(tmp_path, server.replace("//", "//anna:secret@")).prepare()
    assert not list(tmp_path.iterdir())


def test_password_is_struck_out() -> None:
    assert remove_credentials("at mysql://a:b@h/d, not https://h/x") == "at mysql://h/d, not https://h/x"
