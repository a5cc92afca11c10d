"""Every kind of network, cut and written down, gives the same numbers to the last bit in another process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from methods.network.architecture import describe
from methods.network.channels import channel_groups, cut
from tests.methods.cases import seeded
from tests.methods.network import reload


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_another_process_gives_the_same_answers(tmp_path: Path) -> None:
    for place, (build, example) in enumerate(reload.CASES.values()):
        model = seeded(build)
        groups = channel_groups(model, example)
        smaller = cut(model, groups, {group.name: range(1, max(2, group.channels // 2 + 1)) for group in groups})
        assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())
        (tmp_path / f"{place}.json").write_text(json.dumps(describe(model, smaller)))
        answers = reload.answers_of(smaller, example)
        torch.save({"weights": smaller.state_dict(), "answers": answers}, tmp_path / f"{place}.pt")
    command = [sys.executable, "-W", "ignore", "-m", reload.__name__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"read": len(reload.CASES), "different": []}
