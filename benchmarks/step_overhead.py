"""Time of a training step with a method that prunes while it trains, over the plain step.

    python benchmarks/step_overhead.py --batch 128 --steps 40 --json step_overhead.json

ResNet-20 on synthetic images of CIFAR's shape. Every method prunes as it always does, through its own ``prune``;
what is measured is the time between handing out one batch and being asked for the next: forward, backward, the
optimiser and all that the method adds. The data hold the reins, so that steps of all methods and plain steps take
turns within one process, one after the other, in an order that is drawn anew each round. A ratio is that of two steps
of the same round. Two plain trainings take part: the ratio of one to the other, which should be 1, shows how far
the others can be trusted. On a busy machine the processor's time says more than the clock's; both are reported.
All trainings share one heap that never shrinks: with glibc's heap for every thread, memory that goes back to the system
and is asked for again makes the steps of one thread dearer than those of another, by up to a tenth.
What the methods add does not depend on the batch, so on a machine that is too busy for ratios the milliseconds that
they add (``added``) can be measured with ``--batch 8``, and be set against the plain step of a larger batch.

Before anything is measured, each training goes through its first steps on tiny images, until a good part of its
removals is done: the steps that are measured have everything to do that the method ever does in a step, but the
cut itself.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import sub
from pathlib import Path

import torch
from torch import Tensor, nn

from methods import load_method
from methods.contract.method import Problem
from methods.contract.recipe import Recipe
from methods.training.trainer import Trainer
from search.records.environment import versions
from search.tasks.models import build_model

Batch = tuple[Tensor, Tensor]

SHAPE = (3, 32, 32)
CLASSES = 10
BUDGET = 3900
"""Steps: the default on CIFAR, ten epochs. Half of it is for removals."""
ADVANCE = 1000
"""Steps that are not measured by default: half of the time for removals."""
TINY = 2, 8
"""Images of a batch, and their side, of these steps."""
WARM = 3
"""Rounds that are thrown away."""


HEAP = {"M_ARENA_MAX": (-8, 1), "M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**28)}
"""Parameters of glibc's ``mallopt`` and their values: one heap for all threads, which gives nothing back."""


class Enough(Exception):
    """The data end the training that asks for them."""


class Rein:
    """Training data of one training, which takes as many steps as it is told and measures them.

    Args:
        images: The one batch, which is handed out again and again.
        labels: Its labels.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self._full = images, labels
        count, side = TINY
        self._tiny = images[:count, :, :side, :side].contiguous(), labels[:count]
        self._order, self._answer = threading.Semaphore(0), threading.Semaphore(0)
        self._wanted: int | None = None
        self._measured = False
        self._took = (0.0, 0.0)

    @property
    def examples(self) -> int:
        """How many examples there seem to be."""
        return BUDGET * len(self._full[1])

    def to(self, device: str) -> Rein:
        """Return itself; the batch is where it belongs."""
        return self

    def steps(self, batch_size: int) -> int:
        """Return the length of an epoch: the whole budget, so that none ends in between."""
        return BUDGET

    def epoch(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batch when it is time, and measure until the next one is asked for."""
        while True:
            self._order.acquire()
            if self._wanted is None:
                raise Enough
            _finish(self._full[0])
            clock, processor = time.perf_counter(), time.process_time()
            for _ in range(self._wanted):
                yield self._full if self._measured else self._tiny
            _finish(self._full[0])
            self._took = (time.perf_counter() - clock, time.process_time() - processor)
            self._answer.release()

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield one tiny batch, as validation data."""
        yield self._tiny

    def go(self, steps: int, measured: bool = True) -> tuple[float, float]:
        """Let the training take steps.

        Args:
            steps: How many.
            measured: Whether they are full steps.

        Returns:
            Seconds by the clock and of the processor.
        """
        self._wanted, self._measured = steps, measured
        self._order.release()
        self._answer.acquire()
        return self._took

    def stop(self) -> None:
        """End the training."""
        self._wanted = None
        self._order.release()

    def give_up(self) -> None:
        """Wake whoever waits for a training that has failed."""
        self._answer.release()


def _finish(tensor: Tensor) -> None:
    """Wait for the device."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


