"""Count right answers of exported networks with ONNX Runtime alone, or with torch alone.

It needs none of paretoprune: ``benchmarks/exports.py`` starts it in fresh environments, and prints what it finds.

    ENVIRONMENT/bin/python benchmarks/exports_alone.py onnx EXPORTS DATA.npz
    ENVIRONMENT/bin/python benchmarks/exports_alone.py pt2 EXPORTS DATA.pt
"""

import importlib.util
import json
import sys
from pathlib import Path

BATCH = 512
OTHERS = ("paretoprune", "search", "methods", "spaces", "torch", "torchvision", "onnx", "onnxruntime", "ray", "mlflow")


def onnx_answers(folder: Path, images: object) -> list:  # type: ignore[type-arg]
    """Ask a graph for its answers.

    Args:
        folder: An export.
        images: Array ``[n, ...]``.

    Returns:
        The class of each image.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    starts = range(0, len(images), BATCH)  # type: ignore[arg-type]
    parts = [session.run(None, {name: images[s : s + BATCH]})[0] for s in starts]  # type: ignore[index]
    return [int(each) for part in parts for each in part.argmax(1)]


def pt2_answers(folder: Path, images: object) -> list:  # type: ignore[type-arg]
    """Ask a program for its answers.

    Args:
        folder: An export.
        images: Tensor ``[n, ...]``.

    Returns:
        The class of each image.
    """
    import torch

    torch.set_num_threads(1)
    program = torch.export.load(folder / "model.pt2").module()
    with torch.no_grad():
        return [int(each) for part in images.split(BATCH) for each in program(part).argmax(1)]  # type: ignore[attr-defined]


def main() -> None:
    """Print one line of JSON per export: right answers by part of the data, and what the card promises."""
    kind, exports, data = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if kind == "onnx":
        import numpy

        arrays = {name: array for name, array in numpy.load(data).items()}
    else:
        import torch

        arrays = torch.load(data)
    answer = onnx_answers if kind == "onnx" else pt2_answers
    print(json.dumps({"installed": [name for name in OTHERS if importlib.util.find_spec(name)]}))
    for folder in sorted(path.parent for path in exports.glob("*/card.json")):
        card = json.loads((folder / "card.json").read_text())
        promised = {"validation": card["metrics"]["accuracy"], "test": card["test_metrics"]["accuracy"]}
        line = {"export": folder.name, "method": card["method"]}
        for part, share in promised.items():
            labels = [int(each) for each in arrays[f"{part}_labels"]]
            found = answer(folder, arrays[f"{part}_images"])
            right = sum(one == other for one, other in zip(found, labels, strict=True))
            line[part] = {"right": right, "of": len(labels), "card": round(share * len(labels), 6)}
        print(json.dumps(line))


if __name__ == "__main__":
    main()
