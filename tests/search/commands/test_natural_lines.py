"""Command lines as people type them before they read: each does what was meant, or says what does."""

from __future__ import annotations

import json
import shlex
import tomllib
from contextlib import nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from search.commands.cli import COMMANDS, app
from search.commands.hints import command_hint
from search.store.files import write_json
from search.store.studies import StudyFiles
from search.study.config import StudyConfig
from search.study.config_file import load_config
from search.study.keys import list_keys
from search.tasks.data.sets import DATA
from search.tasks.models import MODELS
from spaces import InputError
from tests.search.cases import make_quick_config, outcome

NAMES = [command.__name__ for _, command, _ in COMMANDS]
CHANGING = {"sweep", "train", "resume", "delete", "rename", "export"}
"""Commands that write."""


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with one study of two trials."""
    for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "mlruns"
    files = StudyFiles(directory, "my-study")
    dense = {"accuracy": 0.95, "flops": 1000, "params": 100, "seconds": 2.0}
    files.create({"config": make_quick_config(directory, name="my-study").model_dump(mode="json"), "dense": dense})
    for number in (0, 1):
        files.folder(number).mkdir(parents=True)
        write_json(files.folder(number) / "outcome.json", outcome(number).to_json())
    return directory


def call(line: str) -> Result:
    return CliRunner().invoke(app, shlex.split(line), prog_name="paretoprune")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "Usage: paretoprune"),
        ("swep", "Did you mean 'sweep'?"),
        ("run", "Did you mean 'sweep' or 'resume'?"),
        ("ls", "Did you mean 'list'"),
        ("studies", "Did you mean 'list'"),
        ("version", "`paretoprune --version`"),
        ("networks", "Did you mean 'models'?"),
        ("datasets", "Did you mean 'data'?"),
        ("new", "Did you mean 'init'?"),
        ("dashboard", "Did you mean 'ui'?"),
        ("frobnicate", "`paretoprune --help` lists all commands"),
        ("sweep stduy.toml", "stduy.toml cannot be read: No such file"),
        ("sweep --methods magnitud", "did you mean 'magnitude'?"),
        ("sweep --min-accuracy 95%", "--max-drop POINTS"),
        ("sweep --gpus 1", "--gpus-per-trial N"),
        ("sweep --lr 0.1", "--set finetune.recipe.lr=0.01"),
        ("sweep --pretrained", "--weights DEFAULT"),
        ("sweep --augment cifar", "--set augment=VALUE"),
        ("sweep --preset paper", "--set preset=VALUE"),
        ("sweep --momentum 0.8", "--set finetune.recipe.momentum=VALUE or --set dense.recipe.momentum=VALUE"),
        ("train --warmup 0.1", "instead: --set dense.recipe.warmup=VALUE or"),
        ("sweep --frobnicate 1", "No such option: --frobnicate"),
        ("sweep resnet18", "a network is named with --model resnet18, data with --data"),
        ("sweep weights.pth", "a file of weights is given with --weights weights.pth"),
        ("sweep --set trials=ten", "trials = 'ten' is not allowed: it must be a whole number"),
        ("sweep --set shares=0.5", "shares = 0.5 is not allowed: it must be a list, such as [1, 2]"),
        ("sweep --set methods=magnitud", "unknown method 'magnitud'; did you mean 'magnitude'?"),
        ("resume my-study --epochs 5", "`paretoprune sweep --epochs N --warm-start STUDY` begins another"),
        ("report --format pdf", "--to FILE.html"),
        ("front my-studdy", "did you mean 'my-study'?"),
        ("rename a b", "unknown study 'a' (known: my-study)"),
        ("delete", "Missing argument 'STUDY'"),
        ("export --all --format onxx --to d", "did you mean 'onnx'?"),
        ("config trails", "did you mean 'trials'? `paretoprune config` lists all"),
        ("init a.toml --model resnet18", "did you mean 'torchvision:resnet18'?"),
        ("sweep --device tpu", "unknown device 'tpu'"),
        ("sweep --set epochs=3", "meant may be finetune.epochs or dense.epochs; `paretoprune config` lists all keys"),
        ("sweep --set lr=0.1", "meant may be finetune.recipe.lr or dense.recipe.lr"),
        ("sweep --set trails=3", "did you mean 'trials'?"),
        ("export --pick knee", "say where to with --to DIR"),
        ("export --pick kne --to d", "did you mean 'knee'?"),
        ("front --max-flops half", "max-flops"),
        ("front --sort accurcy", "did you mean 'accuracy'?"),
        ("show my-study", "is not a study and the number of a trial"),
        ("show my-study seven", "such as `my-study 7`, or `7` of the latest"),
        ("show one two 3", "is not a study and the number of a trial"),
        ("config nonsense", "no key has 'nonsense' in its name"),
        ("init a.toml --data digts", "unknown data 'digts'; did you mean 'digits'?"),
        ("init a.toml --model resnet2", "unknown model 'resnet2'; did you mean 'resnet"),
        ("init a.toml --model convnextv2_atto", "did you mean 'timm:convnextv2_atto'?"),
    ],
)
def test_what_is_no_command_line_names_one_that_is(line: str, said: str) -> None:
    result = call(line)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", "").split())
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-h", "Usage: paretoprune"),
        ("front -h", "Example: paretoprune front"),
        ("-V", "paretoprune "),
        ("--version", "paretoprune "),
        ("show 0", "magnitude"),
        ("show my-study 1", "magnitude"),
        ("status --all", "my-study"),
        ("front --max-flops 0.5", "magnitude"),
        ("front --min-accuracy 85%", "magnitude"),
        ("models", "package.module:function"),
        ("models resnet110", "1.73 M parameters"),
        ("data", "imagefolder"),
        ("config", "finetune.recipe.batch_size"),
        ("init", "study.toml"),
    ],
)
def test_what_is_meant_is_done(line: str, said: str) -> None:
    result = call(line)
    assert result.exit_code == 0, result.output
    assert said in result.output


def test_names_with_commas_are_lists() -> None:
    config = load_config(None, ["methods=magnitude,increg", "objectives=accuracy, params", "exports="])
    assert (config.methods, config.objectives) == (("magnitude", "increg"), ("accuracy", "params"))
    assert config.exports == ()


def test_natural_options_reach_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    from search.driver import sweep
    from search.workers import launch

    made: list[StudyConfig] = []

    def note(config: StudyConfig, listener: object, launch: object = None) -> None:
        made.append(config)
        raise InputError("that is enough")

    monkeypatch.setattr(sweep, "Sweep", note)
    monkeypatch.setattr(launch, "Launch", lambda resources: nullcontext())
    monkeypatch.setattr(sweep, "train_dense", note)
    call("sweep --epochs 3 --batch-size 32 --device cpu --set finetune.epochs=4")
    call("train --epochs 3 --device cuda")
    config, other = made
    assert (config.finetune.epochs, config.dense.epochs) == (4, None), "--set is stronger"
    assert config.finetune.recipe == config.dense.recipe == {"batch_size": 32}
    assert config.resources.gpus_per_trial == 0
    assert (other.finetune.epochs, other.dense.epochs, other.resources.gpus_per_trial) == (None, 3, 1)


def test_no_suggestion_leads_to_a_command_that_writes_unless_it_is_nearly_spelt_so() -> None:
    words = ["rename", "remove", "result", "restore", "return", "trial", "tree", "export-all", "swap", "expert"]
    for word in words:
        hint = command_hint(word, [name for name in NAMES if name != word])
        named = {name for name in CHANGING if repr(name) in hint}
        assert named <= {"export", "delete"}, (word, hint)
    assert "resume" not in command_hint("rename", NAMES)
    assert command_hint("resum", NAMES) == " Did you mean 'resume'?"


def test_lists_are_complete() -> None:
    rows = json.loads(call("models --json").stdout)
    assert [row["name"] for row in rows][: len(MODELS)] == list(MODELS)
    rows = json.loads(call("data --json").stdout)
    assert [row["name"] for row in rows][: len(DATA)] == list(DATA)
    keys = {row["name"]: row for row in json.loads(call("config --json").stdout)}
    assert keys["trials"] == {"name": "trials", "default": "24", "meaning": "How many trials the sweep has."}
    assert all(row["meaning"] for row in keys.values()), "every key says what it means"


def test_every_listed_key_can_be_set() -> None:
    for key in list_keys(StudyConfig):
        if key.default not in ("not set", "{}"):
            load_config(None, [f"{key.name}={key.default}"])


def test_a_written_configuration_is_valid_as_it_is_and_with_every_comment_taken_away(tmp_path: Path) -> None:
    line = "init own.toml --model torchvision:resnet18 --data cifar10 --data-root sets --methods magnitude,increg"
    assert call(line).exit_code == 0
    config = load_config(Path("own.toml"))
    assert (config.model, config.data, config.data_root) == ("torchvision:resnet18", "cifar10", Path.cwd() / "sets")
    assert config.methods == ("magnitude", "increg")
    text = Path("own.toml").read_text()
    lines = [line.removeprefix("# ") if " = " in line or "[" in line[:3] else line for line in text.splitlines()]
    Path("whole.toml").write_text("\n".join(lines))
    whole = load_config(Path("whole.toml"))
    assert set(tomllib.loads("\n".join(lines))) >= {"weights", "seed", "space", "resources"}
    assert whole.space == {"magnitude": {"sparsity.flops": {"high": 0.5}}}
    again = call("init own.toml")
    assert (
        again.exit_code == 2 and "own.toml exists; choose another name, or replace it with --overwrite" in again.stderr
    )
    assert call("init own.toml --overwrite").exit_code == 0
    assert load_config(Path("own.toml")).model == "digits_resnet"
    assert "cannot be written" in call("init nowhere/own.toml").stderr
    Path("shapes").mkdir()
    assert call("init hf.toml --data hf:shapes").exit_code == 0
    assert 'data = "hf:shapes"' in Path("hf.toml").read_text()
    assert load_config(Path("hf.toml")).data == f"hf:{Path.cwd()}/shapes"
    Path("etc").mkdir()
    assert call("init etc/own.toml --data-root sets").exit_code == 0
    assert call("init etc/near.toml --data-root etc/sets").exit_code == 0
    assert load_config(Path("etc/own.toml")).data_root == Path.cwd() / "sets"
    assert 'data_root = "sets"' in Path("etc/near.toml").read_text()
    assert load_config(Path("etc/near.toml")).data_root == Path.cwd() / "etc" / "sets"