@dataclass
class Arm:
    """One training among those that take turns.

    Attributes:
        name: What it is.
        train: Runs it to the end, given its data.
        rein: Its data.
        limit: The largest median that is wanted; None if there is none.
        clock: Seconds of each turn by the clock.
        processor: Seconds of each turn of the processor.
        failure: What ended it, but for :class:`Enough`.
    """

    name: str
    train: Callable[[Rein], None]
    rein: Rein
    limit: float | None
    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    failure: BaseException | None = None

    def run(self, threads: int) -> None:
        """Train; meant for a thread of its own.

        Args:
            threads: Torch's threads, which every thread of Python has to be told.
        """
        torch.set_num_threads(threads)
        try:
            self.train(self.rein)
        except Enough:
            return
        except BaseException as error:
            self.failure = error
        else:
            self.failure = RuntimeError("the budget ended before the measurement")
        self.rein.give_up()

    def turn(self, steps: int, measured: bool = True) -> tuple[float, float]:
        """Take steps.

        Args:
            steps: How many.
            measured: Whether they are full steps.

        Returns:
            Seconds by the clock and of the processor.

        Raises:
            RuntimeError: If the training has failed.
        """
        took = self.rein.go(steps, measured)
        if self.failure is not None:
            raise RuntimeError(f"{self.name} failed") from self.failure
        return took


def make_arms(model: nn.Module, recipe: Recipe, images: Tensor, labels: Tensor) -> list[Arm]:
    """Set up the plain training, the same a second time, and the methods.

    Args:
        model: The network, on its device.
        recipe: How all of them train.
        images: The batch.
        labels: Its labels.

    Returns:
        The trainings; the first one is what the others are compared with.
    """

    def train_plainly(rein: Rein) -> None:
        network = build_model("resnet20", CLASSES, (1, *SHAPE), 0).to(images.device)
        Trainer(network, rein, recipe, BUDGET, 0, validation=rein).run()

    def make_pruning(name: str, **settings: object) -> Callable[[Rein], None]:
        method = load_method(name).model_validate(settings)

        def train(rein: Rein) -> None:
            generator = torch.Generator().manual_seed(0)
            method.prune(Problem(model, images[:1], rein, rein, recipe, BUDGET, generator))

        return train

    half = {"mode": "flops", "flops": 0.5}
    rows: list[tuple[str, Callable[[Rein], None], float | None]] = [
        ("plain", train_plainly, None),
        ("plain again", train_plainly, None),
        ("spp", make_pruning("spp", sparsity=half), 1.05),
        ("sdprun", make_pruning("sdprun", target_flops=0.5, lr_factor=0.1), 1.05),
        ("increg, interval 1", make_pruning("increg", sparsity=half, update_interval=1), 1.10),
        ("increg, interval 10", make_pruning("increg", sparsity=half, update_interval=10), 1.03),
    ]
    return [Arm(name, train, Rein(images, labels), limit) for name, train, limit in rows]


def measure(running: Sequence[Arm], rounds: int, chunk: int) -> None:
    """Let all trainings take turns.

    Args:
        running: The trainings, which have begun.
        rounds: Rounds that count.
        chunk: Steps of a turn.
    """
    order = random.Random(0)
    for index in range(WARM + rounds):
        for arm in order.sample(list(running), len(running)):
            clock, processor = arm.turn(chunk)
            if index >= WARM:
                arm.clock.append(clock)
                arm.processor.append(processor)


