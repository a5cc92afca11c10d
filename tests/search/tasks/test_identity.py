"""What a study is about: other pictures, another forward pass or other layers are other things."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from methods.contract.recipe import Recipe
from search.tasks.data.hashes import content_hash
from search.tasks.data.sizes import SplitSizes
from search.tasks.dense import dense_network
from search.tasks.identity import answers, differences, has_same_answers, study_identity
from search.tasks.workload import Workload


class Net(nn.Module):
    """A network whose forward pass can be edited under the same layers."""

    sign = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.sign * self.layer(x.flatten(1))
        return out


def net(classes: int) -> nn.Module:
    return Net()


@pytest.fixture
def workload() -> Workload:
    return Workload.load(f"{__name__}:net", "digits", Path("data"), SplitSizes(), 0)


def test_a_study_is_the_same_only_over_the_same_network_and_data(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    then = study_identity(workload)
    assert differences(then, study_identity(workload)) == [] and differences({}, then) == []
    monkeypatch.setattr(Net, "sign", -1.0)
    assert differences(then, study_identity(workload)) == [
        "the network has the same layers, but other weights or another forward pass"
    ]
    other = replace(workload, model="digits_resnet")
    assert differences(then, study_identity(other)) == ["the network has other layers or sizes"]
    data = {**then, "training data": "0"}
    assert differences(data, then) == ["the training data are others"]


def test_a_cached_dense_network_of_another_forward_pass_is_a_miss(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = dense_network(workload, Recipe(), 0.2, 0, tmp_path)
    assert dense_network(workload, Recipe(), 0.2, 0, tmp_path).cached
    monkeypatch.setattr(Net, "sign", -1.0)
    other = dense_network(workload, Recipe(), 0.2, 0, tmp_path)
    assert not other.cached and other.folder != first.folder
    monkeypatch.setattr(Net, "sign", 1.0)
    again = dense_network(workload, Recipe(), 0.2, 0, tmp_path)
    assert again.cached and again.folder == first.folder


def test_asking_changes_nothing_of_the_network() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)).train()
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert answers(model, torch.ones(1, 4)) == answers(model, torch.ones(1, 4))
    assert [module.training for module in model] == [True, False, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_answers_may_differ_in_the_last_digits_alone() -> None:
    assert has_same_answers([1.0, -2.0], [1.0001, -2.0]) and has_same_answers([float("nan")], [float("nan")])
    assert not has_same_answers([1.0], [1.1]) and not has_same_answers([1.0], [1.0, 2.0])


def test_files_are_known_by_content_and_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, content in zip(folders, (b"one", b"two"), strict=True):
        folder.mkdir()
        (folder / "x.jpeg").write_bytes(content)
    first, second = (content_hash(folder, ["x.jpeg"]) for folder in folders)
    assert first != second == content_hash(folders[1], ["x.jpeg"])
    (folders[1] / "x.jpeg").write_bytes(b"one")
    os.utime(folders[1] / "x.jpeg", (1, 1))
    assert content_hash(folders[1], ["x.jpeg"]) == first, "where the folder lies makes no difference"
    monkeypatch.setattr("search.tasks.data.hashes._file_hash", lambda *_: pytest.fail("a known file was read again"))
    assert content_hash(folders[0], ["x.jpeg"]) == first
