"""Optuna's storage: which one may be used, and what is said of one that may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.records.errors import RunError
from search.study import opening
from search.study.config import places, validate_storage
from search.study.config_file import load_config
from search.study.stored_studies import list_storage_studies
from spaces import InputError


def test_sqlite_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    (tmp_path / "optuna.db").touch()
    monkeypatch.setattr(opening, "network_file_system", lambda folder: f"nfs4 ({folder})")
    with pytest.raises(InputError, match=r"is on nfs4 .*--study-storage: postgresql\+psycopg://.* or sqlite:////PATH"):
        list_storage_studies(url)


def test_a_server_that_is_away_is_said_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setattr(opening, "OPENED_WITHIN", 0.0)
    with pytest.raises(RunError, match="127.0.0.1:1/runs cannot be used") as refused:
        list_storage_studies("postgresql+psycopg://anna:p%40ss@127.0.0.1:1/runs?application_name=x")
    assert (
        "p%40ss" not in str(refused.value) and "p@ss" not in str(refused.value) and "PGPASSWORD" in str(refused.value)
    )


@pytest.mark.parametrize("url", ["mysql://anna:secret@db/runs", "optuna.db", "sqlite:///", "postgresql://", ""])
def test_other_storages_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="give postgresql") as refused:
        validate_storage(url)
    assert "secret" not in str(refused.value)


def test_a_storage_of_a_study_is_kept_without_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(None, study_storage="postgresql://anna:p%40s/s@db:5/runs?password=p")
    assert config.study_storage == "postgresql+psycopg://anna:p%40s%2Fs@db:5/runs?password=p"
    assert places(config)["study_storage"] == "postgresql+psycopg://db:5/runs"
    monkeypatch.chdir(tmp_path)
    assert load_config(None, study_storage="sqlite:///o.db").study_storage == f"sqlite:///{tmp_path}/o.db"
