"""Time and memory of EigenDamage's analysis over one plain forward and backward pass, and over curvlinops' K-FAC.

    python benchmarks/eigendamage_factors.py --samples 2560 --batch 128 --json eigendamage_factors.json

VGG-16 for CIFAR on synthetic images, all convolutions and linear layers, one drawn label per image. In each round all
arms run over the same samples, in an order that is drawn anew:

* ``pass``: loss, forward and backward, gradients of all weights; the unit of the others. Run twice a round: the
  ratio of the two shows how far the other ratios can be trusted;
* ``eigendamage``: factors with the covariance of channels, eigenbases, damage of every direction;
* ``eigendamage_ek``: the same, then second moments measured in the eigenbases in passes of their own;
* ``full``: factors with the covariance of whole im2col columns;
* ``curvlinops``: the same factors as ``full`` by ``curvlinops-for-pytorch``, up to their scale.

On a busy machine the processor's time says more than the clock's; both are reported. Peak memory is what the process
holds at most beyond what it held before (Linux).
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.curvature.covariances import Factors, collect_factors, groups_of
from methods.curvature.passes import watch_layers
from methods.curvature.second_moments import collect_second_moments
from methods.eigendamage.kronecker import damage, eigenbases, predict_from_variances
from methods.network.chains import blocks
from search.records.environment import versions
from search.tasks.models.vgg import vgg16

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # a dependency of theirs compiles with torch.jit
    from curvlinops import KFACLinearOperator  # type: ignore[import-untyped]

Batches = list[tuple[Tensor, Tensor]]

CLASSES = 10
LIMITS = {("eigendamage", "pass"): 2.0, ("full", "curvlinops"): 0.5, ("eigendamage", "curvlinops"): 0.5}
"""What ratios of times are wanted to be at most."""


@dataclass
class Task:
    """What all arms work on.

    Attributes:
        model: The network, in eval mode.
        batches: Images and labels.
        names: Its convolutions and linear layers.
    """

    model: nn.Module
    batches: Batches
    names: list[str]

    def factors(self, full: bool) -> dict[str, Factors]:
        """Collect factors from drawn labels."""
        source = torch.Generator().manual_seed(0)
        return collect_factors(self.model, self.batches, self.names, fisher="mc", generator=source, full=full)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights as blocks."""
        layers = watch_layers(self.model, self.names)
        return {name: blocks(layer.weight, groups_of(layer)) for name, layer in layers.items()}


def run_plain_pass(task: Task) -> None:
    """Run forward and backward, as training does."""
    for images, labels in task.batches:
        task.model.zero_grad()
        F.cross_entropy(task.model(images), labels).backward()
    task.model.zero_grad()


def eigendamage(task: Task) -> None:
    """Find factors, eigenbases and the damage of each direction."""
    bases = eigenbases(task.factors(full=False))
    for name, weight in task.weights().items():
        damage(weight, bases[name])


def eigendamage_ek(task: Task) -> None:
    """Find factors and eigenbases, then the damage from second moments measured in them."""
    bases = eigenbases(task.factors(full=False))
    moments = collect_second_moments(
        task.model,
        task.batches,
        task.names,
        {name: (basis.inputs, basis.outputs) for name, basis in bases.items()},
        fisher="mc",
        generator=torch.Generator().manual_seed(0),
    )
    for name, weight in task.weights().items():
        predict_from_variances(weight, bases[name], moments[name])


def find_full_factors(task: Task) -> None:
    """Find factors with the covariance of whole columns."""
    task.factors(full=True)


def curvlinops(task: Task) -> None:
    """Find the same factors by curvlinops."""
    operator = KFACLinearOperator(
        task.model,
        nn.CrossEntropyLoss(),
        [layer.weight for layer in watch_layers(task.model, task.names).values()],
        task.batches,
        fisher_type="mc",
        mc_samples=1,
        kfac_approx="expand",
        check_deterministic=False,
        num_per_example_loss_terms=1,  # given, so that it need not count them
        num_data=sum(len(labels) for _, labels in task.batches),
    )
    operator.compute_kronecker_factors()


