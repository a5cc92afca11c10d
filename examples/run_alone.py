"""Load an export and time it, as somebody would who has neither paretoprune nor the code of the network.

    python -I -S examples/run_alone.py small/ SITE_PACKAGES…

It imports torch and ONNX Runtime alone, and needs nothing but the folder. With ``-I -S`` Python finds the packages of
the folders that are named and no others: what is installed for development is not found there.
"""

import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path

ROUNDS = 30


def median_ms(run: object) -> float:
    """Time a call.

    Args:
        run: What is called.

    Returns:
        Milliseconds, the median of :data:`ROUNDS` calls after one that warms up.
    """
    run()  # type: ignore[operator]
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()  # type: ignore[operator]
        times.append(time.perf_counter() - start)
    return 1000 * sorted(times)[ROUNDS // 2]


def main() -> None:
    """Print, as JSON, the times of one input, how far both answers are apart, and whether the package was there."""
    folder = Path(sys.argv[1])
    sys.path += sys.argv[2:]
    import onnxruntime
    import torch
    from torch.utils._pytree import tree_leaves

    torch.set_num_threads(1)
    card = json.loads((folder / "card.json").read_text())
    example = torch.randn(card["network"]["example_shape"], generator=torch.Generator().manual_seed(0))
    program = torch.export.load(folder / "model.pt2").module()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: example.numpy()}
    with torch.inference_mode():
        answers = [each.numpy() for each in tree_leaves(program(example)) if isinstance(each, torch.Tensor)]
        seen = {
            "pt2_ms": median_ms(lambda: program(example)),
            "onnx_ms": median_ms(lambda: session.run(None, feed)),
            "apart": max(float(abs(a - b).max()) for a, b in zip(answers, session.run(None, feed), strict=True)),
            "ours": [name for name in ("paretoprune", "search", "methods", "spaces", "examples") if find_spec(name)],
        }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
