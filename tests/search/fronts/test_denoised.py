"""The denoised front against a truth that is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from search.fronts.denoised import LEAST, denoise
from search.fronts.front import Front
from search.objectives import OBJECTIVES, load_objectives
from search.records.outcome import DenseRow
from spaces import InputError, LogReal, Real, Space
from tests.search.cases import outcome

UNITS, FLOPS, EXAMPLES = 64, 1_000_000, 359
DENSE = DenseRow.from_metrics(accuracy=0.99, flops=FLOPS, params=5_000, seconds=1.0)


def space() -> Space:
    own = Space({"sparsity.flops": LogReal(0.05, 0.9, default=0.5), "rate": Real(0.0, 1.0, default=0.5)})
    return Space.choose("method", {"one": own, "two": own})


def true_error(method: str, share: float, rate: float) -> float:
    """Error that grows with what is removed, faster for one method, and with the distance from the usual rate."""
    slope = 0.006 if method == "one" else 0.009
    octaves = -math.log2(share)
    return 0.01 + slope * octaves * math.sqrt(octaves) + 0.03 * (rate - 0.5) * (rate - 0.5)


def study(seed: int, trials: int, examples: int = EXAMPLES) -> tuple[Front, dict[int, float]]:
    """A front as it was measured on so many examples, and what each network is worth in truth."""
    draw = np.random.default_rng(seed)
    outcomes, true = [], {}
    for number in range(trials):
        method = str(draw.choice(["one", "two"]))
        share, rate = float(np.exp(draw.uniform(np.log(0.05), np.log(0.9)))), float(draw.uniform())
        error = true_error(method, share, rate)
        true[number] = 1 - error
        metrics = {
            "accuracy": 1 - float(draw.binomial(examples, error)) / examples,
            "flops": share * FLOPS,
            "params": 5_000 * share,
            "seconds": 1.0,
        }
        kept = max(1, round(UNITS * math.sqrt(share)))
        point: dict[str, Any] = {"sparsity.flops": share, "rate": rate}
        outcomes.append(outcome(number, method=method, metrics=metrics, point=point, widths={"conv": (kept, UNITS)}))
    return Front("s", DENSE, outcomes, load_objectives(("accuracy", "flops"))), true


def test_denoised_qualities_and_fronts_are_nearer_to_the_truth() -> None:
    """Twelve studies: every trial's value, what the front claims, and what its networks are worth."""
    gaps, claims, worth = [], [], []
    for seed in range(12):
        measured, true = study(seed, 40)
        found = denoise(measured, space(), EXAMPLES)
        denoised = found.front
        assert [each.number for each in denoised.outcomes] == [each.number for each in measured.outcomes]
        value = {each.number: each.metrics["accuracy"] for each in denoised.outcomes}
        before = {each.number: each.metrics["accuracy"] for each in measured.outcomes}
        assert {each.number: each.metrics["measured_accuracy"] for each in denoised.outcomes} == before
        gaps.append([np.mean([abs(each[k] - true[k]) for k in true]) for each in (before, value)])
        claims.append([
            np.mean([member.metrics["accuracy"] - true[member.trial] for member in front.members])
            for front in (measured, denoised)
        ])
        worth.append([_true_volume(front, true) for front in (measured, denoised)])
        assert found.luck == pytest.approx(np.mean([before[m.trial] - value[m.trial] for m in measured.members]))
    gap, claim, volume = (np.mean(each, axis=0) for each in (gaps, claims, worth))
    assert gap[1] < 0.6 * gap[0]
    assert claim[0] > 0.004, "a front of measured values promises too much"
    assert abs(claim[1]) < 0.5 * claim[0]
    assert volume[1] >= volume[0] - 1e-3, "and its networks are no worse in truth"


def _true_volume(front: Front, true: dict[int, float]) -> float:
    rows = [outcome(k, metrics={**m.metrics, "accuracy": true[m.trial]}) for k, m in enumerate(front.members)]
    return Front("s", DENSE, rows, front.objectives).hypervolume()


def test_with_many_examples_there_is_little_to_denoise() -> None:
    measured, _ = study(0, 40, examples=1_000_000)
    found = denoise(measured, space(), 1_000_000)
    for before, after in zip(measured.outcomes, found.front.outcomes, strict=True):
        assert after.metrics["accuracy"] == pytest.approx(before.metrics["accuracy"], abs=5e-3)
        assert after.metrics["accuracy_low"] <= after.metrics["accuracy"] <= after.metrics["accuracy_high"]
        assert {name: after.metrics[name] for name in ("flops", "params")} == {
            name: before.metrics[name] for name in ("flops", "params")
        }
    assert abs(found.luck) < 1e-3


def test_noise_that_is_not_known_is_judged_by_the_scatter() -> None:
    measured, true = study(1, 60)
    found = denoise(measured, space(), None)
    assert found.to_json() == {"quality": "accuracy", "trials": 60, "examples": None, "luck": found.luck}
    assert "the scatter of trials" in found.describe()
    gaps = [
        np.mean([abs(each.metrics["accuracy"] - true[each.number]) for each in front.outcomes])
        for front in (measured, found.front)
    ]
    assert gaps[1] < gaps[0]


def test_too_few_trials_and_qualities_without_noise_are_refused() -> None:
    measured, _ = study(0, LEAST - 1)
    with pytest.raises(InputError, match=r"study 's' has 7 complete trials; a model needs at least 8"):
        denoise(measured, space(), EXAMPLES)
    damages = [outcome(k, metrics={**outcome().metrics, "predicted_damage": 0.1 * k}) for k in range(LEAST)]
    front = Front("s", DENSE, damages, (OBJECTIVES["predicted_damage"], OBJECTIVES["flops"]))
    with pytest.raises(InputError, match="'predicted_damage' is not measured with noise"):
        denoise(front, space(), EXAMPLES)
