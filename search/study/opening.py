"""Opening Optuna's storage: a file of SQLite, or a database on a server that several drivers may share."""

from __future__ import annotations

import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from search.records.errors import RunError
from search.records.text import remove_credentials
from search.store.databases import lock_database, network_file_system, sqlite_file
from spaces import InputError

if TYPE_CHECKING:
    from sqlalchemy import Connection

SERVERS = ("postgresql+psycopg://",)
"""Beginnings of the addresses of databases that several drivers may share."""

BEAT = 10
"""Seconds between two signs of life of a driver for the trials that it runs."""

GRACE = 60
"""Seconds without such a sign after which a driver counts as dead, and its trials are free."""

OPENED_WITHIN = 20.0
"""Seconds within which a server that is being started must answer when a storage is opened."""

STARTING = ("refused", "starting up", "shutting down", "recovery", "closed the connection", "terminating connection")
"""What is said of a server that may be there in a moment, unlike one that knows no such user."""


def is_shared(url: str) -> bool:
    """Say whether several drivers may use a storage at once.

    Args:
        url: Optuna storage URL.

    Returns:
        Whether it is a database on a server.

    Example:
        >>> is_shared("postgresql+psycopg://anna@db/runs"), is_shared("sqlite:////runs/optuna.db")
        (True, False)
    """
    return url.startswith(SERVERS)


def database_file(url: str) -> Path | None:
    """Name the file of an SQLite storage.

    Args:
        url: Optuna storage URL.

    Returns:
        The file; ``None`` for a database on a server.
    """
    return Path(sqlite_file(url)) if url.startswith("sqlite:///") else None


def open_storage(url: str, often: bool = False) -> optuna.storages.RDBStorage:
    """Open a storage: SQLite with patience for a reader that holds it, a server with patience for one that starts.

    Args:
        url: Optuna storage URL.
        often: Whether connections to a server are kept for the next question.

    Returns:
        The storage.

    Raises:
        InputError: If SQLite's file would lie on a network file system.
    """
    # Optuna reports each trial, and each parameter that a sampler draws alone; our listeners do the former.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = database_file(url)
    if path is None:
        return _open_server(url, often)
    if (system := network_file_system(path.parent)) is not None:
        raise InputError(
            f"{path.parent} is on {system}, over which SQLite's locks cannot be trusted; give the study another "
            "storage with --study-storage: postgresql+psycopg://USER@HOST/DATABASE, or sqlite:////PATH on a local disk"
        )
    with lock_database(path):  # a new database gets its tables from one process
        return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})


def import_storages() -> None:
    """Import what storages need, which Optuna does only when one is opened; a thread can do so while others compute."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage("sqlite://")
    storage.remove_session()
    storage.engine.dispose()


def _open_server(url: str, often: bool) -> optuna.storages.RDBStorage:
    """Open a storage on a server; its tables are made by one process."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    public = remove_credentials(url)
    # A machine that vanishes says nothing: within about a minute the connection counts as lost.
    patience = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
    until = time.monotonic() + OPENED_WITHIN
    while True:
        try:
            engine = create_engine(url, connect_args=patience, poolclass=NullPool)
            with experimental(), engine.connect() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(0)"))
                kept = {"pool_pre_ping": True} if often else {"poolclass": NullPool}
                return optuna.storages.RDBStorage(
                    url,
                    engine_kwargs={"connect_args": patience, **kept},
                    heartbeat_interval=BEAT,
                    grace_period=GRACE,
                )
        except ImportError as error:
            raise InputError(
                f"the study's storage {public} needs psycopg, which is not here: pip install 'psycopg[binary]>=3.2'"
            ) from error
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            reason = reason_away(error) or (str(error).strip().splitlines() or [type(error).__name__])[0]
            if any(words in reason for words in STARTING) and time.monotonic() < until:
                time.sleep(0.5)
                continue
            raise RunError(
                f"the study's storage {public} cannot be used ({remove_credentials(reason)}); is the server up, and "
                "are user and password right? They are never stored: give them in --study-storage each time, or as "
                "PGUSER and PGPASSWORD, or in ~/.pgpass"
            ) from error


def reason_away(error: BaseException) -> str | None:
    """Say why a database on a server cannot be reached.

    Args:
        error: What was raised.

    Returns:
        A line without secrets; ``None`` if that is not what went wrong.
    """
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DBAPIError) and (
            cause.connection_invalidated or isinstance(cause, OperationalError | InterfaceError)
        ):
            lines = str(cause.orig).strip().splitlines() or [type(cause.orig).__name__]
            return remove_credentials(lines[0])
        cause = cause.__cause__ or cause.__context__
    return None


def close_connection(connection: Connection) -> None:
    """Close a connection, and with it its lock; the server may have closed it already.

    Args:
        connection: The connection.
    """
    from sqlalchemy.exc import SQLAlchemyError

    with suppress(SQLAlchemyError):
        connection.close()


@contextmanager
def experimental() -> Generator[None]:
    """Use what Optuna calls experimental (metric names, the Gaussian-process sampler) without its warnings.

    Yields:
        Nothing; runs the block.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
