"""How much faster single convolutions get when they are cut into blocks, and how far that is from what can be.

    python benchmarks/block_layers.py

For the layers of VGG-16 and ResNet-56 for CIFAR, cut into 2 to 16 blocks, inputs with channels last: the fastest of all
ways to run them beside the dense layer in its faster layout, reading the inputs into blocks included. The second table
is a roofline: what arithmetic and traffic of the activations alone would take at the rates that a large convolution and
a copy in memory have here. The time is the thread's own, the shortest of some rounds in turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from methods.pivoting.arrangement import PivotSpec
from methods.pivoting.blocks import keep_blocks
from search.speed.tuner import run_eagerly, time_forms
from search.speed.watches import HostWatch

LAYERS = (
    (64, 64, 32), (64, 128, 16), (128, 128, 16), (128, 256, 8),
    (256, 256, 8), (256, 512, 4), (512, 512, 4), (512, 512, 2),
    (16, 16, 32), (32, 32, 16), (64, 64, 8),
)  # fmt: skip
"""Input channels, output channels and side of the images."""

BLOCKS = (2, 4, 8, 16)
LEAST_SIDE = 16
"""Blocks at least so wide and high are expected to be three quarters as much faster as they are fewer."""


@dataclass(frozen=True)
class Rates:
    """What the machine can do with one thread.

    Attributes:
        arithmetic: Multiply-accumulates in a second, in a dense convolution of 256 to 256 channels.
        traffic: Bytes read or written in a second, in a copy of 64 MiB.
    """

    arithmetic: float
    traffic: float

    def bound(self, macs: float, moved: float) -> tuple[float, float]:
        """Return the least seconds for arithmetic and for traffic."""
        return macs / self.arithmetic, moved / self.traffic


def find_shortest_time(run: Callable[[], object], rounds: int = 9) -> float:
    """Return the shortest time of a run on this thread."""
    run()
    best = float("inf")
    for _ in range(rounds):
        start = time.thread_time()
        run()
        best = min(best, time.thread_time() - start)
    return best


def rates() -> Rates:
    """Measure the machine."""
    layer = nn.Conv2d(256, 256, 3, padding=1).eval().to(memory_format=torch.channels_last)
    images = torch.randn(16, 256, 16, 16).contiguous(memory_format=torch.channels_last)
    source, sink = torch.randn(2**24), torch.empty(2**24)
    with torch.inference_mode():
        convolution, copy = find_shortest_time(lambda: layer(images)), find_shortest_time(lambda: sink.copy_(source))
    return Rates(9 * 256**2 * images[:, 0].numel() / convolution, 2 * source.numel() * source.element_size() / copy)


@dataclass(frozen=True)
class Cut:
    """A layer in blocks.

    Attributes:
        inputs: Input channels.
        outputs: Output channels.
        side: Side of the images.
        blocks: Number of blocks.
        dense: Seconds of the dense layer.
        seconds: Seconds of the blocks, run in the fastest way.
        way: Its name.
    """

    inputs: int
    outputs: int
    side: int
    blocks: int
    dense: float
    seconds: float
    way: str

    @property
    def layer(self) -> str:
        """How the layer is written."""
        return f"{self.inputs} to {self.outputs}, {self.side}x{self.side}"

    @property
    def narrow(self) -> bool:
        """Whether blocks are so narrow that nothing is expected of them."""
        return min(self.inputs, self.outputs) < self.blocks * LEAST_SIDE

    @property
    def cell(self) -> str:
        """How many times faster the blocks are."""
        times = self.dense / self.seconds
        if self.narrow:
            return f"({times:.1f})"
        return f"*{times:.1f}*" if times < 0.75 * self.blocks else f"{times:.1f}"


def measure_layer(inputs: int, outputs: int, side: int, blocks: int, batch: int) -> Cut:
    """Time a layer, dense and in blocks.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        side: Side of the images.
        blocks: Number of blocks.
        batch: Images.

    Returns:
        The times.
    """
    # Inputs lie as the layer before leaves them where orders are folded: in a perfect shuffle.
    spec = PivotSpec(torch.arange(inputs).reshape(-1, blocks).T, torch.arange(blocks), torch.arange(outputs))
    layer = keep_blocks(nn.Conv2d(inputs, outputs, 3, padding=1), spec).eval()
    images = torch.randn(batch, inputs, side, side).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        timing = time_forms(layer, (), images, run_eagerly, HostWatch(threads=1))
    dense = min(seconds for name, seconds in timing.seconds.items() if name.startswith("masked"))
    others = {name: seconds for name, seconds in timing.seconds.items() if not name.startswith("masked")}
    way = min(others, key=lambda name: others[name])
    return Cut(inputs, outputs, side, blocks, dense, others[way], way)


def linear(features: int, blocks: int, batch: int) -> tuple[float, float]:
    """Time a linear layer, dense and in blocks.

    Args:
        features: Inputs and outputs.
        blocks: Number of blocks.
        batch: Inputs.

    Returns:
        Seconds of the dense layer and of the blocks.
    """
    spec = PivotSpec(torch.arange(features).reshape(blocks, -1), torch.arange(blocks), torch.arange(features))
    layer = keep_blocks(nn.Linear(features, features), spec).eval()
    timing = time_forms(layer, (), torch.randn(batch, features), run_eagerly, HostWatch(threads=1))
    return timing.seconds["masked"], timing.seconds["bmm"]


def roofline(cuts: list[Cut], batch: int, machine: Rates) -> None:
    """Print what limits each layer."""
    print("\n| layer | blocks | ms | arithmetic alone | traffic alone | GFLOP/s | way |")
    print("|---" * 7 + "|")
    for cut in cuts:
        pixels = cut.side**2 * batch
        macs, moved = 9 * cut.inputs * cut.outputs * pixels // cut.blocks, 4 * (cut.inputs + cut.outputs) * pixels
        least = " | ".join(f"{1e3 * seconds:.2f}" for seconds in machine.bound(macs, moved))
        shown = f"{cut.layer} | {cut.blocks} | {1e3 * cut.seconds:.2f} | {least}"
        print(f"| {shown} | {2e-9 * macs / cut.seconds:.0f} | {cut.way} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    machine = rates()
    rate, traffic = 2e-9 * machine.arithmetic, 1e-9 * machine.traffic
    print(f"{rate:.0f} GFLOP/s in a dense convolution of 256 to 256 channels, {traffic:.1f} GB/s in a copy\n")
    print("| 3x3 convolution | dense | " + " | ".join(f"{blocks} blocks" for blocks in BLOCKS) + " |")
    print("|---" * (2 + len(BLOCKS)) + "|")
    found: list[Cut] = []
    for inputs, outputs, side in LAYERS:
        sensible = [blocks for blocks in BLOCKS if min(inputs, outputs) >= blocks * LEAST_SIDE // 2]
        cuts = [measure_layer(inputs, outputs, side, blocks, asked.batch) for blocks in sensible]
        cells = [f"{1e3 * min(cut.dense for cut in cuts):.1f} ms", *(cut.cell for cut in cuts)]
        cells += [""] * (len(BLOCKS) - len(cuts))
        print(f"| {cuts[0].layer} | " + " | ".join(cells) + " |", flush=True)
        found += cuts
    roofline(found, asked.batch, machine)
    dense, eight = linear(1024, 8, 256)
    print(f"\nlinear 1024 to 1024, 256 inputs: dense {1e3 * dense:.2f} ms, 8 blocks {dense / eight:.1f} times faster")


if __name__ == "__main__":
    main()
