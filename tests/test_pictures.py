"""The pictures of the methods are drawn, and show what happened in the trial."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from examples.method_pictures import PICTURES, picture
from examples.pictures import eigendamage, increg, pivoting, sdprun, spp
from examples.pictures.digits import Digits, digits
from examples.pictures.tracks import Tracks

QUICK = ("dense.epochs=1", "finetune.epochs=3")
DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def run_quickly(method: str, directory: Path) -> Digits:
    return digits(method, directory, 3, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("method", PICTURES)
def test_every_picture_is_drawn(method: str, directory: Path, tmp_path: Path) -> None:
    drawn = picture(method, tmp_path / f"{method}.png", directory, QUICK)
    assert drawn.stat().st_size > 30_000


@pytest.mark.parametrize("method", PICTURES)
def test_every_picture_is_on_its_page(method: str) -> None:
    assert f"../images/{method}.png" in (DOCS / "methods" / f"{method}.md").read_text(encoding="utf-8")


def assert_agreement(found: Tracks, data: Digits) -> None:
    """What was seen last is what came out."""
    for row, group in enumerate(data.plan.groups):
        _, removed = found.group(row, group.channels)
        assert int(removed[-1].sum()) == group.channels - found.outcome.widths[group.name][0]
        assert not (removed[:-1] & ~removed[1:]).any()  # gone for good
    assert found.flops[-1] * data.plan.cost.dense == pytest.approx(found.outcome.metrics["flops"])
    assert list(found.flops) == sorted(found.flops, reverse=True)


def test_increg_shows_its_penalties(directory: Path) -> None:
    data = run_quickly("increg", directory)
    found, norms = increg.watch(data, 0.25)
    assert_agreement(found, data)
    assert found.values.max() < increg.CEILING
    rising = found.values[1:] > found.values[:-1]
    assert rising[0].any()
    assert norms[-1][found.removed[-1]].max() == 0


def test_spp_shows_its_probabilities(directory: Path) -> None:
    data = run_quickly("spp", directory)
    found = spp.watch(data, 0.25)
    assert_agreement(found, data)
    assert found.values.min() == 0
    assert torch.equal(found.values == 1, found.removed)


def test_sdprun_shows_what_vanishes_below_the_threshold(directory: Path) -> None:
    data = run_quickly("sdprun", directory)
    row = data.row(sdprun.LAYER)
    found = sdprun.watch(data, row, 0.25, valley=False)
    assert len(found.kept) == found.outcome.widths[sdprun.LAYER][0]
    thresholds = found.thresholds[:, None]
    alive, zero = found.factors > 0, found.factors == 0
    assert zero.any()
    # All units that live lose the same, and hence lie above the threshold.
    taken = (1 - found.factors) * found.ratios
    torch.testing.assert_close(taken[alive], thresholds.expand_as(taken)[alive], rtol=1e-3, atol=1e-4)
    assert (found.ratios[alive] > thresholds.expand_as(taken)[alive]).all()


def test_eigendamage_compares_what_it_predicts(directory: Path) -> None:
    data = digits("eigendamage", directory, 1, ["dense.epochs=4"])  # analyses assume a network that is trained
    found = {variant: eigendamage.rises(data, variant, shares=(0.9, 0.4)) for variant in eigendamage.LOOKS}
    for variant, (little, much) in found.items():
        assert little.settled < much.settled
        assert little.predicted < much.predicted or variant == "magnitude"
    assert all(math.isnan(each.predicted) for each in found["magnitude"])
    left, right = eigendamage.draw_comparison(data, found).axes
    assert left.get_yscale() == right.get_xscale() == "log"
    assert [len(axes.get_lines()) for axes in (left, right)] == [3, 5]  # the diagonal is one of them


def test_pivoting_shows_one_matrix_in_two_orders(directory: Path) -> None:
    found = pivoting.watch(run_quickly("pivoting", directory), 0.5)
    first, ordered, moved, cut = found.stages
    assert sorted(first.entries.ravel()) == sorted(ordered.entries.ravel())
    shares = [stage.measure_inside(found.blocks) for stage in found.stages]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(1 / found.blocks, rel=0.1)
    assert shares[-1] == pytest.approx(1)
