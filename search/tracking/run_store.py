"""Where MLflow keeps the runs: which address is used, and whether it can be.

Nothing here imports mlflow, so that a wrong address is told at once. MLflow by itself would retry a store that
cannot be opened for a minute, and would put its files next to the ones it was pointed at.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import sqlite3
import tempfile
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, urlsplit, urlunsplit

from search.records.paths import resolve_path
from search.records.text import remove_credentials
from search.store.databases import is_sound, lock_database, network_file_system, set_aside, sqlite_file, sqlite_url
from spaces import InputError

DEFAULT_EXPERIMENT = "paretoprune"
PROBE_SECONDS = 5.0
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
SERVERS = ("http", "https")
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's database that hold places of files."""


@dataclass(frozen=True)
class RunStore:
    """The address of an MLflow store.

    Attributes:
        directory: The local directory of the project's runs (``mlruns/``), absolute.
        uri: MLflow's tracking URI.
        given: Whether the user chose ``uri``; otherwise it is the database in ``directory``.
    """

    directory: Path
    uri: str
    given: bool

    @classmethod
    def resolve(cls, directory: Path, tracking_uri: str | None) -> Self:
        """Decide which store is used: the argument, ``MLFLOW_TRACKING_URI``, or a database in the directory.

        Args:
            directory: The directory of the project's runs; it need not exist yet.
            tracking_uri: The address given by the user, if any.

        Returns:
            The store's address, not yet looked at.

        Raises:
            InputError: If the address names a directory (MLflow's old file store), or a database path that
                holds a question mark.
        """
        home = resolve_path(directory)  # one spelling, whatever way leads there
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            if "?" in str(home):
                raise InputError(
                    f"{home} holds a '?', where a database address ends; rename the directory or give an MLflow "
                    "address with --tracking-uri"
                )
            return cls(home, sqlite_url(home / "mlflow.db"), given=False)
        if urlsplit(uri).scheme in {"", "file"}:
            raise InputError(
                f"the tracking URI {uri!r} names a directory, and MLflow no longer keeps runs in plain files; give "
                f"a database such as {sqlite_url(home / 'mlflow.db')!r} or a server such as "
                "'http://localhost:5000'"
            )
        return cls(home, uri, given=True)

    @property
    def scheme(self) -> str:
        """The kind of store: ``sqlite``, ``postgresql``, ``http``, ..., without the name of a driver."""
        return urlsplit(self.uri).scheme.split("+")[0]

    @property
    def artifacts(self) -> str | None:
        """Where a new experiment keeps its files, as a URI; None where the server decides."""
        if self.scheme == "sqlite" or self.scheme in DATABASE_PORTS:
            return (self.directory / "artifacts").as_uri()
        return None

    @property
    def public(self) -> str:
        """The address without user name and password."""
        return remove_credentials(self.uri)

    def find_known_run(self, known: Mapping[str, str]) -> str | None:
        """Find the run that mirrors a study in this store.

        Args:
            known: Id of the run by :attr:`key`; earlier versions used the address.

        Returns:
            The id; ``None`` if the study was not sent here yet.
        """
        if self.given or self.key in known:
            return known.get(self.key)
        return next((run for address, run in known.items() if address.endswith("/mlflow.db")), None)

    @property
    def key(self) -> str:
        """What the store is known by in a study: the directory's own one wherever that lies now."""
        return self.public if self.given else "mlflow.db"

    def prepare(self) -> None:
        """Make sure that the store can be written to; create the directory of a local one."""
        self.require_directory()
        parts = urlsplit(self.uri)
        if self.scheme == "sqlite":
            self._check_database(Path(sqlite_file(self.uri)))
        elif self.scheme in SERVERS:
            self._check_server(parts)
        elif self.scheme in DATABASE_PORTS and parts.hostname:
            self._check_port(parts.hostname, parts.port or DATABASE_PORTS[self.scheme])

    def require_directory(self) -> None:
        """Make sure that the local directory can be written to; create it."""
        if self.artifacts is not None:
            _require_writable(self.directory)

    def remove_misread_folder(self) -> None:
        """Remove the empty folder that MLflow makes where an address with percents would lie if it were not decoded."""
        misread = Path(self.uri.partition("://")[2].removeprefix("/")).parent
        if self.scheme == "sqlite" and "%" in self.uri and misread != Path(sqlite_file(self.uri)).parent:
            with suppress(OSError):  # it is not there, or it is somebody's and has content
                misread.rmdir()

    def set_aside_damaged(self) -> Path | None:
        """Move the directory's own database out of the way if it is damaged.

        Returns:
            Where it is now; ``None`` if all is well, or the store is one that the user named.
        """
        path = Path(sqlite_file(self.uri))
        if self.given or self.scheme != "sqlite" or not path.exists():
            return None
        with lock_database(path):
            return None if is_sound(path) else set_aside(path)

    def repair_locations(self) -> None:
        """Write where runs keep their files, after the directory was moved or copied.

        MLflow stores that place with every experiment, run and model. Only the database in the directory itself is
        changed, and only places that were the ``artifacts`` of such a directory.
        """
        path, new = Path(sqlite_file(self.uri)), self.artifacts
        if self.given or self.scheme != "sqlite" or new is None or not path.exists():
            return
        with closing(sqlite3.connect(path, timeout=PROBE_SECONDS)) as connection, connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "experiments" not in tables:
                return
            places = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
            moved = [old for (old,) in places if old and re.fullmatch(r"(file://)?/.*/artifacts", old) and old != new]
            for old, (table, column) in itertools.product(moved, LOCATIONS):
                columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
                if column in columns:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )

    @contextmanager
    def wait_for_database(self) -> Generator[None]:
        """Wait until no other process opens a database file: MLflow fills a new one, which only one process can do.

        Yields:
            Nothing; runs the block.
        """
        if self.scheme != "sqlite":
            yield
            return
        import filelock

        with filelock.FileLock(f"{sqlite_file(self.uri)}.lock"):
            yield

    def _check_database(self, path: Path) -> None:
        """Take and give back the write lock; creates an empty file where there is none."""
        if not path.name or path.name == ":memory:":
            raise InputError(f"the tracking URI {self.uri!r} names no file; give 'sqlite:////absolute/path/mlflow.db'")
        if (system := network_file_system(path.parent)) is not None:
            raise InputError(
                f"{path.parent} is on {system}, over which SQLite's locks cannot be trusted; give MLflow a "
                "server, or a database on a local disk, with --tracking-uri"
            )
        try:
            with closing(sqlite3.connect(path, timeout=PROBE_SECONDS, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise InputError(
                f"cannot use {path} as MLflow's database ({error}); free that place, or give another one with "
                "--tracking-uri or MLFLOW_TRACKING_URI"
            ) from error

    def _check_server(self, parts: SplitResult) -> None:
        """Any answer over HTTP will do: not every server that speaks MLflow has a /health."""
        bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        try:
            with urllib.request.urlopen(f"{bare}/health", timeout=PROBE_SECONDS):
                return
        except urllib.error.HTTPError as answer:
            answer.close()
        except (OSError, ValueError) as error:
            raise self._make_unreachable_error(getattr(error, "reason", error)) from error

    def _check_port(self, host: str, port: int) -> None:
        try:
            socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
        except OSError as error:
            raise self._make_unreachable_error(error) from error

    def _make_unreachable_error(self, reason: object) -> InputError:
        return InputError(
            f"nothing answers at the tracking URI {self.public!r} ({reason}); start that server, correct the address, "
            f"or leave it out to use {self.directory / 'mlflow.db'}"
        )


def experiment_name(given: str | None) -> str:
    """Decide which experiment holds the sweeps: the argument, ``MLFLOW_EXPERIMENT_NAME``, or the project's name.

    Args:
        given: The name given by the user, if any.

    Returns:
        The name of the experiment.
    """
    return given or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT


def _require_writable(directory: Path) -> None:
    """Create the directory and write a file to it that vanishes at once."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise InputError(
            f"cannot write to {directory}, where runs are kept ({error.strerror or error}); free that place, or start "
            "in a directory that you may write to"
        ) from error
