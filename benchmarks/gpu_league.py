"""Leagues on one GPU, in pieces of some minutes, several rows at a time; the same command goes on with the rest.

    python benchmarks/gpu_league.py --minutes 12 --workers 3 --data-root data --directory mlruns
    python benchmarks/gpu_league.py --quick       # the same in little, on the built-in digits: a rehearsal on the CPU

ResNet-56 and VGG-16 at the FLOPs of published results (2.1, 2.55 and 3.9 times fewer; 58 and 66 % fewer), and
EigenDamage on the four times wider ResNet-32 at eight times fewer. Tables are written beside the rows.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from search.driver.league import League
from search.report.league import league_table
from search.store.files import write_atomically
from search.study.config import StudyConfig

METHODS = ("magnitude[sparsity.mode=damage]", "increg", "spp", "sdprun", "greedy", "eigendamage", "pivoting")
"""The six, most of which get their widths by measured damage in trials of this length, and L1 with the same widths."""
PRECISE: dict[str, Any] = {"bf16": True, "channels_last": True}
LEAGUES: dict[str, tuple[str, tuple[float, ...], tuple[str, ...]]] = {
    "gpu_resnet56": ("resnet56", (1 / 2.1, 1 / 2.55, 1 / 3.9), METHODS),
    "gpu_vgg16": ("vgg16", (0.42, 0.34), METHODS),
    "gpu_resnet32_wide": ("resnet32_wide", (0.125,), ("eigendamage", "eigendamage[variant=eigendamage_ek]")),
}


def configuration(model: str, shares: tuple[float, ...], given: argparse.Namespace) -> StudyConfig:
    """Say what one league compares.

    Args:
        model: The network.
        shares: Shares of the FLOPs.
        given: The command line.

    Returns:
        CIFAR-10 with 100 epochs for the dense network and 40 for every trial; digits with one of each for a rehearsal.
    """
    if given.quick:
        little: dict[str, Any] = {"epochs": 1}
        fields: dict[str, Any] = {"model": "digits_resnet", "data": "digits", "dense": little, "finetune": little}
        fields["resources"] = {"gpus_per_trial": 0}
    else:
        dense = {"epochs": given.dense_epochs, "recipe": PRECISE}
        fields = {"model": model, "data": "cifar10", "data_root": given.data_root, "dense": dense}
        fields["finetune"] = {"epochs": given.epochs, "recipe": PRECISE | {"lr": 0.05}}
    return StudyConfig.model_validate(fields | {"shares": shares, "directory": given.directory})


def main() -> None:
    """Run what there is time for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=12, help="begin no row after so many")
    parser.add_argument("--workers", type=int, default=3, help="rows at a time")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds")
    parser.add_argument("--epochs", type=float, default=40, help="epochs of every trial")
    parser.add_argument("--dense-epochs", type=float, default=100, help="epochs of the dense network")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="where CIFAR-10 lies")
    parser.add_argument("--directory", type=Path, default=Path("mlruns"), help="the run store")
    parser.add_argument("--only", choices=list(LEAGUES), help="one of the leagues")
    parser.add_argument("--quick", action="store_true", help="a rehearsal on the digits")
    given = parser.parse_args()
    ends = time.monotonic() + 60 * given.minutes
    for name, (model, shares, methods) in LEAGUES.items():
        left = (ends - time.monotonic()) / 60
        if left <= 0 or given.only not in (None, name):
            continue
        label = f"{name}_rehearsal" if given.quick else name
        league = League(configuration(model, shares, given), methods, label, given.seeds, say=_say)
        rows = league.run(left, given.workers)
        write_atomically(league.folder / "table.md", league_table(rows, league.describe()))
        _say(f"{label}: {len(rows)} rows, table in {league.folder / 'table.md'}")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
