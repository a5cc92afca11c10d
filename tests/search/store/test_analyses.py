from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

from search.store.analyses import StoredAnalyses, analysis_identity
from tests.methods.cases import NETS, seeded


class Counted:
    """An analysis that counts how often it is computed."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, Tensor]:
        self.calls += 1
        return {"a": torch.arange(3.0), "b.c": torch.eye(2, dtype=torch.float64)}


def test_computed_once_and_equal_afterwards(tmp_path: Path) -> None:
    analyses, compute = StoredAnalyses(tmp_path / "analyses", "x"), Counted()
    first = analyses.get("factors", {"seed": 0, "fisher": "mc"}, compute)
    again = pickle.loads(pickle.dumps(analyses)).get("factors", {"fisher": "mc", "seed": 0}, compute)
    assert compute.calls == 1
    assert first.keys() == again.keys() and all(torch.equal(first[key], again[key]) for key in first)
    assert again["b.c"].dtype == torch.float64


def test_anything_that_decides_it_makes_another(tmp_path: Path) -> None:
    compute = Counted()
    for identity, name, settings in (
        ("x", "f", {"s": 0}),
        ("y", "f", {"s": 0}),
        ("x", "g", {"s": 0}),
        ("x", "f", {"s": 1}),
    ):
        StoredAnalyses(tmp_path, identity).get(name, settings, compute)
    assert compute.calls == 4


def test_trials_that_ask_together_wait_for_one(tmp_path: Path) -> None:
    compute = Counted()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: StoredAnalyses(tmp_path, "x").get("f", {}, compute), range(8)))
    assert compute.calls == 1


def test_damaged_file_is_computed_anew(tmp_path: Path) -> None:
    analyses, compute = StoredAnalyses(tmp_path, "x"), Counted()
    analyses.get("f", {}, compute)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:20])
    assert torch.equal(analyses.get("f", {}, compute)["a"], torch.arange(3.0))
    assert compute.calls == 2
    assert len(list(tmp_path.glob("*"))) == 2  # the file and its lock: nothing half-written stays


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> dict[str, Tensor]:
        raise ZeroDivisionError

    analyses = StoredAnalyses(tmp_path, "x")
    for _ in range(2):
        try:
            analyses.get("f", {}, fail)
        except ZeroDivisionError:
            continue
        raise AssertionError("the failure was swallowed")
    assert not list(tmp_path.glob("*.safetensors"))


def test_identity_follows_weights_and_data() -> None:
    data = {"train": "1", "validation": "2"}
    model = seeded(NETS["vgg"])
    identity = analysis_identity(model, data)
    assert identity == analysis_identity(seeded(NETS["vgg"]), data)
    assert identity != analysis_identity(model, {**data, "train": "3"})
    half: nn.Module = seeded(NETS["vgg"]).to(torch.bfloat16)
    changed = seeded(NETS["vgg"])
    with torch.no_grad():
        next(changed.parameters()).view(-1)[0] += 1e-6
    assert len({identity, analysis_identity(half, data), analysis_identity(changed, data)}) == 3
