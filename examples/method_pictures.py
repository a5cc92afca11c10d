"""What each method does, at a glance: the pictures of ``docs/methods``, each of a real trial on the built-in digits.

    python examples/method_pictures.py increg --to increg.png
    python examples/method_pictures.py all --to docs/images

Nothing is downloaded. The dense network is trained once and kept in the run store; a picture takes about a minute.
``--set`` changes the configuration as it does for ``paretoprune sweep``, such as ``--set finetune.epochs=10``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

PICTURES = ("increg", "spp", "sdprun", "eigendamage", "pivoting")
"""Methods, each drawn by the file of its name in ``pictures``. The picture of ``greedy`` is ``greedy_theory.py``."""


def picture(method: str, to: Path, directory: Path, overrides: Sequence[str] = ()) -> Path:
    """Run and draw.

    Args:
        method: One of :data:`PICTURES`.
        to: Where to; ``.png``, ``.svg`` or ``.pdf``.
        directory: The run store.
        overrides: Changes of the configuration.

    Returns:
        Where the picture is.
    """
    from search.report.plots import check_still, save

    check_still(to)
    # Found beside this file, whether it is run or imported.
    package = f"{__package__}.pictures" if __package__ else "pictures"
    return save(import_module(f"{package}.{method}").draw(directory, overrides), to)


def main(method: str, to: Path, directory: Path, overrides: Sequence[str] = ()) -> None:
    """Draw one picture, or all.

    Args:
        method: One of :data:`PICTURES`, or ``"all"``.
        to: Where to; a folder for ``"all"``.
        directory: The run store.
        overrides: Changes of the configuration.
    """
    for name in PICTURES if method == "all" else (method,):
        print(picture(name, to / f"{name}.png" if method == "all" else to, directory, overrides))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("method", choices=(*PICTURES, "all"))
    parser.add_argument("--to", type=Path, required=True, help="the picture; for all of them a folder")
    parser.add_argument("--directory", type=Path, default=Path("mlruns"), help="the run store")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the configuration")
    given = parser.parse_args()
    main(given.method, given.to, given.directory, given.set)
