"""Classifiers of Hugging Face: built from a configuration that lies here, pruned, and rebuilt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from methods.network.preflight import examine
from methods.network.shaken import TOLERANCE
from search.study.config_file import load_config
from search.tasks.layer_groups import network_and_example
from search.tasks.models import build_model, build_with_fit
from search.tasks.models.formats import image_format
from spaces import InputError

transformers = pytest.importorskip("transformers")

VIT = {
    "image_size": 16, "patch_size": 4, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 20,
}  # fmt: skip
STAGES: dict[str, Any] = {"hidden_sizes": [4, 6, 8, 10], "depths": [1, 1, 1, 1], "image_size": 32}
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": VIT,
    "deit": VIT,
    "beit": VIT | {"use_relative_position_bias": True},
    "dinov2": VIT,
    "swin": {
        "image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4,
    },
    "convnext": STAGES,
    "convnextv2": STAGES,
    "resnet": {"embedding_size": 6, "hidden_sizes": [8, 12], "depths": [1, 1]},
}  # fmt: skip


def write_config(folder: Path, kind: str, **more: Any) -> str:
    """Write a configuration as the library does, and return the network's name."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **CONFIGS.get(kind, {}), **more}))
    return f"hf:{folder}"


@pytest.mark.parametrize("kind", CONFIGS)
def test_classifiers_lose_channels_and_pass_every_proof(tmp_path: Path, kind: str) -> None:
    name = write_config(tmp_path, kind)
    side = CONFIGS[kind].get("image_size", 32)
    model = build_model(name, 5, (1, 3, side, side), seed=0)
    found = examine(model, torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)))
    assert not found.left_out and found.difference <= TOLERANCE[torch.float64]
    assert list(found.analysis.stays.values()) == ["it is the network's output"]
    assert found.least.flops < 0.2 * found.dense.flops
    if kind in {"vit", "deit", "beit", "dinov2"}:
        heads = [group for group in found.groups if group.channels == 3]
        assert len(heads) == VIT["num_hidden_layers"]


def test_weights_beside_the_configuration_are_loaded_and_the_head_may_differ(tmp_path: Path) -> None:
    name = write_config(tmp_path, "vit")
    trained: Any = build_model(name, 5, (1, 3, 16, 16), seed=1)
    save_file(
        {key: tensor.clone() for key, tensor in trained.network.state_dict().items()}, tmp_path / "model.safetensors"
    )
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    same, fit = build_with_fit(name, 5, (1, 3, 16, 16), seed=0, weights="pretrained")
    assert torch.equal(same.eval()(x), trained.eval()(x)) and not fit.head
    by_file = build_model(name, 5, (1, 3, 16, 16), seed=0, weights=str(tmp_path / "model.safetensors"))
    assert torch.equal(by_file.eval()(x), trained(x))
    other, fit = build_with_fit(name, 3, (1, 3, 16, 16), seed=0, weights="pretrained")
    assert fit.head == ("network.classifier.weight", "network.classifier.bias")
    assert torch.equal(other.get_parameter("network.vit.layernorm.weight"), trained.network.vit.layernorm.weight)


def test_the_format_of_images_is_the_folders_own(tmp_path: Path) -> None:
    name = write_config(tmp_path, "vit")
    preprocessor = {
        "size": {"height": 16, "width": 16},
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
        "resample": 3,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    found = image_format(name)
    assert found is not None and (found.side, found.interpolation, found.crop) == (16, "bicubic", 1.0)
    assert found.mean == (0.5, 0.5, 0.5) and found.std == (0.25, 0.25, 0.25)
    network, example = network_and_example(name, None, tmp_path)
    assert (
        isinstance(example, torch.Tensor) and example.shape == (1, 3, 16, 16) and network.get_submodule("network.vit")
    )


def test_a_file_is_found_from_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text('model = "hf:nets/vit"\n')
    assert load_config(tmp_path / "study.toml").model == f"hf:{tmp_path.resolve()}/nets/vit"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "names no configuration .* nothing is downloaded"),
        ("{", "is not JSON"),
        ("[]", "it holds a list"),
        ("{}", "names no model_type"),
        ('{"model_type": "vti"}', "unknown model_type .* 'vti'.*vit"),
        ('{"model_type": "bert"}', "unknown image classifier .* 'bert'"),
        ('{"model_type": "vit", "hidden_size": -6, "num_attention_heads": 3}', "no network can be built"),
    ],
)
def test_what_is_no_classifier_is_refused_in_a_sentence(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=said):
        build_model(f"hf:{tmp_path}", 5, (1, 3, 16, 16), seed=0)


def test_missing_weights_and_missing_packages_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write_config(tmp_path, "vit")
    with pytest.raises(InputError, match="there are no weights in .*model.safetensors"):
        build_model(name, 5, (1, 3, 16, 16), seed=0, weights="pretrained")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(InputError, match=r"needs the package transformers; install it"):
        build_model(name, 5, (1, 3, 16, 16), seed=0)
