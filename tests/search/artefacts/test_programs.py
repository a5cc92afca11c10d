"""Networks as programs: any batch size where the network allows it, and what is in the way where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from search.artefacts.programs import NotExportable, capture, write_onnx, write_pt2
from search.artefacts.verify import Job, run_clean, write_arrays


class TwoInputs(nn.Module):
    """Named inputs, a mapping as the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, image: Tensor, age: Tensor) -> dict[str, Tensor]:
        return {"logits": self.one(image) + self.other(age), "hidden": self.one(image)}


class FixedBatch(nn.Module):
    """Looks at how many inputs there are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        shifts = {1: 1.0, 6: 2.0}
        out: Tensor = self.layer(x) + shifts[int(x.shape[0])]
        return out


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = x.mul(2)
        out: Tensor = self.layer(x)
        return out


class Bessel(nn.Module):
    """An operation that torch.export has and ONNX has not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(torch.special.i1e(x))
        return out


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_named_inputs_any_batch_and_files_that_answer_otherwise(tmp_path: Path) -> None:
    model = TwoInputs().eval()
    inputs = {"image": noise(6, 4), "age": noise(6, 2)}
    captured = capture(model, inputs)
    assert captured.batch is None
    write_pt2(captured, tmp_path / "a.pt2")
    write_onnx(captured, tmp_path / "a.onnx")
    write_arrays(tmp_path / "right.npz", model, inputs)
    with torch.no_grad():
        model.one.bias.add_(3e-3)
    write_arrays(tmp_path / "wrong.npz", model, inputs)
    fixed = capture(FixedBatch().eval(), noise(6, 4))
    assert fixed.batch == 1
    write_pt2(fixed, tmp_path / "fixed.pt2")
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    jobs = [
        Job(tmp_path / file, file.partition(".")[2], tmp_path / f"{arrays}.npz", keywords=True)
        for arrays in ("right", "wrong")
        for file in ("a.pt2", "a.onnx")
    ]
    *right, first_wrong, second_wrong, broken = run_clean([
        *jobs,
        Job(tmp_path / "broken.onnx", "onnx", tmp_path / "right.npz"),
    ])
    for parity in right:
        assert parity.verified and parity.inputs == 6 and parity.largest_difference < 1e-5, parity
    for parity in (first_wrong, second_wrong):
        assert not parity.verified and parity.largest_difference == pytest.approx(3e-3, abs=1e-4)
        assert str(parity.reason()).startswith("its answers differ by 0.003 where the largest is")
    assert not broken.verified and "does not run in a clean process" in str(broken.reason())


def test_a_branch_on_values_is_named_by_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotExportable, match=r"torch.export: `if x.sum\(\) > 0:` \(test_programs.py, line \d+\): Could"):
        capture(Branching().eval(), noise(6, 4))
    assert capfd.readouterr() == ("", ""), "torch prints what it had captured"


def test_an_operation_that_onnx_lacks_is_named_and_the_program_is_kept(tmp_path: Path) -> None:
    captured = capture(Bessel().eval(), noise(6, 4))
    write_pt2(captured, tmp_path / "a.pt2")
    with pytest.raises(NotExportable, match=r"torch.onnx: operation prims.bessel_i1e: "):
        write_onnx(captured, tmp_path / "a.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt2"]
