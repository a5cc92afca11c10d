"""Profiles, with modules that take as long as a formula says."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import pytest
import torch
from matplotlib.text import Text
from rich.console import Console
from torch import Tensor, nn

from methods.network.channels import channel_groups, cut
from methods.network.cost import count
from search.report.profile import profile_figure, profile_table
from search.speed import modules
from search.speed.conditions import Conditions
from search.speed.interleaved import Samples
from search.speed.profile import CUTS, Profile, build_profile
from search.speed.targets import Untimed

EXAMPLE = torch.zeros(1, 3, 8, 8)
SETTING = Conditions(("cpu",), batch_size=4)


class Block(nn.Module):
    """Two groups of channels, one of them tied by a shortcut, and a module that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 12, 1)
        self.outer = nn.Conv2d(12, 8, 1)
        self.relu = nn.ReLU()
        self.classifier = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        x = x + self.outer(self.relu(self.inner(x)))
        y: Tensor = self.classifier(x.mean((2, 3)))
        return y


def price_by_size(name: str, pieces: Sequence[modules.Piece]) -> Samples:
    """A convolution takes 1 us per multiply–accumulate, everything else 1 us per number that comes in."""
    return [[1e-6 * price(piece)] * 3 for piece in pieces]


def price(piece: modules.Piece) -> int:
    if isinstance(piece.module, nn.Conv2d | nn.Linear):
        return count(piece.module, torch.zeros(piece.shape)).flops
    return torch.zeros(piece.shape).numel()


@pytest.fixture(scope="module")
def found() -> Profile:
    return build_profile(Block().eval(), EXAMPLE, SETTING, whole=0.5, sample=price_by_size)


def test_layers_are_listed_in_order_with_flops_and_time(found: Profile) -> None:
    assert [layer.name for layer in found.layers] == ["stem", "inner", "outer", "classifier"]
    assert found.flops == sum(layer.flops for layer in found.layers) == count(Block(), EXAMPLE).flops
    assert [layer.seconds for layer in found.layers] == pytest.approx([1e-6 * layer.flops for layer in found.layers])
    assert [layer.group for layer in found.layers] == ["stem", "inner", "stem", None]
    assert found.layers[0].shape == "3→8 3x3, 8x8"


def test_the_sum_counts_every_call(found: Profile) -> None:
    others = 8 * 64 + 8 * 64 + 12 * 64  # the norm, and the activation at two places
    assert found.modules == pytest.approx(1e-6 * (found.flops + others))
    assert found.seconds == 0.5


def test_a_cut_saves_what_the_cut_network_no_longer_takes(found: Profile) -> None:
    model = Block().eval()
    groups = channel_groups(model, EXAMPLE)
    for group in groups:
        for share, saving in zip(CUTS, found.savings[group.name], strict=True):
            smaller = cut(model, groups, {group.name: range(saving.units)})
            saved_flops = found.flops - count(smaller, EXAMPLE).flops
            assert (saving.cut, saving.units) == (share, round(group.channels * (1 - share)))
            assert saving.flops == saved_flops
            gone = group.channels - saving.units
            # The norm and the first activation carry the stem's channels, the second one the inner ones.
            assert saving.seconds == pytest.approx(
                1e-6 * (saved_flops + 64 * gone * (2 if group.name == "stem" else 1))
            )


def test_widths_can_be_rounded() -> None:
    rounded = build_profile(Block().eval(), EXAMPLE, SETTING, 1.0, price_by_size, round_to=4)
    assert [saving.units for saving in rounded.savings["inner"]] == [8, 8, 4]
    assert [saving.units for saving in rounded.savings["stem"]] == [8, 4, 4]


def test_equal_modules_are_timed_once() -> None:
    asked: list[str] = []

    def count_and_price(name: str, pieces: Sequence[modules.Piece]) -> Samples:
        asked.append(name)
        return price_by_size(name, pieces)

    twins = nn.Sequential(*[nn.Conv2d(4, 4, 1) for _ in range(5)], nn.Flatten(), nn.Linear(256, 3))
    model = nn.Sequential(nn.Conv2d(3, 4, 1), twins)
    assert len(build_profile(model.eval(), EXAMPLE, SETTING, 1.0, count_and_price).layers) == 7
    assert len(asked) == 4, "the stem, one of the twins, the flattening, the classifier"


def test_what_cannot_be_timed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, pieces: Sequence[modules.Piece]) -> Samples | None:
        return None if name == "outer" else price_by_size(name, pieces)

    found = build_profile(Block().eval(), EXAMPLE, SETTING, 1.0, refuse)
    assert found.untimed == ("outer",)
    assert found.layers[2].seconds is None
    assert all(saving.seconds is None for savings in found.savings.values() for saving in savings)
    assert "not timed alone: outer" in print_profile(found)

    def fail(*_: object) -> None:
        raise Untimed("cpu: no")

    monkeypatch.setattr(modules, "prepare", fail)
    assert modules.time_versions(SETTING, EXAMPLE, "a", [modules.Piece(nn.ReLU(), (1, 3))]) is None


def test_a_module_runs_on_a_batch_of_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            shapes.append(tuple(x.shape))
            return x

    monkeypatch.setattr(modules, "time_until_steady", lambda watch, runs, effort: [[run(), 1.0] for run in runs])
    modules.time_versions(SETTING, EXAMPLE, "a", [modules.Piece(Watched(), (1, 3, 5, 5))])
    assert set(shapes) == {(4, 3, 5, 5)}


def test_noise_is_marked() -> None:
    def scattering(name: str, pieces: Sequence[modules.Piece]) -> Samples:
        return [[1.0, 1.0, 1.5, 1.5] if name == "inner" else [1.0] * 4 for _ in pieces]

    found = build_profile(Block().eval(), EXAMPLE, SETTING, 1.0, scattering)
    assert found.noisy == ("inner",)
    assert "~1.25 s" in print_profile(found) and "repeat it on a quieter machine" in print_profile(found)


def print_profile(found: Profile, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(profile_table(found, "block"))
    return console.export_text()


def test_the_table_fits_the_terminal(found: Profile) -> None:
    text = print_profile(found)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text
    assert {"stem", "inner", "cut 75 %", "as stem", "stays"} <= {
        word for word in ("stem", "inner", "cut 75 %", "as stem", "stays") if word in text
    }


def test_the_profile_is_json(found: Profile) -> None:
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["savings"]["stem"][0]["cut"] == 0.25
    assert data["layers"][3]["group"] is None


def test_the_picture_names_layers_and_groups(found: Profile) -> None:
    figure = profile_figure(found, "block")
    texts = {text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)}
    assert {"block", "stem", "classifier", "share of time", "50 % of the units: time saved"} <= texts
