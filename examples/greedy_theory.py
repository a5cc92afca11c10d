"""Why greedy selection: how fast its loss falls with the number of neurons, beside random subsets and small networks.

    python examples/greedy_theory.py --neurons 5000 --seeds 5 --to 500 --plot greedy_theory.png

A network of two layers, ``f(x) = 1/N sum_i a_i tanh(w_i x)``, learns some data by stochastic gradient descent. The
loss is then compared of five networks of ``n`` neurons, for ``n`` up to ``--to``:

* the greedy choice *with repeats* among the neurons, the algorithm of the theorems (Ye, Gong, Nie, Zhou, Klivans,
  Liu, 2020, arXiv 2003.01794): a large network whose neurons surround the data has subnetworks of loss O(1/n^2);
* the same from the network *before it was trained*: the theorems hold for random weights too;
* the greedy choice *without repeats*, which their code makes: it runs out of useful neurons;
* a *random* subset, O(1/n);
* a network of ``n`` neurons *trained directly*, just as the large one was. It follows the large one's path but for
  fluctuations O(1/n) (and can do better where it is free to fit the data, as for few data it soon is).

A slope is that of a straight line through the logarithms of loss and ``n``, from 10 neurons on; the table shows the
median over seeds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from methods.greedy.forward_selection import RULES, forward_selection
from methods.greedy.imitation import SquaredDistance

POINTS, DIMENSIONS, TEACHERS = 20, 5, 20
"""Data: so many points in so many dimensions; labels are what so many random neurons say on average."""

STEPS, RATE = 400, 0.2
"""Steps of stochastic gradient descent, one point each, and their length."""

FIRST = 10
"""Slopes begin at so many neurons."""

DRAWS, STARTS = 100, 5
"""Random subsets, and networks trained directly, that one loss is the mean of."""

COLOURS = {
    "greedy, with repeats": "#0072B2",
    "greedy, with repeats, untrained": "#56B4E9",
    "greedy, without repeats": "#009E73",
    "random subset": "#D55E00",
    "trained directly": "#CC79A7",
}
"""Curves, in order of the table."""


@dataclass(frozen=True)
class Data:
    """What is learnt.

    Attributes:
        inputs: ``[points, dimensions + 1]``; the last one is constant.
        labels: ``[points]``.
    """

    inputs: Tensor
    labels: Tensor


@dataclass
class Neurons:
    """Neurons whose mean is a network.

    Attributes:
        weights: ``w``, ``[neurons, dimensions + 1]``.
        scales: ``a``, ``[neurons]``.
    """

    weights: Tensor
    scales: Tensor

    @staticmethod
    def random(count: int, generator: torch.Generator) -> Neurons:
        """Draw neurons.

        Args:
            count: How many.
            generator: Where from.

        Returns:
            The neurons.
        """
        weights = torch.randn(count, DIMENSIONS + 1, generator=generator, dtype=torch.float64)
        return Neurons(weights, torch.randn(count, generator=generator, dtype=torch.float64))

    def outputs(self, inputs: Tensor) -> Tensor:
        """Compute what each neuron says.

        Args:
            inputs: ``[points, dimensions + 1]``.

        Returns:
            ``[neurons, points]``.
        """
        return self.scales[:, None] * torch.tanh(self.weights @ inputs.T)

    def train(self, data: Data, generator: torch.Generator) -> None:
        """Learn the data in place.

        The derivative of the squared error is multiplied with the number of neurons, so that a neuron moves as fast
        in a small network as in a large one: all sizes follow the same path but for chance.

        Args:
            data: What to learn.
            generator: Draws the point of each step.
        """
        for point in torch.randint(len(data.labels), (STEPS,), generator=generator).tolist():
            read, label = data.inputs[point], data.labels[point]
            active = torch.tanh(self.weights @ read)
            error = 2 * ((self.scales * active).mean() - label)
            slope = self.scales * (1 - active.square())
            self.scales -= RATE * error * active
            self.weights -= RATE * error * slope[:, None] * read


def draw_data(generator: torch.Generator) -> Data:
    """Draw points, and label them by some random neurons.

    Args:
        generator: Where from.

    Returns:
        The data.
    """
    points = torch.randn(POINTS, DIMENSIONS, generator=generator, dtype=torch.float64)
    inputs = torch.cat([points, torch.ones(POINTS, 1, dtype=torch.float64)], dim=1)
    return Data(inputs, Neurons.random(TEACHERS, generator).outputs(inputs).mean(0))


def greedy(outputs: Tensor, labels: Tensor, rule: str, to: int) -> Tensor:
    """Select neurons one by one.

    Args:
        outputs: ``[neurons, points]``.
        labels: ``[points]``.
        rule: Name of the step rule.
        to: How many.

    Returns:
        Mean squared errors with 1, 2, ... neurons, ``[to]``.
    """
    objective = SquaredDistance(outputs / POINTS**0.5, labels / POINTS**0.5)
    every = len(outputs)  # all neurons are candidates, so that nothing is drawn
    steps = forward_selection(lambda step: objective, every, RULES[rule], every, torch.Generator())
    return torch.tensor([step.loss for step in islice(steps, to)], dtype=torch.float64)


def random_subsets(outputs: Tensor, labels: Tensor, to: int, generator: torch.Generator) -> Tensor:
    """Take the first neurons in random order, several times.

    Args:
        outputs: ``[neurons, points]``.
        labels: ``[points]``.
        to: How many neurons.
        generator: Draws the orders.

    Returns:
        Mean squared errors with 1, 2, ... neurons, ``[to]``.
    """
    counts = torch.arange(1, to + 1)[:, None]
    total = torch.zeros(to, dtype=torch.float64)
    for _ in range(DRAWS):
        drawn = outputs[torch.randperm(len(outputs), generator=generator)[:to]]
        total += (drawn.cumsum(0) / counts - labels).square().mean(1)
    return total / DRAWS


def train_directly(data: Data, sizes: Sequence[int], generator: torch.Generator) -> Tensor:
    """Train networks of some sizes from random weights.

    Args:
        data: What they learn.
        sizes: Numbers of neurons.
        generator: Draws weights and the order of the data.

    Returns:
        Mean squared errors, ``[sizes]``.
    """
    losses = torch.zeros(len(sizes), dtype=torch.float64)
    for place, size in enumerate(sizes):
        for _ in range(STARTS):
            small = Neurons.random(size, generator)
            small.train(data, generator)
            losses[place] += (small.outputs(data.inputs).mean(0) - data.labels).square().mean() / STARTS
    return losses


def sizes_up_to(to: int) -> list[int]:
    """Choose sizes for direct training, evenly on a logarithmic scale.

    Args:
        to: The largest one.

    Returns:
        About ten sizes, ascending.
    """
    steps = torch.linspace(0, 1, 10, dtype=torch.float64)
    return sorted({round(FIRST * (to / FIRST) ** float(step)) for step in steps})


def slope(counts: Tensor, losses: Tensor) -> float:
    """Fit a straight line to logarithms by least squares.

    Args:
        counts: Numbers of neurons.
        losses: Their losses, above 0.

    Returns:
        Its slope; -1 says that the loss falls like ``1 / n``.
    """
    x, y = counts.double().log(), losses.log()
    x = x - x.mean()
    return float((x * y).sum() / x.square().sum())


@dataclass(frozen=True)
class Curve:
    """Loss against number of neurons.

    Attributes:
        counts: Numbers of neurons.
        losses: Mean squared errors.
    """

    counts: Tensor
    losses: Tensor

    @property
    def slope(self) -> float:
        """Slope of the logarithms from :data:`FIRST` neurons on."""
        late = self.counts >= FIRST
        return slope(self.counts[late], self.losses[late])


def experiment(neurons: int, to: int, seed: int) -> dict[str, Curve]:
    """Compare the five ways to a small network once.

    Args:
        neurons: Of the large network.
        to: Largest number of neurons that is kept.
        seed: Decides data, weights, and everything drawn.

    Returns:
        The curves by name.
    """
    generator = torch.Generator().manual_seed(seed)
    data, large = draw_data(generator), Neurons.random(neurons, generator)
    untrained = large.outputs(data.inputs)
    large.train(data, generator)
    trained, sizes = large.outputs(data.inputs), sizes_up_to(to)
    counts = torch.arange(1, to + 1)
    return {
        "greedy, with repeats": Curve(counts, greedy(trained, data.labels, "uniform_repeat", to)),
        "greedy, with repeats, untrained": Curve(counts, greedy(untrained, data.labels, "uniform_repeat", to)),
        "greedy, without repeats": Curve(counts, greedy(trained, data.labels, "uniform_norepeat", to)),
        "random subset": Curve(counts, random_subsets(trained, data.labels, to, generator)),
        "trained directly": Curve(torch.tensor(sizes), train_directly(data, sizes, generator)),
    }


def plot(runs: Sequence[Mapping[str, Curve]], path: Path) -> None:
    """Draw all curves: medians over seeds, and the single seeds behind them.

    Args:
        runs: One experiment per seed.
        path: Where to.
    """
    figure = Figure(figsize=(8.5, 5.5), layout="constrained")
    axes = figure.subplots()
    for name, colour in COLOURS.items():
        curves = [run[name] for run in runs]
        middle = torch.stack([curve.losses for curve in curves]).median(0).values
        for curve in curves:
            axes.plot(curve.counts, curve.losses, color=colour, linewidth=0.6, alpha=0.25)
        label = f"{name}: slope {statistics.median(curve.slope for curve in curves):.2f}"
        marker = "o" if len(middle) < len(runs[0]["random subset"].losses) else None
        axes.plot(curves[0].counts, middle, color=colour, linewidth=1.8, marker=marker, markersize=4, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left=2)
    axes.set_xlabel("neurons that are left")
    axes.set_ylabel("mean squared error")
    axes.grid(which="both", color="#E5E7EB", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, title=f"medians of {len(runs)} seeds", alignment="left")
    figure.savefig(path, dpi=110)


def main(neurons: int, seeds: int, to: int, picture: Path | None) -> dict[str, float]:
    """Run, print the table, and draw.

    Args:
        neurons: Of the large network.
        seeds: How many experiments.
        to: Largest number of neurons that is kept.
        picture: Where to draw, if at all.

    Returns:
        Median slopes by name of curve.

    Raises:
        SystemExit: If there are too few neurons to choose from.
    """
    if not 2 * FIRST <= to <= neurons or seeds < 1:
        raise SystemExit(f"--to must be in {2 * FIRST} .. --neurons and --seeds at least 1")
    runs = [experiment(neurons, to, seed) for seed in range(seeds)]
    print(f"{neurons} neurons, {POINTS} points in {DIMENSIONS} dimensions, {seeds} seeds")
    print(f"{'':34}{'slope: median':>14}{'min':>8}{'max':>8}{f'loss at {to}':>16}")
    medians = {}
    for name in COLOURS:
        slopes = [run[name].slope for run in runs]
        last = statistics.median(float(run[name].losses[-1]) for run in runs)
        medians[name] = statistics.median(slopes)
        print(f"{name:34}{medians[name]:>14.2f}{min(slopes):>8.2f}{max(slopes):>8.2f}{last:>16.2e}")
    if picture is not None:
        plot(runs, picture)
    return medians


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--neurons", type=int, default=5000, help="of the large network")
    parser.add_argument("--seeds", type=int, default=5, help="how many experiments")
    parser.add_argument("--to", type=int, default=500, help="largest number of neurons that is kept")
    parser.add_argument("--plot", type=Path, help="where to draw")
    given = parser.parse_args()
    main(given.neurons, given.seeds, given.to, given.plot)
