"""Every example runs, as its first lines say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from paretoprune import Sweep, load_config
from search.artefacts.export import study_inputs
from search.store.studies import StudyFiles

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_every_example_is_tested_here() -> None:
    assert sorted(p.name for p in EXAMPLES.iterdir() if p.suffix in {".py", ".toml"}) == [
        "digits_increg.toml",
        "five_paths.py",
        "from_python.py",
        "greedy_theory.py",
        "method_pictures.py",
        "own_loop.py",
        "own_loop.toml",
        "own_network.py",
        "own_network.toml",
        "run_alone.py",
        "segmentation.py",
        "segmentation.toml",
        "two_inputs.py",
        "two_inputs.toml",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metric", "heading", "least"),
    [
        ("segmentation", "mean_iou", "mean IoU", 0.3),
        ("two_inputs", "r2", "R²", 0.5),
        ("own_loop", "box_iou", "overlap of boxes", 0.3),
    ],
)
def test_other_tasks(
    name: str,
    metric: str,
    heading: str,
    least: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(EXAMPLES.parent)
    shorter = ["dense.epochs=6", "finetune.epochs=2", "methods=['magnitude']"]
    config = load_config(EXAMPLES / f"{name}.toml", shorter, trials=2, executor="inline", directory=tmp_path)
    front = Sweep(config).run()
    assert config.objectives == (metric, "flops")
    assert least < front.dense.metrics[metric] <= 1
    for outcome in front.outcomes:
        assert metric in outcome.metrics and "accuracy" not in outcome.metrics
        assert all(metric in record for record in outcome.history)
        assert f"{metric}_cut" in outcome.extra
    folder = next((tmp_path / "studies").iterdir())
    stored = json.loads((folder / "front.json").read_text())
    assert stored["objectives"] == [metric, "flops"]
    assert stored["dense"][metric] == front.dense.metrics[metric]
    assert (folder / "front.png").stat().st_size > 10_000
    assert metric in (folder / "front.csv").read_text().splitlines()[0].split(",")
    assert front.shown[metric].heading == heading
    member = front.knee()
    rebuilt = member.model()
    assert not rebuilt.training
    kept = (folder / "inputs.safetensors").read_bytes()
    (folder / "inputs.safetensors").unlink()
    study_inputs(StudyFiles.open(tmp_path))  # taken again from the data, by the study's task
    assert (folder / "inputs.safetensors").read_bytes() == kept
    if name == "segmentation":
        assert set(rebuilt(torch.zeros(1, 3, 32, 32))) == {"out", "aux"}


def test_own_network_and_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES.parent)
    config = load_config(
        EXAMPLES / "own_network.toml", ["dense.epochs=6", "exports=[]"], trials=2, executor="inline", directory=tmp_path
    )
    front = Sweep(config).run()
    assert front.dense.accuracy > 0.9
    assert len(front.outcomes) == 2
    assert front.knee().model() is not None


def test_narrowed_increg(tmp_path: Path) -> None:
    config = load_config(EXAMPLES / "digits_increg.toml", directory=tmp_path)
    space = Sweep(config).plan().space
    assert space["increg.penalty_max"].to_json()["high"] == 2.0
    assert config.methods == ("increg",)


@pytest.mark.slow
def test_from_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from examples.from_python import main

    main(tmp_path, trials=2)
    assert "knee: trial" in capsys.readouterr().out


def test_greedy_theory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from examples.greedy_theory import main

    medians = main(neurons=2000, seeds=3, to=150, picture=tmp_path / "rates.png")
    assert medians["greedy, with repeats"] < -1.2  # the theorems' algorithm is faster than chance
    assert -1.2 < medians["random subset"] < -0.8
    assert capsys.readouterr().out.count("\n") == 7
    assert (tmp_path / "rates.png").stat().st_size > 10_000
    with pytest.raises(SystemExit, match="--to must be in 20 .. --neurons"):
        main(neurons=100, seeds=1, to=150, picture=None)
