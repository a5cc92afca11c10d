"""What somebody may have meant by a command or an option that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

NEAR = 0.8
"""How alike a word must be to what it is taken for, 0 to 1: a suggestion must not lead somewhere else."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "run": ("sweep", "resume"),
    "start": ("sweep",),
    "search": ("sweep",),
    "prune": ("sweep",),
    "tune": ("sweep",),
    "continue": ("resume",),
    "new": ("init",),
    "create": ("init",),
    "ls": ("list", "status"),
    "list": ("list", "status"),
    "studies": ("list", "status"),
    "trials": ("status", "show"),
    "info": ("show", "status"),
    "best": ("front",),
    "pareto": ("front",),
    "results": ("front", "report"),
    "plot": ("front", "report"),
    "rm": ("delete",),
    "remove": ("delete",),
    "mv": ("rename",),
    "save": ("export",),
    "onnx": ("export",),
    "deploy": ("export",),
    "datasets": ("data",),
    "networks": ("models",),
    "keys": ("config",),
    "settings": ("config",),
    "options": ("config",),
    "params": ("space",),
    "check": ("check", "doctor"),
    "diagnose": ("doctor",),
    "mlflow": ("ui",),
    "dashboard": ("ui",),
    "serve": ("ui",),
    "latency": ("profile",),
    "benchmark": ("profile",),
}
"""Commands by what others call them; of several, those that exist are named in this order."""

DETAILS = {
    "version": "paretoprune --version",
    "help": "paretoprune --help",
    "studies": "paretoprune status --all",
    "ls": "paretoprune status --all",
    "list": "paretoprune status --all",
}
"""Whole command lines for words that are no command at all."""

OPTIONS: dict[str, dict[str, str]] = {
    "sweep": {
        "--min-accuracy": "--max-drop POINTS; afterwards `paretoprune front --min-accuracy 95%` shows what reaches it",
        "--gpus": "--gpus-per-trial N",
        "--cpus": "--cpus-per-trial N",
        "--workers": "--max-concurrent N",
        "--jobs": "--max-concurrent N",
        "--lr": "--set finetune.recipe.lr=0.01 for the trials, --set dense.recipe.lr=0.1 for the dense network",
        "--learning-rate": "--set finetune.recipe.lr=0.01",
        "--optimizer": "--set finetune.recipe.optimizer=adamw",
        "--weight-decay": "--set finetune.recipe.weight_decay=1e-4",
        "--pretrained": "--weights DEFAULT, or a file of weights",
        "--method": "--methods A,B",
        "--dataset": "--data NAME",
        "--network": "--model NAME",
        "--n-trials": "--trials N",
        "--output": "--directory DIR",
        "--config": "the file is an argument: paretoprune sweep study.toml",
        "--sampler": "--set sampler=gp",
        "--resume": "`paretoprune resume STUDY`",
        "--timeout": "--trial-timeout SECONDS for each trial; Ctrl-C ends a sweep, `paretoprune resume` goes on",
    },
    "export": {"--output": "--to DIR", "--onnx": "--format onnx", "--best": "--pick best", "--knee": "--pick knee"},
    "front": {"--output": "--plot FILE, --csv or --json", "--best": "--pick best", "--knee": "--pick knee"},
    "train": {"--lr": "--set dense.recipe.lr=0.1", "--learning-rate": "--set dense.recipe.lr=0.1"},
    "resume": {
        "--epochs": "a study keeps its budget; `paretoprune sweep --epochs N --warm-start STUDY` begins another",
        "--methods": "a study keeps its methods; `paretoprune sweep --methods A,B --warm-start STUDY` begins another",
        "--set": "a study keeps its settings; `paretoprune sweep --warm-start STUDY` begins another",
    },
    "report": {"--output": "--to FILE.html", "--format": "the report is one page: --to FILE.html"},
    "init": {"--output": "the file is an argument: paretoprune init study.toml"},
}
"""What does it instead, by command and option."""


def command_hint(given: str, known: Iterable[str]) -> str:
    """Say which command may have been meant.

    Args:
        given: What was written.
        known: The commands there are.

    Returns:
        The end of a sentence; empty where nothing is near. A word that only resembles a command is no suggestion.
    """
    commands = list(known)
    meant = [name for name in COMMANDS.get(given, ()) if name in commands]
    if meant:
        return f" Did you mean {' or '.join(repr(name) for name in meant[:2])}?{_detail(given, meant)}"
    if given in DETAILS:
        return f" Did you mean `{DETAILS[given]}`?"
    near = get_close_matches(given, commands, n=1, cutoff=NEAR)
    if near:
        return f" Did you mean {near[0]!r}?"
    return " `paretoprune --help` lists all commands."


def option_hint(command: str, option: str) -> str:
    """Say how to reach what an option that does not exist stands for.

    Args:
        command: Name of the command.
        option: The option as it was written.

    Returns:
        The end of a sentence; empty where it is not known.
    """
    name = option.partition("=")[0]
    found = OPTIONS.get(command, {}).get(name)
    if found is None and command in ("sweep", "train"):
        found = _find_keys(name, "dense" if command == "train" else "finetune")
    return f"; instead: {found}" if found else ""


def _find_keys(option: str, phase: str) -> str:
    """Name the keys of a configuration that end as an option is called: any key can be set."""
    from search.study.config import StudyConfig
    from search.study.keys import list_keys

    word = option.lstrip("-").replace("-", "_")
    keys = [key.name for key in list_keys(StudyConfig) if key.name.rpartition(".")[2] == word]
    keys.sort(key=lambda name: not name.startswith(phase))
    return " or ".join(f"--set {name}=VALUE" for name in keys[:2])


def _detail(given: str, meant: list[str]) -> str:
    return f" (`{DETAILS[given]}`)" if given in DETAILS and meant[0] == "status" else ""
