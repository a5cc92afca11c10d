"""Does time fall as multiply-accumulates do: pivoted, channel-pruned, masked and sparse networks beside the dense one.

    python benchmarks/linear_speedup.py speedup.jsonl --minutes 9
    python benchmarks/linear_speedup_report.py speedup.jsonl --plot docs/images/linear_speedup.png

VGG-16 and ResNet-56 for CIFAR at 2, 4 and 8 times fewer multiply-accumulates, batches of 1 and 64, on every target.
A line of the file is one measurement: all variants of one network, batch, target and saving, timed in turns with the
dense network. What the file has is not measured again, so a measurement can be done in pieces.

Weights are random: time depends on shapes alone. Variants:

* ``dense``: the network as it is. All ratios are to this one.
* ``dense, prepared``: batch norms folded, and channels last in memory if that is faster.
* ``channels``: whole channels removed by L1 norm, widths in multiples of 8; prepared alike.
* ``pivoted``: blocks, at random places; prepared alike, and every layer run in the way measured to be fastest.
* ``both``: channels of early layers do a quarter of the reduction (of its logarithm), then blocks the rest.
* ``masked``: the network of ``pivoted`` with zeros in dense layers instead of blocks; prepared alike.
* ``bsr``: the same blocks as block-compressed sparse matrices times unfolded inputs.
* ``csr``: single weights as compressed sparse rows, as many as the blocks have.

The last three are left out where blocks cannot reach the saving, and ``pivoted`` has removed channels alone.
On compiled targets and in ONNX Runtime "prepared" is what the compiler does, and the sparse variants do not run.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from math import gcd
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.contract.method import Problem
from methods.contract.recipe import Recipe
from methods.magnitude import Magnitude
from methods.network.cost import count
from methods.network.folding import fold_norms
from methods.pivoting.blocks import Pivoted, PivotedConv2d, PivotedLinear, dense
from methods.pivoting.method import Pivoting
from search.records.environment import versions
from search.speed.conditions import Conditions
from search.speed.interleaved import Effort, Run, time_until_steady
from search.speed.measure import turn
from search.speed.targets import make_noise_like, prepare, threads_of, watch
from search.speed.tuner import find_tunable_layers, run_eagerly, tune
from search.tasks.models import build_model
from spaces import FlopsTarget

NETWORKS = ("vgg16", "resnet56")
BATCHES = (64, 1)
SAVINGS = (2, 4, 8)
SHAPE = (3, 32, 32)
CLASSES = 10
MIN_SIDE = {"vgg16": 16, "resnet56": 8}
"""Blocks are at least so wide; the stages of ResNet-56 have 16, 32 and 64 channels."""

TILT = 1.0
"""Blocks of deep layers are smaller than those of early ones, where narrow blocks gain little time."""

HEAP = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**28)}
"""Parameters of glibc's ``mallopt`` and their values: a heap that gives nothing back to the system."""

EFFORT = Effort(seconds=2.0, least_rounds=5, most_rounds=25, attempts=2)
SPARSE_EFFORT = Effort(seconds=1.0, least_rounds=2, most_rounds=9, attempts=1)
"""Sparse matrices are many times slower than anything else, and few rounds tell."""


class ThreadWatch:
    """Time of the thread that runs: on a shared core, what others take away is not counted.

    The timer of torch warms up by two runs before each measurement; for passes of a fifth of a second one is enough.
    """

    def seconds(self, run: Run, times: int) -> float:
        """Time a run."""
        run()
        start = time.thread_time()
        for _ in range(times):
            run()
        return (time.thread_time() - start) / times


