"""Leagues on one GPU, in pieces of some minutes, several rows at a time; the same command goes on with the rest.

    python benchmarks/gpu_league.py --minutes 11 --workers 2 --data-root data --directory mlruns
    python benchmarks/gpu_league.py --quick       # the same in little, on the digits: a rehearsal, also on the CPU

ResNet-56 and VGG-16 at the FLOPs of published results (2.1, 2.55 and 3.9 times fewer; 58 and 66 % fewer), and
EigenDamage on the four times wider ResNet-32 at eight times fewer. The leagues run side by side, so that one trains
while another is analysed; passes are replayed as CUDA graphs. Tables are written beside the rows.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from search.driver.league import League
from search.report.league import league_table
from search.store.files import write_atomically
from search.study.config import StudyConfig

METHODS = ("magnitude[sparsity.mode=damage]", "increg", "spp", "sdprun", "greedy", "eigendamage", "pivoting")
"""The six, most of which get their widths by measured damage in trials of this length, and L1 with the same widths."""
FAST: dict[str, Any] = {"bf16": True, "channels_last": True, "cuda_graph": True, "batch_size": 256}
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
        little: dict[str, Any] = {"epochs": 1, "recipe": FAST | {"batch_size": 64}}
        fields: dict[str, Any] = {"model": "digits_resnet", "data": "digits", "dense": little, "finetune": little}
    else:
        dense = {"epochs": given.dense_epochs, "recipe": FAST | {"lr": 0.2, "warmup": 0.05}}
        fields = {"model": model, "data": "cifar10", "data_root": given.data_root, "dense": dense}
        fields["finetune"] = {"epochs": given.epochs, "recipe": FAST | {"lr": 0.05}}
    return StudyConfig.model_validate(fields | {"shares": shares, "directory": given.directory})


def run_league(name: str, given: argparse.Namespace, ends: float) -> str:
    """Run what there is time for of one league, and write its table.

    Args:
        name: Which one.
        given: The command line.
        ends: When to stop, in seconds of ``time.time()``.

    Returns:
        How many rows there are, and where.
    """
    model, shares, methods = LEAGUES[name]
    label = f"{name}_rehearsal" if given.quick else name
    league = League(configuration(model, shares, given), methods, label, given.seeds, say=_say)
    rows = league.run((ends - time.time()) / 60, given.workers)
    write_atomically(league.folder / "table.md", league_table(rows, league.describe()))
    return f"{label}: {len(rows)} rows, table in {league.folder / 'table.md'}"


def main() -> None:
    """Run what there is time for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=11, help="pause all rows at their next epoch after so many")
    parser.add_argument("--workers", type=int, default=2, help="rows at a time, in each league")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds")
    parser.add_argument("--epochs", type=float, default=40, help="epochs of every trial")
    parser.add_argument("--dense-epochs", type=float, default=100, help="epochs of the dense network")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="where CIFAR-10 lies")
    parser.add_argument("--directory", type=Path, default=Path("mlruns"), help="the run store")
    parser.add_argument("--only", choices=list(LEAGUES), help="one of the leagues")
    parser.add_argument("--quick", action="store_true", help="a rehearsal on the digits")
    given = parser.parse_args()
    ends = time.time() + 60 * given.minutes
    names = [given.only] if given.only else list(LEAGUES)
    with ProcessPoolExecutor(len(names), mp_context=get_context("spawn")) as pool:
        for said in pool.map(run_league, names, [given] * len(names), [ends] * len(names)):
            _say(said)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
