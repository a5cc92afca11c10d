"""Exports of a study: every format counts in a clean process, also for code of the user's that is not there."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from methods.network.cost import count
from paretoprune import Sweep, rebuild
from search.artefacts.card import card_page
from search.artefacts.export import export_front, export_member, export_members
from search.commands.cli import app
from search.store.files import write_json
from search.store.quantised import read_quantised
from search.store.studies import StudyFiles
from spaces import InputError
from tests.search.cases import make_quick_config

OWN = """
import torch
from torch import nn

class Bessel(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        return self.head(self.features(torch.special.i1e(x)).mean((2, 3)))

def plain(num_classes):
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, num_classes))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Studies ``built`` (a network of ours) and ``bessel`` (the user's own, which ONNX cannot hold)."""
    home = tmp_path_factory.mktemp("exports")
    (home / "exports_own_net.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        Sweep(make_quick_config(home / "runs", name="built", trials=2)).run()
        Sweep(make_quick_config(home / "runs", name="bessel", model="exports_own_net:Bessel", trials=1)).run()
        yield home / "runs"
    sys.modules.pop("exports_own_net", None)


def is_same(one: nn.Module, other: nn.Module) -> bool:
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.equal(one(x), other(x))


@pytest.fixture(scope="module")
def exported(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The knee in every format: its folder, and what was returned of it; tests only read it."""
    files, folder = StudyFiles.open(store, "built"), tmp_path_factory.mktemp("exported") / "d"
    return folder, export_member(files, files.front().knee().trial, folder)


def test_every_format_counts_and_the_card_is_true(store: Path, exported: tuple[Path, dict[str, Any]]) -> None:
    member = StudyFiles.open(store, "built").front().knee()
    folder, card = exported
    assert sorted(path.name for path in folder.iterdir()) == [
        "architecture.json",
        "card.json",
        "card.md",
        "model.onnx",
        "model.pt2",
        "weights.safetensors",
    ]
    assert card == json.loads((folder / "card.json").read_text())
    for name, told in card["formats"].items():
        assert told["verified"] and told["largest_difference"] <= 1e-4 and told["inputs"] == 64, name
        content = (folder / told["file"]).read_bytes()
        assert card["files"][told["file"]] == {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    model = rebuild(folder)
    assert is_same(model, member.model())
    assert card["flops"] == count(model, torch.zeros(1, 1, 8, 8)).flops == member.flops
    page = (folder / "card.md").read_text()
    assert "| accuracy on validation |" in page and "torch.export.load" in page and "`conv1`" in page
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), contextlib.chdir(folder):
        for code in re.findall(r"```python\n(import (?:torch|onnxruntime)\n.*?)```", page, re.DOTALL):
            said: dict[str, Any] = {"inputs": x.numpy() if "onnxruntime" in code else x}
            exec(code, said)  # as the card says it
            found = said["outputs"] if "onnxruntime" not in code else torch.from_numpy(said["outputs"][0])
            torch.testing.assert_close(found, model(x), rtol=0, atol=1e-4)


def test_the_card_calls_networks_of_several_inputs_as_they_are_called(exported: tuple[Path, dict[str, Any]]) -> None:
    card = copy.deepcopy(exported[1])
    card["network"]["example_shape"] = {"image": [1, 1, 8, 8], "age": [1, 2]}
    named = card_page(card)
    assert "outputs = model(image=image, age=age)" in named and '{"image": image, "age": age}' in named
    card["network"]["example_shape"] = [[1, 1, 8, 8], [1, 2]]
    assert "outputs = model(input_0, input_1)" in card_page(card)


@pytest.mark.slow
def test_a_network_that_onnx_cannot_hold_keeps_its_other_formats(store: Path, tmp_path: Path) -> None:
    arguments = ["export", "bessel", "--trial", "0", "--to", str(tmp_path / "d"), "--directory", str(store)]
    done = CliRunner().invoke(app, arguments, prog_name="paretoprune")
    assert done.exit_code == 1
    assert "trial 0 has no onnx that counts: torch.onnx: operation prims.bessel_i1e: " in done.stderr
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == [
        "architecture.json",
        "card.json",
        "card.md",
        "model.pt2",
        "weights.safetensors",
    ]
    assert "**does not count**: torch.onnx: operation prims.bessel_i1e" in (tmp_path / "d" / "card.md").read_text()


def test_eight_bits_are_a_network_of_their_own_accuracy(store: Path, tmp_path: Path) -> None:
    files = StudyFiles.open(store, "built")
    arguments = ["export", "built", "--trial", "0", "--to", str(tmp_path / "d"), "--format", "onnx", "--int8", "--json"]
    done = CliRunner().invoke(app, [*arguments, "--directory", str(store)], prog_name="paretoprune")
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "d" / "card.json").read_text())["formats"]["int8"]
    whole, small = ((tmp_path / "d" / name).stat().st_size for name in ("model.onnx", "model.int8.onnx"))
    assert small < 0.7 * whole
    assert 0 < told["largest_difference"], "it is another network"
    assert abs(told["metrics"]["accuracy"] - files.outcome(0).metrics["accuracy"]) < 0.1
    assert set(told["test_metrics"]) == {"accuracy"} and told["latency_share"] > 0
    assert "of the time of `model.onnx`" in (tmp_path / "d" / "card.md").read_text()
    # The study keeps the point, and shows it wherever its front is shown.
    assert told["latency_share"] == told["latency"]["int8"] / told["latency"]["whole"]
    assert told["bytes"] == {"whole": whole, "int8": small}
    on_front = any(member.trial == 0 for member in files.front().members)
    shown = CliRunner().invoke(app, ["front", "built", "--json", "--directory", str(store)])
    points = json.loads(shown.stdout).get("precisions", [])
    assert [(each["trial"], each["bits"]) for each in sorted(points, key=lambda each: each["bits"])] == (
        [(0, 8), (0, 32)] if on_front else []
    )
    if on_front:
        best = max(points, key=lambda each: (each["metrics"]["accuracy"], -each["latency"]))
        assert best["leading"] and points == sorted(points, key=lambda each: each["latency"])
        text = CliRunner().invoke(app, ["front", "built", "--directory", str(store)]).stdout
        assert "built in 8 bits" in text
        CliRunner().invoke(app, ["report", "built", "--to", str(tmp_path / "r.html"), "--directory", str(store)])
        assert "In 8 bits" in (tmp_path / "r.html").read_text()
    weights = files.folder(0) / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content + b" ")
    assert read_quantised(files) == {}  # another network has taken its place
    weights.write_bytes(content)
    assert set(read_quantised(files)) == {0}


def test_rebuilding_needs_few_packages(exported: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    (folder, _), here = exported, Path(__file__).parents[3]
    known = {line.partition("#")[0].strip() for line in (here / "requirements-light.txt").read_text().splitlines()}
    light = {re.split(r"[>=]", line)[0] for line in known if line}
    assert light == {"torch", "numpy", "pydantic", "safetensors"}
    whole = tomllib.loads((here / "pyproject.toml").read_text())["project"]["dependencies"]
    others = {re.split(r"[>=\[]", each)[0] for each in whole} - light
    assert {"ray", "mlflow", "optuna", "scipy", "pandas"} <= others
    modules = sorted({"scikit-learn": "sklearn"}.get(name, name) for name in others)
    code = (
        f"import sys; sys.path.insert(0, {str(here)!r})\n"
        f"for name in {modules!r}: sys.modules[name] = None\n"  # importing such a name is a ModuleNotFoundError
        f"from paretoprune import rebuild; print(type(rebuild({str(folder)!r}, inference=True)).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "ResNet"


def test_no_code_is_run_because_a_folder_names_it(store: Path, tmp_path: Path) -> None:
    files = StudyFiles.open(store, "bessel")
    export_member(files, 0, tmp_path / "d", ["safetensors"])
    with pytest.raises(InputError, match=r"code that does not come with it; hand it in: rebuild\('.*', network=Bessel"):
        rebuild(tmp_path / "d")
    own = sys.modules["exports_own_net"]
    builders: list[Any] = ["exports_own_net:Bessel", own.Bessel, own.Bessel(10)]
    for network in builders:
        assert is_same(rebuild(tmp_path / "d", network=network), files.rebuild(0))
    with pytest.raises(InputError, match="does not have; was it made from another network"):
        rebuild(tmp_path / "d", network=own.plain)


def test_the_networks_of_a_front_are_kept_and_renewed(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = StudyFiles.open(store, "built")
    assert [card["trial"] for card in export_front(files, [0, 1], ["safetensors"])] == [0, 1]
    home = files.root / "networks"
    before = (home / "0001" / "card.json").stat().st_mtime_ns
    assert [card["trial"] for card in export_front(files, [1], ["safetensors"])] == [1]
    assert [path.name for path in home.iterdir()] == ["0001"]
    assert (home / "0001" / "card.json").stat().st_mtime_ns == before
    assert export_front(files, [1], []) == [] and not list(home.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trial", "0", "--to", "d", "--format", "onx"], "unknown export format 'onx'; did you mean 'onnx'?"),
        (
            ["--trial", "0", "--to", "d", "--format", ","],
            "--format names no format; choose from pt2, onnx, safetensors",
        ),
        (["--trial", "0"], "say where to with --to DIR"),
        (["--trial", "0", "--to", "d", "--format", "pt2", "--int8"], "--int8 is made from the ONNX graph; add onnx"),
        (["--to", "d"], "say which network with --trial N, with --pick knee|best|cheapest, or with --all, one of them"),
        (["--all", "--pick", "knee", "--to", "d"], "say which network with"),
        (["--trial", "9", "--to", "d"], "trial 9 of study 'built' is not finished (finished: 0..1)"),
        (["--trial", "0", "--to", "full"], "full exists and is not an empty folder; choose another --to"),
        (["--trial", "0", "--to", "file/d"], "file/d cannot be written: "),
    ],
)
def test_what_cannot_be_done_is_said(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    (tmp_path / "file").touch()
    done = CliRunner().invoke(app, ["export", "built", *arguments, "--directory", str(store)], prog_name="paretoprune")
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())
    assert not (tmp_path / "d").exists()


def test_a_damaged_architecture_leaves_nothing_behind(store: Path, tmp_path: Path) -> None:
    files = StudyFiles.open(store, "built")
    path = files.folder(1) / "architecture.json"
    whole = json.loads(path.read_text())
    write_json(path, whole | {"modules": {"nowhere": {"class": "Conv2d", "widths": {}, "shapes": {}}}})
    with pytest.raises(InputError, match="the architecture describes a Conv2d 'nowhere'"):
        export_members(files, {0: tmp_path / "zero", 1: tmp_path / "one"}, ["safetensors"])
    write_json(path, whole)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_folder_for_the_hub_is_written_and_nothing_sent(store: Path, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    to = tmp_path / "small"
    arguments = ["export", "built", "--pick", "knee", "--hub", "ann/small", "--to", str(to), "--directory", str(store)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in to.iterdir()) == [
        ".gitattributes",
        "README.md",
        "architecture.json",
        "card.json",
        "model.onnx",
        "model.pt2",
        "weights.safetensors",
    ]
    card, told = json.loads((to / "card.json").read_text()), hub.ModelCard.load(to / "README.md").data
    assert told.pipeline_tag == "image-classification" and {"pruning", "onnx", card["method"]} <= set(told.tags)
    (result,) = told.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", card["test_accuracy"])
    assert (result.dataset_name, told.model_name) == ("digits", "small")
    assert rebuild(to) is not None
    assert card["bytes"] == sum((to / name).stat().st_size for name in card["files"])
    assert len(card["data"]["hashes"]) == 2 and card["confirmed"] is None


class FakeHub:
    """Stands for ``huggingface_hub``: notes what is sent, or fails as it does without a connection.

    Args:
        fails: What it says then.
    """

    def __init__(self, fails: str | None = None) -> None:
        self.fails, self.sent = fails, list[tuple[str, str]]()

    def HfApi(self) -> FakeHub:  # noqa: N802  (the library's name)
        return self

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> None:
        assert private and exist_ok
        if self.fails is not None:
            raise OSError(self.fails)

    def upload_folder(self, *, repo_id: str, folder_path: str) -> str:
        self.sent.append((repo_id, folder_path))
        return f"https://hub/{repo_id}"


def test_a_network_is_sent_on_request_alone(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*more: str) -> tuple[int, str]:
        home = ["--directory", str(store), "--format", "safetensors", "--to", str(tmp_path / str(len(told)))]
        done = CliRunner().invoke(app, ["export", "built", "--trial", "0", *home, *more])
        told.append(done.output)
        return done.exit_code, done.output

    told: list[str] = []
    hub = FakeHub()
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert export("--hub", "ann/small", "--push")[0] == 0
    assert hub.sent == [("ann/small", str(tmp_path / "0"))] and "https://hub/ann/small" in told[0]
    monkeypatch.setitem(sys.modules, "huggingface_hub", FakeHub("no route to host"))
    code, said = export("--hub", "ann/small", "--push")
    assert code == 2 and "(no route to host); the folder is complete; send it later with `hf upload ann/small" in said
    assert (tmp_path / "1" / "README.md").exists()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, said = export("--hub", "ann/small", "--push")
    assert code == 2 and "--push needs the package huggingface_hub" in said
    for wrong in ("small", "ann/small/x", "../small", "ann/-small", "ann/sm all"):
        code, said = export("--hub", wrong)
        assert code == 2 and "is not the name of a repository: USER/NAME" in said, wrong
    code, said = export("--push")
    assert code == 2 and "say where to with --hub USER/NAME" in said
