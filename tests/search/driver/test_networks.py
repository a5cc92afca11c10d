"""Networks of a front on their way to MLflow."""

from __future__ import annotations

from pathlib import Path

import torch

from paretoprune import Sweep
from search.driver.networks import model_source
from search.store.files import write_json
from search.store.studies import StudyFiles
from tests.search.cases import make_quick_config


def test_mlflow_gets_the_program_that_was_exported_and_checked(tmp_path: Path) -> None:
    Sweep(make_quick_config(tmp_path, name="a", trials=1)).run()
    files = StudyFiles.open(tmp_path, "a")
    (member,) = files.front().members
    folder, copy = files.root / "networks" / f"{member.trial:04d}", tmp_path / "copy.pt2"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.pt2").write_bytes(b"exported")
    card = {"formats": {"pt2": {"file": "model.pt2", "batch": 1, "verified": True}}}
    write_json(folder / "card.json", card)
    source = model_source(files, member)
    model = source.build()
    assert source.write(model, source.inputs, copy) == 1 and copy.read_bytes() == b"exported"
    card["formats"]["pt2"]["verified"] = False
    write_json(folder / "card.json", card)
    assert source.write(model, source.inputs, copy) is None
    program = torch.export.load(copy).module()
    assert isinstance(source.inputs, torch.Tensor)
    with torch.inference_mode():
        assert torch.allclose(program(source.inputs), model(source.inputs), atol=1e-5)
