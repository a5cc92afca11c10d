from __future__ import annotations

from pathlib import Path

import pytest

from search.records.paths import resolve_file, resolve_path
from spaces import InputError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("written", "from_top"),
    [
        ("~/runs", "home/runs"),
        ("~", "home"),
        ("runs", "here/runs"),
        ("../runs", "runs"),
        ("./a/../runs/", "here/runs"),
        ("100% of it, why?", "here/100% of it, why?"),
    ],
)
def test_every_spelling_leads_to_one_path(written: str, from_top: str, tmp_path: Path) -> None:
    assert resolve_path(written) == resolve_path(Path(written)) == tmp_path / from_top
    assert resolve_file(written) == tmp_path / from_top
    assert resolve_path(resolve_path(written)) == tmp_path / from_top


def test_links_are_followed_but_a_file_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "disk" / "blob").touch()
    Path("link").symlink_to(tmp_path / "disk" / "deep")
    Path("model.safetensors").symlink_to(tmp_path / "disk" / "blob")
    assert resolve_path("link/../runs") == tmp_path / "disk" / "runs"  # as the shell's `cd -P` goes
    assert resolve_file("model.safetensors") == Path.cwd() / "model.safetensors"
    assert resolve_file("link/../x.pt") == tmp_path / "disk" / "x.pt"


def test_relative_paths_start_at_the_base_and_others_do_not(tmp_path: Path, home: Path) -> None:
    assert resolve_path("runs", tmp_path / "etc") == tmp_path / "etc" / "runs"
    assert resolve_path("~/runs", tmp_path / "etc") == home / "runs"
    assert resolve_path("/runs", tmp_path / "etc") == Path("/runs")


@pytest.mark.parametrize(
    ("written", "said"), [("~no-such-user-here/x", "user who is not known here.*in full"), ("a\0b", "zero byte")]
)
def test_what_is_no_path_is_explained(written: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        resolve_path(written)
