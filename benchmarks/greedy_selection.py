"""Greedy selection: how much faster the fast path is than the plain loop, and whether it chooses the same.

    python benchmarks/greedy_selection.py --json docs/results/greedy_selection.json

The plain loop runs the whole network (hooks put the mask in place) once per candidate. The fast path keeps what
lies before the mask, updates what the consumer computes by rank one, and runs what comes behind it for several
candidates at once, small maps with fewer products. Both are timed in turns, in float32, on the steps of one and the
same selection; with one thread by the processor's time of that thread, which neighbours do not change much. Choices
are compared in float64: the same channels in the same order, exactly.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

from methods.greedy.forward_selection import RULES, forward_selection
from methods.greedy.masked_network import MaskedNetwork, Replay, WholeNetwork, build_masked_network, follow
from methods.greedy.selection import MaskedLoss
from methods.network.channels import channel_groups
from search.tasks.models.vgg import vgg16

MIDDLE = ("features.24", "features.27", "features.30")
"""The fourth of five stages of VGG-16: three layers of 512 channels, at 4x4 pixels of a 32x32 image."""


class OneByOne:
    """The plain loop: one pass of the whole network per candidate.

    Args:
        network: The whole network.
    """

    def __init__(self, network: WholeNetwork) -> None:
        self._network = network
        self.load, self.logits = network.load, network.logits

    def run_candidates(
        self, mask: Tensor, candidates: Tensor, keep: Tensor, add: Tensor, at_once: int
    ) -> Iterator[Tensor]:
        """Run under a step towards each candidate, one after the other.

        Args:
            mask: ``[units]``.
            candidates: ``[candidates]``.
            keep: ``[candidates]``.
            add: ``[candidates]``.
            at_once: Not used.

        Returns:
            ``[1, batch, classes]`` for each candidate.
        """
        return self._network.run_candidates(mask, candidates, keep, add, 1)


def run(network: MaskedNetwork, batch: tuple[Tensor, Tensor], units: int, steps: int, candidates: int) -> list[int]:
    """Select some channels.

    Args:
        network: The network as a function of the mask.
        batch: Images and labels.
        units: Channels of the layer.
        steps: How many are selected.
        candidates: How many are tried each time.

    Returns:
        The channels, in the order in which they were chosen.
    """

    def objective(step: int) -> MaskedLoss:
        network.load(batch[0])
        return MaskedLoss(network, batch[1])

    generator = torch.Generator().manual_seed(0)
    found = forward_selection(objective, units, RULES["uniform_norepeat"], candidates, generator)
    return [step.unit for step in islice(found, steps)]


@dataclass(frozen=True)
class Row:
    """What was measured on one layer.

    Attributes:
        layer: Its name.
        channels: Its width.
        plain: Seconds of each repetition of the plain loop.
        fast: Seconds of each repetition of the fast path.
        same_order: Whether both chose the same channels in the same order, in float64.
    """

    layer: str
    channels: int
    plain: list[float]
    fast: list[float]
    same_order: bool

    @property
    def speedup(self) -> float:
        """Ratio of medians."""
        return statistics.median(self.plain) / statistics.median(self.fast)


def measure(name: str, arguments: argparse.Namespace) -> Row:
    """Compare the two ways on one layer.

    Args:
        name: The layer.
        arguments: Sizes.

    Returns:
        What was measured.
    """
    model = vgg16(10).to(arguments.device).eval()
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(arguments.batch, 3, 32, 32, generator=generator).to(arguments.device)
    labels = torch.randint(10, (arguments.batch,), generator=generator).to(arguments.device)
    groups = {group.name: group for group in channel_groups(model, inputs[:1])}
    if name not in groups:
        raise SystemExit(f"no such layer: {name} (known: {', '.join(groups)})")
    group = groups[name]
    seconds: dict[str, list[float]] = {"plain": [], "fast": []}
    fast = build_masked_network(model, follow(model), group, inputs)
    assert isinstance(fast, Replay), "VGG-16 can be followed"
    ways: dict[str, MaskedNetwork] = {"fast": fast, "plain": OneByOne(WholeNetwork(model, group))}
    clock = time.thread_time if arguments.threads == 1 and not inputs.is_cuda else time.perf_counter
    for repetition in range(arguments.repeats + 1):
        for way, network in ways.items():
            network.load(inputs[:1])  # so that the prefix is part of what is timed
            started = clock()
            run(network, (inputs, labels), group.channels, arguments.steps, arguments.candidates)
            if inputs.is_cuda:
                torch.cuda.synchronize()
            if repetition:  # the first one warms up
                seconds[way].append(clock() - started)
    return Row(name, group.channels, seconds["plain"], seconds["fast"], is_identical(name, arguments))


def is_identical(name: str, arguments: argparse.Namespace) -> bool:
    """Compare the choices in float64.

    Args:
        name: The layer.
        arguments: Sizes.

    Returns:
        Whether both ways choose the same channels in the same order.
    """
    model = vgg16(10).double().to(arguments.device).eval()
    generator = torch.Generator().manual_seed(2)
    count = min(arguments.batch, arguments.exact_batch)
    inputs = torch.randn(count, 3, 32, 32, generator=generator, dtype=torch.float64).to(arguments.device)
    labels = torch.randint(10, (count,), generator=generator).to(arguments.device)
    group = next(group for group in channel_groups(model, inputs[:1]) if group.name == name)
    ways: list[MaskedNetwork] = [
        build_masked_network(model, follow(model), group, inputs),
        OneByOne(WholeNetwork(model, group)),
    ]
    sizes = (group.channels, arguments.exact_steps, arguments.exact_candidates)
    fast, plain = (run(network, (inputs, labels), *sizes) for network in ways)
    return fast == plain


def main() -> None:
    """Measure, print, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", default=list(MIDDLE), help="convolutions of VGG-16")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--exact-batch", type=int, default=16, help="images of the comparison in float64")
    parser.add_argument("--exact-steps", type=int, default=12)
    parser.add_argument("--exact-candidates", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = []
    for name in arguments.layers:
        found.append(row := measure(name, arguments))
        times = f"{statistics.median(row.plain):.1f} s, {statistics.median(row.fast):.2f} s"
        print(f"{name}: {row.speedup:.1f} times faster ({times}), same order in float64: {row.same_order}", flush=True)
    plain, fast = (sum(map(statistics.median, times)) for times in ([r.plain for r in found], [r.fast for r in found]))
    print(f"together: {plain / fast:.1f} times faster")
    if arguments.json:
        record = {
            "command": " ".join(sys.argv),
            "machine": machine(arguments.device),
            "threads": arguments.threads,
            "clock": "processor" if arguments.threads == 1 and arguments.device == "cpu" else "wall",
            "batch": arguments.batch,
            "candidates": arguments.candidates,
            "steps": arguments.steps,
            "layers": [{**asdict(row), "speedup": row.speedup} for row in found],
            "speedup_together": plain / fast,
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def machine(device: str) -> dict[str, str]:
    """Describe where it ran.

    Args:
        device: The torch device.

    Returns:
        Processor, device and versions.
    """
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
