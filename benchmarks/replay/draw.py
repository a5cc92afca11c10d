"""Draws a race and prints its table.

python -m benchmarks.replay.draw docs/results/search_replay.jsonl --picture docs/images/search_replay.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

NAMES = {
    "random": "random",
    "nsga2": "NSGA-II",
    "tpe": "TPE",
    "tpe-multivariate": "TPE, multivariate",
    "gp": "GPSampler",
    "botorch": "BoTorch",
    "exact": "exact cost (ours)",
}
MARKS = (20, 40, 60, 120)


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("race", type=Path)
    parser.add_argument("--picture", type=Path, required=True)
    given = parser.parse_args()
    runs: dict[str, dict[int, dict[str, object]]] = {}
    for line in given.race.read_text().splitlines():
        run = json.loads(line)
        runs.setdefault(run["sampler"], {})[run["seed"]] = run
    goal = {seed: float(run["curve"][-1]) for seed, run in runs["random"].items()}  # type: ignore[index]
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    marks = " | ".join(f"@{mark}" for mark in MARKS)
    print(f"| sampler | seeds | {marks} | trials to random's last (median, worst) | dominated | CPU s a suggestion |")
    print("|---" * (len(MARKS) + 5) + "|")
    for name in (each for each in NAMES if each in runs):
        seeds = sorted(runs[name])
        shortest = min(len(runs[name][seed]["curve"]) for seed in seeds)  # type: ignore[arg-type]
        curves = np.array([runs[name][seed]["curve"][:shortest] for seed in seeds])  # type: ignore[index]
        trials = np.arange(1, curves.shape[1] + 1)
        low, middle, high = np.quantile(curves, [0.25, 0.5, 0.75], axis=0)
        (drawn,) = axes.plot(trials, middle, label=NAMES[name])
        axes.fill_between(trials, low, high, alpha=0.15, color=drawn.get_color(), linewidth=0)
        known = [(goal[seed], curve) for seed, curve in zip(seeds, curves, strict=True) if seed in goal]
        reached = [
            int(np.argmax(curve >= wanted)) + 1 if (curve >= wanted).any() else len(curve) + 1
            for wanted, curve in known
        ]
        worst = max(reached)
        cells = " | ".join(f"{middle[mark - 1]:.3f}" if mark <= len(trials) else "" for mark in MARKS)
        seconds = np.median([float(runs[name][seed]["seconds"]) for seed in seeds])  # type: ignore[arg-type]
        shown = f"> {len(trials)}" if worst > len(trials) else str(worst)
        beaten = [float(runs[name][seed].get("dominated", "nan")) for seed in seeds]  # type: ignore[arg-type]
        share = f"{np.mean(beaten):.0%}" if not np.isnan(beaten).any() else ""
        print(f"| {NAMES[name]} | {len(seeds)} | {cells} | {np.median(reached):g}, {shown} | {share} | {seconds:.3f} |")
    if "exact" in runs and "tpe" in runs:
        both = sorted(runs["exact"].keys() & runs["tpe"].keys())
        shortest = min(len(runs[name][seed]["curve"]) for name in ("exact", "tpe") for seed in both)  # type: ignore[arg-type]
        for mark in (each for each in MARKS if each <= shortest):
            ahead = sum(
                float(runs["exact"][seed]["curve"][mark - 1]) > float(runs["tpe"][seed]["curve"][mark - 1])  # type: ignore[index]
                for seed in both
            )
            print(f"\nAt {mark} trials the exact-cost sampler is ahead of TPE in {ahead} of {len(both)} seeds.")
        early = [float(runs["exact"][seed]["curve"][19]) for seed in both]  # type: ignore[index]
        late = [float(runs["tpe"][seed]["curve"][59]) for seed in both]  # type: ignore[index]
        better = sum(one >= two for one, two in zip(early, late, strict=True))
        medians = f"({np.median(early):.3f}) against TPE's 60 ({np.median(late):.3f})"
        print(f"\nIts 20 trials {medians}: not less in {better} of {len(both)} seeds.")
    axes.set(xlabel="trials", ylabel="hypervolume, share of the best possible", ylim=(0.5, 1.0))
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    given.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.picture, dpi=130)


if __name__ == "__main__":
    main()
