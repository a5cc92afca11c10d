"""Networks of timm: built by name, with the library's own format of images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from search.tasks.data.sets import load_data
from search.tasks.data.sizes import SplitSizes
from search.tasks.image_format import IMAGENET, ImageFormat
from search.tasks.models import build_model, build_with_fit
from search.tasks.models.formats import image_format
from spaces import InputError

timm: Any = pytest.importorskip("timm")


def test_the_format_of_images_is_that_of_the_library() -> None:
    assert image_format("timm:vit_tiny_patch16_224") == ImageFormat(224, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.9)
    assert image_format("torchvision:resnet18") is None and image_format("lenet_300_100") is None


def test_images_of_folders_are_made_ready_in_that_format(tmp_path: Path) -> None:
    for part, name in ((p, c) for p in ("train", "val", "test") for c in "ab"):
        (tmp_path / part / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (40, 30), (255, 0, 51)).save(tmp_path / part / name / f"{number}.png")
    form = ImageFormat(24, (0.5,) * 3, (0.25,) * 3, "bicubic", 0.8)
    found = load_data("imagefolder", tmp_path, SplitSizes(), form=form)
    example: Any = found.example
    assert example.shape == (1, 3, 24, 24)
    assert torch.allclose(example[0, :, 5, 5], torch.tensor([2.0, -2.0, (0.2 - 0.5) / 0.25]), atol=1e-6)
    usual = load_data("imagefolder", tmp_path, SplitSizes())
    named = load_data("imagefolder", tmp_path, SplitSizes(), form=IMAGENET)
    assert usual.train.fingerprint() == named.train.fingerprint() != found.train.fingerprint()


def test_trained_weights_are_taken_and_the_head_may_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: Any = timm.create_model("resnet10t", num_classes=7)
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: trained if k.get("pretrained") else make(*a, **k))
    model, fit = build_with_fit("timm:resnet10t", 7, (1, 3, 32, 32), seed=0, weights="pretrained")
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert not fit.head and torch.equal(model.eval()(x), trained.eval()(x))
    _, fit = build_with_fit("timm:resnet10t", 3, (1, 3, 32, 32), seed=0, weights="pretrained")
    assert fit.head == ("fc.weight", "fc.bias")


def test_weights_that_cannot_be_loaded_and_wrong_names_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_offline(*_: Any, **__: Any) -> None:
        raise OSError("no connection\nand more")

    with pytest.raises(InputError, match="unknown timm model 'vit_tinny.*vit_tiny"):
        build_model("timm:vit_tinny_patch16_224", 5, (1, 3, 224, 224), seed=0)
    with pytest.raises(InputError, match="unknown weights of timm:resnet10t: 'c4_in1k'.*c3_in1k"):
        build_model("timm:resnet10t.c4_in1k", 5, (1, 3, 32, 32), seed=0)
    with pytest.raises(InputError, match="weights 'DEFAULT' of model 'timm:resnet10t' must be a file .*'pretrained'"):
        build_model("timm:resnet10t", 5, (1, 3, 32, 32), seed=0, weights="DEFAULT")
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: fail_offline() if k.get("pretrained") else make(*a, **k))
    with pytest.raises(InputError, match=r"\(no connection\); download model.safetensors of https://"):
        build_model("timm:resnet10t", 5, (1, 3, 32, 32), seed=0, weights="pretrained")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="needs the package timm; install it"):
        build_model("timm:resnet10t", 5, (1, 3, 32, 32), seed=0)
