"""In which steps of width a convolution gets cheaper, on this machine.

    python benchmarks/channel_steps.py --json channel_steps.json

A convolution of ``w`` to ``w`` channels with batch norm and ReLU, for widths around 32, on the targets that are there.
All widths take turns in one measurement (``search.speed.interleaved``). For each step 4, 8 and 16 the table says
what rounding a width up to the next multiple costs on average (0 %: channels up to there are free), and what rounding
it down saves: the step to take is the largest one whose rounding up is nearly free, and anything narrower wastes
channels without gaining time.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, median

import torch
from torch import nn

from search.records.environment import versions
from search.speed.conditions import Conditions
from search.speed.interleaved import Effort, time_until_steady
from search.speed.measure import turn
from search.speed.targets import prepare, threads_of, watch

WIDTHS = range(16, 49, 2)
STEPS = (4, 8, 16)
SIDE = 16
EFFORT = Effort(seconds=3.0, block=0.004, most_rounds=15, attempts=2)


def layer(width: int, kernel: int) -> nn.Module:
    """Build the layer.

    Args:
        width: Channels in and out.
        kernel: Side of the kernel.

    Returns:
        Convolution, norm and activation.
    """
    convolution = nn.Conv2d(width, width, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU()).eval()


def seconds(target: str, kernel: int, batch: int, threads: int) -> dict[int, float]:
    """Time all widths in turns.

    Args:
        target: Where.
        kernel: Side of the kernel.
        batch: Images.
        threads: Threads on the CPU.

    Returns:
        Median seconds by width.
    """
    setting = Conditions((target,), batch, threads)
    with turn(), threads_of(setting):
        runs = [prepare(target, layer(w, kernel), torch.zeros(1, w, SIDE, SIDE), setting) for w in WIDTHS]
        samples = time_until_steady(watch(target, threads), runs, EFFORT)
    return {width: median(rounds) for width, rounds in zip(WIDTHS, samples, strict=True)}


def rounding(times: Mapping[int, float], step: int) -> tuple[float, float]:
    """Say what rounding widths to multiples of a step does.

    Args:
        times: Seconds by width.
        step: The step.

    Returns:
        Mean change of the time, as a share, of widths between multiples when they are rounded up, and down.
    """
    between = [width for width in times if width % step and width // step * step in times]
    up = [times[-(-width // step) * step] / times[width] - 1 for width in between]
    down = [times[width // step * step] / times[width] - 1 for width in between]
    return (fmean(up), fmean(down)) if between else (0.0, 0.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default="cpu,onnxruntime", help="with commas")
    parser.add_argument("--batches", default="1,64", help="with commas")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows = []
    print(f"{'target':<14}{'kernel':>7}{'batch':>7}" + "".join(f"{f'step {step}: up, down':>22}" for step in STEPS))
    for target in asked.targets.split(","):
        for kernel in (3, 1):
            for batch in map(int, asked.batches.split(",")):
                times = seconds(target, kernel, batch, asked.threads)
                steps = {step: rounding(times, step) for step in STEPS}
                shown = "".join(f"{f'{up:+.0%}, {down:+.0%}':>22}" for up, down in steps.values())
                print(f"{target:<14}{kernel:>7}{batch:>7}{shown}", flush=True)
                rows.append({"target": target, "kernel": kernel, "batch": batch, "seconds": times, "steps": steps})
    if asked.json is not None:
        capability = torch.backends.cpu.get_cpu_capability()
        record = {"machine": platform.processor(), "vectors": capability, "versions": versions(), "rows": rows}
        asked.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