def relate_times(times: Sequence[float], plain: Sequence[float]) -> dict[str, float]:
    """Relate the times of a training to those of the plain one.

    Args:
        times: Seconds of each round.
        plain: The same of the plain training.

    Returns:
        ``median``, ``low`` and ``high`` (quartiles) of the ratios of rounds; ``quiet``, the ratio of the lower
        quartiles of the times, which other programs disturb least; and ``total``, the ratio of all the time but that
        of the tenth of the rounds that took longest, which counts what is not done in every step, too.
    """
    ratios = [mine / other for mine, other in zip(times, plain, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    quiet = quartile(times) / quartile(plain)
    kept = sorted(zip(times, plain, strict=True), key=sum)[: max(1, round(0.9 * len(times)))]
    total = sum(mine for mine, _ in kept) / sum(other for _, other in kept)
    return {"median": median, "low": low, "high": high, "quiet": quiet, "total": total}


def quartile(times: Sequence[float]) -> float:
    """Return the lower quartile.

    Args:
        times: At least two numbers.

    Returns:
        It.
    """
    return statistics.quantiles(times, n=4, method="inclusive")[0]


def report(running: Sequence[Arm], chunk: int) -> list[dict[str, object]]:
    """Sum up every training.

    Args:
        running: The trainings, the plain one first.
        chunk: Steps of a turn.

    Returns:
        One row per training: ``name``, ``limit``, ``step_ms`` (median by the processor), ``added_ms`` (median of the
        differences to the plain step of the same round), and what :func:`relate_times` returns for the clock and for
        the processor.
    """
    plain = running[0]
    return [
        {
            "name": arm.name,
            "limit": arm.limit,
            "step_ms": 1000 * statistics.median(arm.processor) / chunk,
            "added_ms": 1000 * statistics.median(map(sub, arm.processor, plain.processor)) / chunk,
            "clock": relate_times(arm.clock, plain.clock),
            "processor": relate_times(arm.processor, plain.processor),
        }
        for arm in running
    ]


def share_heap() -> None:
    """Let all threads allocate from one heap that never shrinks; must come before the threads.

    Raises:
        RuntimeError: If glibc refuses.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for name, (parameter, value) in HEAP.items():
        if libc.mallopt(parameter, value) != 1:
            raise RuntimeError(f"mallopt refused {name} = {value}")


def machine(device: torch.device, threads: int) -> dict[str, str]:
    """Name the machine and the versions.

    Args:
        device: Where it was measured.
        threads: Torch's threads.

    Returns:
        Texts by name.
    """
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found = versions() | {"processor": names[0] if names else platform.processor(), "threads": str(threads)}
    return found | ({"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})


def table(rows: Sequence[dict[str, object]]) -> str:
    """Write the rows as text.

    Args:
        rows: What :func:`report` returned.

    Returns:
        One line per training.
    """
    heads = [f"{kind}: median (quartiles) quiet total" for kind in ("processor", "clock")]
    lines = [f"{'step':22}{'ms':>9}{'added':>8}   {heads[0]:48}{heads[1]:44}limit"]
    for row in rows:
        cells = []
        for kind in ("processor", "clock"):
            ratio = row[kind]
            assert isinstance(ratio, dict)
            spread = f"({ratio['low']:.3f} .. {ratio['high']:.3f})"
            cells.append(f"{ratio['median']:.3f} {spread} {ratio['quiet']:.3f} {ratio['total']:.3f}")
        limit = "" if row["limit"] is None else f"{row['limit']:.2f}"
        lines.append(f"{row['name']:22}{row['step_ms']:9.2f}{row['added_ms']:8.2f}   {cells[0]:48}{cells[1]:44}{limit}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print.

    Args:
        arguments: Of the command line.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=128, help="images of a step")
    parser.add_argument("--steps", type=int, default=40, help="rounds that count")
    parser.add_argument("--chunk", type=int, help="steps of a turn: 1 on the CPU, 10 on a GPU")
    parser.add_argument("--advance", type=int, default=ADVANCE, help="tiny steps before, which are not measured")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="where to write the result")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    chunk = given.chunk or (10 if device.type == "cuda" else 1)
    torch.set_num_threads(given.threads)
    share_heap()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(given.batch, *SHAPE, generator=generator).to(device)
    labels = torch.randint(CLASSES, (given.batch,), generator=generator).to(device)
    model = build_model("resnet20", CLASSES, (1, *SHAPE), 0).to(device)
    recipe = Recipe(lr=0.01, nesterov=True, batch_size=given.batch, recalibrate=1)
    running = make_arms(model, recipe, images, labels)
    threads = [threading.Thread(target=arm.run, args=(given.threads,), daemon=True) for arm in running]
    for thread, arm in zip(threads, running, strict=True):
        thread.start()  # one by one: they trace the same network
        arm.turn(given.advance, measured=False)
    measure(running, given.steps, chunk)
    for arm in running:
        arm.rein.stop()
    for thread in threads:
        thread.join()
    rows = report(running, chunk)
    print(table(rows))
    if given.json is not None:
        result = {"batch": given.batch, "rounds": given.steps, "chunk": chunk, "device": given.device}
        result |= {"machine": machine(device, given.threads), "rows": rows}
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