ARMS: dict[str, Callable[[Task], None]] = {
    "pass": run_plain_pass,
    "pass again": run_plain_pass,
    "eigendamage": eigendamage,
    "eigendamage_ek": eigendamage_ek,
    "full": find_full_factors,
    "curvlinops": curvlinops,
}


@dataclass
class Times:
    """Measurements of one arm, one entry per round.

    Attributes:
        clock: Seconds by the clock.
        processor: Seconds of the processor, all threads together.
        memory: Peak memory beyond what was held before, in MiB; empty where the system does not tell.
    """

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


def measure(run: Callable[[Task], None], task: Task, times: Times) -> None:
    """Run an arm once."""
    gc.collect()
    held = _reset_peak()
    clock, processor = time.perf_counter(), time.process_time()
    run(task)
    times.clock.append(time.perf_counter() - clock)
    times.processor.append(time.process_time() - processor)
    if held is not None:
        times.memory.append(_status("VmHWM") - held)


def _reset_peak() -> float | None:
    """Let the peak of resident memory begin anew; return what is resident now, in MiB."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    reset.write_text("5", encoding="ascii")
    return _status("VmRSS")


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


def machine(threads: int) -> dict[str, str]:
    """Name the machine and the versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found = versions() | {"curvlinops-for-pytorch": version("curvlinops-for-pytorch")}
    return found | {"processor": names[0] if names else platform.processor(), "threads": str(threads)}


def table(times: dict[str, Times]) -> list[dict[str, float | str]]:
    """Summarise: medians over rounds, and medians of ratios within rounds."""
    rows: list[dict[str, float | str]] = []
    for name, arm in times.items():
        row: dict[str, float | str] = {
            "arm": name,
            "clock_s": statistics.median(arm.clock),
            "processor_s": statistics.median(arm.processor),
            "memory_mib": max(arm.memory, default=float("nan")),
        }
        for unit in ("pass", "curvlinops"):
            if unit in times:
                for kind in ("clock", "processor"):
                    pairs = zip(getattr(arm, kind), getattr(times[unit], kind), strict=True)
                    row[f"{kind}_over_{unit}"] = statistics.median(one / other for one, other in pairs)
        rows.append(row)
    return rows


def show(rows: list[dict[str, float | str]]) -> None:
    """Print the table, and which limits hold."""
    columns = list(rows[0])
    print("".join(f"{column:>27}" for column in columns))
    for row in rows:
        print("".join(f"{cell:>27}" if isinstance(cell, str) else f"{cell:>27.3f}" for cell in row.values()))
    found = {str(row["arm"]): row for row in rows}
    for (arm, unit), limit in LIMITS.items():
        if arm in found and f"clock_over_{unit}" in found[arm]:
            clock, processor = (float(found[arm][f"{kind}_over_{unit}"]) for kind in ("clock", "processor"))
            verdict = "holds" if clock <= limit else "missed"
            print(
                f"{arm} / {unit}: {clock:.3f} by the clock, {processor:.3f} of the processor; wanted {limit}: {verdict}"
            )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=2560)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="which arms take part")
    parser.add_argument("--json", type=Path, help="where to write the result")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    source = torch.Generator().manual_seed(0)
    images = torch.randn(given.samples, 3, 32, 32, generator=source)
    labels = torch.randint(CLASSES, (given.samples,), generator=source)
    model = vgg16(CLASSES).eval()
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    batches = list(zip(images.split(given.batch), labels.split(given.batch), strict=True))
    task = Task(model, batches, names)
    run_plain_pass(Task(model, batches[:1], names))  # the first pass sets up what all later ones use
    times = {name: Times() for name in given.arms}
    for round_number in range(given.rounds):
        for name in random.Random(round_number).sample(given.arms, len(given.arms)):
            measure(ARMS[name], task, times[name])
            print(f"round {round_number + 1}: {name} {times[name].clock[-1]:.1f} s", flush=True)
    rows = table(times)
    show(rows)
    if given.json is not None:
        result = {"samples": given.samples, "batch": given.batch, "rounds": given.rounds}
        result |= {"machine": machine(given.threads), "rows": rows}
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
