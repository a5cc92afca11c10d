"""Where SQLite can be kept."""

from __future__ import annotations

from pathlib import Path

from search.store.databases import network_file_system

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
