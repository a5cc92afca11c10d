"""What ``doctor`` says of a network, by command and from Python."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from methods.network.preflight import PROOFS
from search.commands.cli import app
from search.driver.doctor import doctor
from spaces import InputError
from tests.methods.cases import seeded
from tests.methods.network.networks import EXAMPLE, KINDS

KEYS = {
    "model", "proofs", "difference", "dense", "least", "reachable_flops_share", "reachable_params_share", "groups",
    "stays", "left_out", "methods", "training", "steps_per_trial", "batch_size", "seconds_per_trial",
    "megabytes_per_trial",
}  # fmt: skip
OWN_NETWORK = """
from torch import nn

def without_layers(classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))
"""


@pytest.fixture(autouse=True)
def plain_output(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def call_doctor(*words: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *words])


def test_json_has_every_key_and_agrees_with_the_function() -> None:
    result = call_doctor("resnet20", "--methods", "magnitude,increg", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert set(said) == KEYS and said["model"] == "resnet20" and said["proofs"] == list(PROOFS)
    assert set(said["methods"]) == {"magnitude", "increg"}
    assert all(each == {"applies": True, "why": ""} for each in said["methods"].values())
    assert 0 < said["least"]["flops"] < said["dense"]["flops"] and said["left_out"] == {}
    assert said["reachable_flops_share"] == [said["least"]["flops"] / said["dense"]["flops"], 1.0]
    assert {"name", "units", "stage", "modules", "couplings", "flops_share", "params_share"} == set(said["groups"][0])
    assert said["megabytes_per_trial"] > 0 and said["seconds_per_trial"] is None  # no data, so no number of steps


def test_tables_fit_sixty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    result = call_doctor("digits_resnet", "--methods", "magnitude,random", "--quiet")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 60
    for title in ("what can be removed", "What stays whole", "Methods", "proven:", "reachable:"):
        assert title in result.stdout


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_wider_terminals_and_say_what_each_group_is_worth(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    result = call_doctor("digits_resnet", "--methods", "magnitude", "--quiet")
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= width
    assert "FLOPs" in result.stdout and "modules" in result.stdout
    assert "a step of training: " in result.stdout and "for 4 examples" in " ".join(result.stdout.split())


def test_data_give_a_guess_of_a_trial() -> None:
    result = call_doctor("digits_resnet", "--data", "digits", "--methods", "magnitude", "--quiet", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["steps_per_trial"] > 100 and said["batch_size"] == 64 and said["training"]["batch"] == 4
    fixed = said["training"]["fixed_seconds_per_step"]
    step = fixed + (said["training"]["seconds_per_step"] - fixed) / 4 * 64
    assert said["seconds_per_trial"] == pytest.approx(step * said["steps_per_trial"])
    assert said["megabytes_per_trial"] > said["training"]["megabytes_per_step"]
    assert all(0 < group["flops_share"] < 1 for group in said["groups"])


def test_nothing_to_prune_is_a_sentence_in_the_function_and_in_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="nothing to prune in Sequential: .*it is the network's output"):
        doctor(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), torch.zeros(1, 3, 8, 8))
    (tmp_path / "bare_network.py").write_text(OWN_NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "bare_network", raising=False)
    result = call_doctor("bare_network:without_layers", "--data", "digits", "--quiet")
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert "nothing to prune in Sequential" in result.stderr and not result.stdout


def test_function_gives_groups_reasons_and_costs_and_leaves_the_network_alone() -> None:
    model = seeded(KINDS["shared weight"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    told: list[str] = []
    found = doctor(model, EXAMPLE, ["magnitude"], name="mine", progress=told.append)
    assert found.model == "mine" and found.methods == {"magnitude": ""} and found.findings.groups
    assert told[0] == "following the network" and told[-1] == "asking the methods"
    assert found.training is not None and found.training.bytes > 0
    assert found.training.fixed_bytes == 3 * 4 * sum(p.numel() for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_unknown_method_and_layers_that_must_stay() -> None:
    model = seeded(KINDS["shared weight"])
    with pytest.raises(InputError, match="magnitud"):
        doctor(model, EXAMPLE, ["magnitud"])
    free = [group.name for group in doctor(model, EXAMPLE, ["random"]).findings.groups]
    held = doctor(model, EXAMPLE, ["random"], ignored=[free[-1]])
    assert free[-1] not in [group.name for group in held.findings.groups]
    assert free[-1] in held.to_json()["stays"]
