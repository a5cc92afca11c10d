"""The worked notebook runs, and shows what it promises."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_notebook_runs_and_shows_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(  # type: ignore[no-untyped-call]
        ROOT / "examples" / "notebook.ipynb", as_version=4
    )
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {
        "".join(cell["source"]).splitlines()[-1]: [output["data"] for output in cell["outputs"] if "data" in output]
        for cell in notebook.cells
        if cell["cell_type"] == "code"
    }
    assert "reachable" in shown["sweep.plan()"][0]["text/html"]
    assert "increg.penalty_max" in shown["sweep.plan().space"][0]["text/html"]
    progress, front = shown["front"]
    assert "6/6 trials" in progress["text/html"] and "hypervolume" in progress["text/html"]
    assert "<svg" in front["text/html"] and "dense" in front["text/html"]
    assert shown["front.plot()"][0]["image/png"]
    assert "FLOPs" in shown["small"][0]["text/html"]
    assert (
        "torch.Size([1, 10])"
        in shown["model(torch.zeros(1, 1, 8, 8)).shape, sum(p.numel() for p in model.parameters())"][0]["text/plain"]
    )
