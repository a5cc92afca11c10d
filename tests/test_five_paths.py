"""Five ways in, each with a sweep, an export and a process that runs it without this package."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.five_paths import main

pytestmark = [
    pytest.mark.slow,
    # Importing transformers warns of optional packages of its own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::Warning:urllib3"),
]


@pytest.mark.parametrize("name", ["own", "torchvision", "timm", "hf", "segmentation"])
def test_every_way_leads_out(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip({"timm": "timm", "hf": "transformers"}.get(name, "torch"))
    (row,) = main(tmp_path / "five", [name], images=20, trials=1, epochs=(1, 1))
    assert {form for form, told in row.formats.items() if told["verified"]} == {"safetensors", "pt2", "onnx"}
    assert row.alone["ours"] == []  # neither this package nor the user's code can be found there
    assert row.alone["apart"] < 1e-3
    assert row.alone["pt2_ms"] > 0 and row.alone["onnx_ms"] > 0
    assert 0 < row.share < 1
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"| {row.title} |") and "safetensors, pt2, onnx" in line
