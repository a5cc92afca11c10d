"""Where SQLite can be kept."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from sqlalchemy.pool import NullPool

from search.store.databases import network_file_system, sqlite_file, sqlite_url
from search.tracking.tracker import Tracker

MOUNTS = r"""/dev/vda / ext4 rw 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
/dev/vdb /home/fast xfs rw 0 0
//nas/our\040runs /mnt/our\040runs cifs rw 0 0
anna@far: /mnt/far fuse.sshfs rw 0 0
overlay /mnt/container fuse.fuse-overlayfs rw 0 0
/dev/vdc /mnt/over ext4 rw 0 0
server:/over /mnt/over nfs rw 0 0
"""


def test_the_file_system_of_a_folder_is_that_of_its_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    found = {
        folder: network_file_system(Path(folder), mounts)
        for folder in ("/root/x", "/home/anna/runs", "/home/fast/runs", "/homely", "/mnt/our runs/a", "/mnt/far")
    }
    assert found == {
        "/root/x": None,
        "/home/anna/runs": "nfs4 (/home)",
        "/home/fast/runs": None,
        "/homely": None,
        "/mnt/our runs/a": "cifs (/mnt/our runs)",
        "/mnt/far": "fuse.sshfs (/mnt/far)",
    }
    assert network_file_system(Path("/mnt/container/x"), mounts) is None
    assert network_file_system(Path("/mnt/over"), mounts) == "nfs (/mnt/over)", "the later mount hides the earlier"
    assert network_file_system(Path("/home"), tmp_path / "no table") is None


@pytest.mark.parametrize("name", ["plain", "50%20 off", "100%", "why? me", "a#b", "über", "%zz"])
def test_a_database_is_made_where_its_path_says(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    path = tmp_path / name / "optuna.db"
    url = sqlite_url(path)
    optuna.create_study(storage=optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": NullPool}))
    assert path.exists() and sqlite_file(url) == str(path)
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_mlflow_opens_its_database_in_a_folder_with_a_percent_sign(tmp_path: Path) -> None:
    directory = tmp_path / "50%20 off"
    Tracker.open(directory).close()
    assert (directory / "mlflow.db").stat().st_size > 0 and [each.name for each in tmp_path.iterdir()] == ["50%20 off"]
