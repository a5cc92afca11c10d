"""Five ways in, one way out: each a sweep, an export, and a process that loads and times it without this package.

    python -m examples.five_paths --to five

1. a network and arrays of one's own;
2. torchvision's MobileNetV2 with weights for 1000 classes and a new head, on a folder of images;
3. a network of timm by its name, on the same images;
4. a Hugging Face image classifier from a configuration on disk;
5. semantic segmentation.

Images, configuration and weights are made here, so that nothing is downloaded: the file of weights stands for
torchvision's own (``weights = "DEFAULT"``, where there is a connection). The last lines are one table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from paretoprune import Sweep, load_config
from search.artefacts.export import export_member
from search.fronts.front import Front
from search.records.listener import NullListener
from search.store.studies import StudyFiles

EXAMPLES = Path(__file__).parent
CLASSES = ("bars", "discs", "squares")
SIDE = 32


@dataclass(frozen=True)
class Way:
    """One way in.

    Attributes:
        title: What it is.
        file: A configuration; ``None`` for none.
        settings: What is set beside it, as ``--set`` takes it.
    """

    title: str
    file: Path | None
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """What came of one way.

    Attributes:
        title: What it is.
        network: Name of the network.
        metric: Name of the quality.
        dense: Quality of the dense network on the test set.
        pruned: Quality of the exported network on the test set.
        share: Its share of the dense FLOPs.
        formats: What the card says of each format.
        alone: What ``run_alone.py`` printed.
    """

    title: str
    network: str
    metric: str
    dense: float
    pruned: float
    share: float
    formats: dict[str, Any]
    alone: dict[str, Any]


def draw_images(root: Path, each: int) -> None:
    """Draw images of three shapes, one folder per class.

    Args:
        root: The folder of the classes.
        each: Images per class.
    """
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True, exist_ok=True)
        for place in range(each):
            y, x, size = draw.integers(10, 22), draw.integers(10, 22), draw.integers(4, 9)
            far = [abs(rows - y) / 3, np.hypot(rows - y, columns - x), np.maximum(abs(rows - y), abs(columns - x))]
            image = draw.integers(0, 90, size=(SIDE, SIDE, 3))
            image[far[number] <= (1 if number == 0 else size)] += draw.integers(60, 150, size=3)
            Image.fromarray(image.astype(np.uint8)).save(root / name / f"{place:03d}.png")


def write_weights(path: Path) -> None:
    """Write weights of torchvision's MobileNetV2 for 1000 classes, in place of a download.

    Args:
        path: The file.
    """
    from torchvision.models import mobilenet_v2

    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(mobilenet_v2(num_classes=1000).state_dict(), path)


def write_hugging_face(folder: Path) -> None:
    """Write the configuration of a small image classifier, as ``save_pretrained`` of transformers does.

    Args:
        folder: Where to.
    """
    from transformers import ResNetConfig

    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 1], layer_type="basic")
    config.num_labels = len(CLASSES)
    config.save_pretrained(folder)


def make_ways(to: Path, images: int) -> dict[str, Way]:
    """Make what the five ways need.

    Args:
        to: A folder.
        images: Images per class.

    Returns:
        The ways by a short name.
    """
    draw_images(to / "images", images)
    write_weights(to / "mobilenet_v2.pth")
    folder = ("data='imagefolder'", f"data_root='{to / 'images'}'", "methods=['magnitude','random']")
    small = ("dense.recipe.batch_size=16", "finetune.recipe.batch_size=16", "dense.recipe.lr=0.02")
    return {
        "own": Way("own network, own arrays", EXAMPLES / "own_network.toml", ()),
        "torchvision": Way(
            "torchvision, new head, image folder",
            None,
            ("model='torchvision:mobilenet_v2'", f"weights='{to / 'mobilenet_v2.pth'}'", *folder, *small),
        ),
        "timm": Way("timm by name, image folder", None, ("model='timm:resnet10t'", *folder, *small)),
        "hf": Way(
            "Hugging Face, local configuration",
            None,
            (f"model='hf:{to / 'classifier'}'", *folder, *small),
        ),
        "segmentation": Way("segmentation", EXAMPLES / "segmentation.toml", ("methods=['magnitude']",)),
    }


def run_way(name: str, way: Way, to: Path, trials: int, epochs: tuple[int, int]) -> Row:
    """Sweep, export, and run the export alone.

    Args:
        name: Its short name.
        way: The way.
        to: A folder.
        trials: Trials of the sweep.
        epochs: Epochs of the dense network, and of each trial.

    Returns:
        What came of it.
    """
    if name == "hf":
        write_hugging_face(to / "classifier")
    settings = [*way.settings, f"dense.epochs={epochs[0]}", f"finetune.epochs={epochs[1]}", "exports=[]"]
    config = load_config(way.file, settings, name=name, trials=trials, executor="inline", directory=to / "mlruns")
    front: Front = Sweep(config, NullListener()).run()
    member, quality = front.knee(), front.quality.name
    card = export_member(StudyFiles.open(to / "mlruns", name), member.trial, to / name)
    packages = sorted({sysconfig.get_path(kind) for kind in ("purelib", "platlib")})
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(EXAMPLES / "run_alone.py"), str(to / name), *packages],
        cwd=to,
        capture_output=True,
        text=True,
        check=True,
    )
    return Row(
        way.title,
        config.model.replace(f"{to}/", ""),
        quality,
        front.dense.test_metrics[quality],
        member.test_metrics[quality],
        card["flops_share"],
        card["formats"],
        json.loads(done.stdout.splitlines()[-1]),
    )


def table(rows: list[Row]) -> Iterator[str]:
    """Write the rows as a table.

    Args:
        rows: What came of the ways.

    Yields:
        Lines of Markdown.
    """
    yield "| way in | network | test: dense → pruned | FLOPs | files that count | pt2 | ONNX |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        counting = ", ".join(name for name, told in row.formats.items() if told["verified"])
        yield (
            f"| {row.title} | `{row.network}` | {row.metric.replace('_', ' ')} {row.dense:.3f} → {row.pruned:.3f} | "
            f"{row.share:.0%} | {counting} | {row.alone['pt2_ms']:.2f} ms | {row.alone['onnx_ms']:.2f} ms |"
        )


def main(
    to: Path, names: list[str] | None = None, images: int = 60, trials: int = 3, epochs: tuple[int, int] = (8, 3)
) -> list[Row]:
    """Go the ways and print the table.

    Args:
        to: A folder that does not exist yet.
        names: Which ways; all by default.
        images: Images per class.
        trials: Trials of each sweep.
        epochs: Epochs of the dense networks, and of each trial.

    Returns:
        What came of the ways.
    """
    to = to.absolute()
    to.mkdir(parents=True)
    known = make_ways(to, images)
    rows = []
    for name in names or known:
        print(f"{known[name].title} ...", file=sys.stderr)
        rows.append(run_way(name, known[name], to, trials, epochs))
    print("\n".join(table(rows)))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="own, torchvision, timm, hf, segmentation")
    parser.add_argument("--trials", type=int, default=3)
    asked = parser.parse_args()
    main(asked.to, asked.only, trials=asked.trials)