@dataclass(frozen=True)
class Noise:
    """Images of noise: methods want data, and with no steps of training look at them alone.

    Attributes:
        examples: How many.
    """

    examples: int = 256

    def to(self, device: str) -> Noise:
        """Return itself."""
        return self

    def steps(self, batch_size: int) -> int:
        """Return the length of an epoch."""
        return max(1, self.examples // batch_size)

    def epoch(self, batch_size: int, seed: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of noise."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(start, self.steps(batch_size)):
            images = torch.randn(batch_size, *SHAPE, generator=generator)
            yield images, torch.randint(0, CLASSES, (batch_size,), generator=generator)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all of them once."""
        yield from self.epoch(self.examples, 0)


class SparseLayer(nn.Module):
    """A layer of blocks as a sparse matrix times its (unfolded) inputs.

    Args:
        layer: The layer of blocks.
        kind: ``"bsr"``: the blocks, inputs read in their order; ``"csr"``: as many single weights, the largest
            ones of a random dense layer.
    """

    matrix: Tensor

    def __init__(self, layer: Pivoted, kind: str) -> None:
        super().__init__()
        self.layer, self.kind = layer, kind
        arrangement = layer.arrangement
        if kind == "bsr":
            pieces = layer.weight.detach().reshape(arrangement.blocks, arrangement.height, -1)
            columns = torch.arange(pieces.shape[0] * pieces.shape[2]).reshape(pieces.shape[0], -1)
            whole = torch.zeros(arrangement.outputs, columns.numel())
            clusters = arrangement.spec().clusters.tolist()
            for cluster, where, piece in zip(clusters, columns, pieces, strict=True):
                whole[cluster * arrangement.height :][: arrangement.height, where] += piece
            side = gcd(arrangement.height, pieces.shape[2])  # MKL knows square blocks only
            self.register_buffer("matrix", whole.to_sparse_bsr((side, side)))
        else:
            whole = torch.randn(dense(layer).weight.shape, generator=torch.Generator().manual_seed(0)).flatten(1)
            left = layer.weight.numel()
            whole[whole.abs() < whole.abs().flatten().topk(left).values[-1]] = 0
            self.register_buffer("matrix", whole.to_sparse_csr())

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        layer = self.layer
        inputs = layer.arrangement.read(x, 1) if self.kind == "bsr" else x
        if isinstance(layer, PivotedLinear):
            y = (self.matrix @ inputs.T).T
            return y if layer.bias is None else y + layer.bias
        assert not isinstance(layer.padding, str)
        pixels = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        y = self.matrix @ pixels.transpose(0, 1).flatten(1)
        sides = [
            (side + 2 * pad - kernel) // stride + 1
            for side, pad, kernel, stride in zip(
                x.shape[2:], layer.padding, layer.kernel_size, layer.stride, strict=True
            )
        ]
        y = y.reshape(-1, len(x), *sides).transpose(0, 1)
        return y if layer.bias is None else y + layer.bias[:, None, None]


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        network: Name of the network.
        saving: How many times fewer multiply-accumulates.
        batch: Inputs in one forward pass.
        target: Where.
    """

    network: str
    saving: int
    batch: int
    target: str


def replace_blocks(model: nn.Module, new: Callable[[Pivoted], nn.Module]) -> nn.Module:
    """Replace every layer of blocks.

    Args:
        model: A network in eval mode; changed in place.
        new: Makes the replacement.

    Returns:
        The network.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, PivotedConv2d | PivotedLinear)}
    for name, layer in layers.items():
        model.set_submodule(name, new(layer).eval())
    return model


def make_pruned(network: str, saving: int) -> dict[str, nn.Module]:
    """Prune a network with random weights.

    Args:
        network: Its name.
        saving: How many times fewer multiply-accumulates.

    Returns:
        The dense network, and those without channels, of blocks, and both.
    """
    model = build_model(network, CLASSES, (1, *SHAPE), seed=0).eval()
    target = FlopsTarget(mode="flops", flops=1 / saving)
    blocks = target.model_copy(update={"tilt": TILT})
    alone = Pivoting(sparsity=blocks, mode="random_mask", min_side=MIN_SIDE[network], round_to=8)
    ways = {
        "channels": Magnitude(sparsity=target, round_to=8),
        "pivoted": alone,
        "both": alone.model_copy(update={"channel_share": 0.25, "channel_tilt": -1.0}),
    }
    found = {"dense": model}
    for name, method in ways.items():
        generator = torch.Generator().manual_seed(0)
        problem = Problem(
            model, torch.zeros(1, *SHAPE), Noise(), Noise(), Recipe(recalibrate=1), steps=0, generator=generator
        )
        found[name] = method.prune(problem).model.eval()
    return found


def variants(case: Case, networks: dict[str, nn.Module]) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """Prepare all that is timed.

    Args:
        case: What is measured.
        networks: What :func:`make_pruned` gave.

    Returns:
        Networks by variant, and what was decided about them.
    """
    blocks = networks["pivoted"]
    masked = {"masked": replace_blocks(fold_norms(blocks), dense)} if find_tunable_layers(blocks) else {}
    if case.target not in ("cpu", "cuda-eager", "cuda"):
        return {**networks, **masked}, {}
    device = "cpu" if case.target == "cpu" else "cuda"
    example = make_noise_like(torch.zeros(1, *SHAPE), case.batch).to(device)
    ready, decisions = {}, {}
    plain = {f"{name}, prepared" if name == "dense" else name: fold_norms(model) for name, model in networks.items()}
    for name, model in {**plain, **masked}.items():
        clock = watch(case.target, torch.get_num_threads())
        ready[name], _, decision = tune(
            model.to(device).eval(), example, run_eagerly, partial(run_eagerly, inputs=example), clock, (False, True)
        )
        decisions[name] = decision.to_json()
    return {"dense": networks["dense"], **ready}, decisions


def make_sparse_variants(blocks: nn.Module) -> dict[str, nn.Module]:
    """Put sparse matrices in place of blocks.

    Args:
        blocks: A network of blocks.

    Returns:
        Networks by kind of matrix.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (BSR|CSR) tensor support is in beta state")
        return {kind: replace_blocks(fold_norms(blocks), partial(SparseLayer, kind=kind)) for kind in ("bsr", "csr")}


def prepare_plainly(model: nn.Module, example: Tensor, setting: Conditions) -> Run:
    """Make a forward pass of a network with sparse tensors, which cannot be copied as targets do."""
    inputs = make_noise_like(example, setting.batch_size)

    def run() -> object:
        with torch.inference_mode():
            return model(inputs)

    return run


def measure_case(case: Case, networks: dict[str, nn.Module], threads: int) -> dict[str, Any]:
    """Time all variants in turns.

    Args:
        case: What is measured.
        networks: What :func:`make_pruned` gave.
        threads: Threads on the CPU.

    Returns:
        A line of the file.
    """
    setting = Conditions((case.target,), case.batch, threads)
    example = torch.zeros(1, *SHAPE)
    flops = {name: count(model, example).flops for name, model in networks.items()}
    with turn(), threads_of(setting):
        ready, decisions = variants(case, networks)
        sparse = (
            make_sparse_variants(networks["pivoted"])
            if case.target == "cpu" and find_tunable_layers(networks["pivoted"])
            else {}
        )
        clock = ThreadWatch() if threads == 1 and not case.target.startswith("cuda") else watch(case.target, threads)
        runs = [prepare(case.target, model, example, setting) for model in ready.values()]
        samples = time_until_steady(clock, runs, EFFORT)
        slow = [runs[0], *(prepare_plainly(model, example, setting) for model in sparse.values())]
        slow_samples = time_until_steady(clock, slow, SPARSE_EFFORT) if sparse else []
    return {
        **case.__dict__,
        "threads": threads,
        "flops": flops
        | dict.fromkeys(("masked", "bsr", "csr"), flops["pivoted"])
        | {"dense, prepared": flops["dense"]},
        "seconds": dict(zip(ready, samples, strict=True)),
        "sparse_seconds": dict(zip(["dense", *sparse], slow_samples, strict=bool(sparse))),
        "decisions": decisions,
        "machine": {"processor": platform.processor(), "vectors": torch.backends.cpu.get_cpu_capability()},
        "versions": versions(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }


def keep_heap() -> None:
    """Let activations be allocated from memory that the process already has.

    Whether glibc gives 16 MB of activations back to the system, and asks for them again in the next pass, depends on
    what was allocated before, and costs up to a tenth of a pass: the same network would be timed differently.

    Raises:
        RuntimeError: If glibc refuses.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for name, (parameter, value) in HEAP.items():
        if libc.mallopt(parameter, value) != 1:
            raise RuntimeError(f"mallopt refused {name} = {value}")


def measure(asked: argparse.Namespace) -> None:
    """Measure what the file does not have yet."""
    end = time.monotonic() + 60 * asked.minutes
    lines = read(asked.file)
    known = {(line["network"], line["saving"], line["batch"], line["target"]) for line in lines}
    for network in asked.networks.split(","):
        pruned_to = cache(partial(make_pruned, network))
        for target in asked.targets.split(","):
            for batch in map(int, asked.batches.split(",")):
                for saving in map(int, asked.savings.split(",")):
                    case = Case(network, saving, batch, target)
                    if tuple(case.__dict__.values()) in known:
                        continue
                    if time.monotonic() > end:
                        print("time is up; go on with the same command")
                        return
                    line = measure_case(case, pruned_to(saving), asked.threads)
                    with asked.file.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
                    print(summary(line), flush=True)


def read(file: Path) -> list[dict[str, Any]]:
    """Read the measurements of a file, if it is there."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def summary(line: dict[str, Any]) -> str:
    """Write a measurement in one line."""
    times = line["sparse_seconds"] | line["seconds"]
    shown = [f"{variant} {1e3 * median(seconds):.2f} ms" for variant, seconds in times.items()]
    return f"{line['network']} {line['saving']}x batch {line['batch']} {line['target']}: " + "; ".join(shown)


def main() -> None:
    """Measure what the file does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="where measurements are added, one a line")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="with commas")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)), help="with commas")
    parser.add_argument("--savings", default=",".join(map(str, SAVINGS)), help="with commas")
    parser.add_argument("--targets", default="cpu,cpu-compiled,onnxruntime", help="with commas")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=9.0, help="begin nothing new after so many")
    asked = parser.parse_args()
    keep_heap()
    measure(asked)


if __name__ == "__main__":
    main()
