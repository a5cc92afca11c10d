"""Weight files that fit, and what is said of those that do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from search.tasks.models import build_model, build_with_fit
from search.tasks.models.weights import Fit
from spaces import InputError

SHAPE = (1, 1, 8, 8)
Change = Callable[[dict[str, Tensor]], object]


def build(weights: Path | str | None, seed: int = 0, classes: int = 10) -> nn.Module:
    return build_model("digits_resnet", classes, SHAPE, seed, None if weights is None else str(weights))


@pytest.fixture
def trained() -> dict[str, Tensor]:
    return build(None, seed=7).state_dict()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {name: tensor for name, tensor in state.items() if "num_batches" not in name},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {"lr": 0.1}},
        lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}, "epoch": 3},
        lambda state: {"state_dict": {f"model._orig_mod.module.{name}": tensor for name, tensor in state.items()}},
    ],
    ids=["plain", "checkpoint", "data parallel", "no counters", "pytorch's", "compiled", "lightning", "all of them"],
)
def test_pth_files_load(tmp_path: Path, trained: dict[str, Tensor], wrap: Change) -> None:
    torch.save(wrap(trained), tmp_path / "w.pth")
    loaded = build(tmp_path / "w.pth").state_dict()
    assert all(torch.equal(loaded[name], trained[name]) for name in trained)


def test_safetensors_files_load(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    save_file(trained, tmp_path / "w.safetensors")
    loaded = build(tmp_path / "w.safetensors").state_dict()
    assert all(torch.equal(loaded[name], trained[name]) for name in trained)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("bn1.bias"), r"it lacks bn1\.bias;"),
        (lambda state: state.update(extra=torch.zeros(1)), "it has in addition extra;"),
        (lambda state: state.update({"bn1.bias": torch.zeros(3)}), r"it has bn1\.bias \[3\] instead of \[16\]"),
        (
            lambda state: state.update({"fc.weight": torch.zeros(3, 5)}),
            r"it has fc\.weight \[3, 5\] instead of \[10, 64\]",
        ),
        (lambda state: state.clear(), r"it lacks conv1\.weight, bn1\.weight, bn1\.bias and \d+ more"),
    ],
    ids=["missing", "surplus", "shape", "other features", "empty"],
)
def test_what_does_not_fit_is_named(tmp_path: Path, trained: dict[str, Tensor], change: Change, said: str) -> None:
    state = dict(trained)
    change(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=said):
        build(tmp_path / "w.pth")


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"save model\.state_dict\(\) instead of the model"):
        build(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_damaged_files_are_input_errors(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 not a file of weights")
    with pytest.raises(InputError, match=r"w\.(pt|safetensors) (cannot be read|holds more)"):
        build(tmp_path / name)


def test_other_content_is_an_input_error(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(InputError, match="does not hold a state dictionary"):
        build(tmp_path / "w.pth")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no weight file .*nowhere\.pth"):
        build(tmp_path / "nowhere.pth")


def test_enum_for_a_model_of_ours() -> None:
    with pytest.raises(InputError, match=r"'DEFAULT' of model 'digits_resnet' must be a file that ends in"):
        build("DEFAULT")


def test_unknown_enum_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'IMAGENET1K_V3'; did you mean 'IMAGENET1K_V[12]'"):
        build_model("torchvision:resnet50", 1000, (1, 3, 32, 32), 0, "IMAGENET1K_V3")


def build_fitted(weights: Path, classes: int) -> tuple[nn.Module, Fit]:
    return build_with_fit("digits_resnet", classes, SHAPE, 0, str(weights))


@pytest.mark.parametrize(
    "change",
    [
        lambda state: None,
        lambda state: (state.pop("fc.weight"), state.pop("fc.bias")),
        lambda state: state.update({"head.weight": state.pop("fc.weight"), "head.bias": state.pop("fc.bias")}),
    ],
    ids=["other classes", "no head", "a head of another name"],
)
def test_a_head_for_other_classes_stays_initial_and_all_else_is_taken(
    tmp_path: Path, trained: dict[str, Tensor], change: Change
) -> None:
    state = dict(trained)
    change(state)
    torch.save(state, tmp_path / "w.ckpt")
    model, fit = build_fitted(tmp_path / "w.ckpt", 3)
    initial = build(None, classes=3).state_dict()
    assert fit.head == ("fc.weight", "fc.bias")
    assert fit.unused == tuple(name for name in state if name.startswith("head"))
    assert "the head is new (fc.weight, fc.bias)" in fit.sentence()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, (initial if name in fit.head else trained)[name]), name


def test_weights_that_fit_have_no_new_head(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    torch.save(trained, tmp_path / "w.pth")
    assert build_fitted(tmp_path / "w.pth", 10)[1] == Fit()


def test_a_set_of_torchvision_for_other_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    published = models.resnet18(num_classes=1000).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: published)
    model, fit = build_with_fit("torchvision:resnet18", 10, (1, 3, 32, 32), 0, "DEFAULT")
    assert fit.head == ("fc.weight", "fc.bias")
    assert torch.equal(model.state_dict()["layer4.1.conv2.weight"], published["layer4.1.conv2.weight"])


def test_enum_without_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_offline(*_: object, **__: object) -> None:
        raise URLError("no connection")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail_offline)
    with pytest.raises(InputError, match=r"no connection.*download https://.*resnet18.*pth"):
        build_model("torchvision:resnet18", 1000, (1, 3, 32, 32), 0, "DEFAULT")
