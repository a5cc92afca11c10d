"""A sweep from Python: run, filter the front, take a network out.

python examples/from_python.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from paretoprune import Sweep, load_config


def main(directory: Path, trials: int = 6) -> None:
    """Sweep the digits in this process and use the knee of the front.

    Args:
        directory: The run store.
        trials: How many trials.
    """
    config = load_config(
        None,
        ["finetune.epochs=3"],
        trials=trials,
        methods=("magnitude", "random"),
        executor="inline",
        directory=directory,
    )
    front = Sweep(config).run()
    print(front.filter(max_flops="50%").table()[["trial", "method", "accuracy", "flops_share"]])
    knee = front.knee()
    parameters = sum(p.numel() for p in knee.model().parameters())
    print(f"knee: trial {knee.trial}, {parameters} parameters, accuracy {knee.accuracy:.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("mlruns"))
