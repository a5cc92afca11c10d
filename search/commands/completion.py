"""What the shell completes: studies, methods, networks, data sets and keys; nothing heavy is loaded for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer


def complete_studies(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a study of the store that the line names.

    Args:
        ctx: What is known of the line so far.
        incomplete: What stands there already.

    Returns:
        Names, the latest first.
    """
    from search.store.studies import study_names

    directory = ctx.params.get("directory") or Path("mlruns")
    return _filter_by_prefix(incomplete, reversed(study_names(Path(directory))))


def complete_study_lists(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the last one of several studies with commas between them.

    Args:
        ctx: What is known of the line so far.
        incomplete: What stands there already.

    Returns:
        Lists.
    """
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in complete_studies(ctx, last)]


def complete_methods(incomplete: str) -> list[str]:
    """Complete the name of a method.

    Args:
        incomplete: What stands there already.

    Returns:
        Names.

    Example:
        >>> complete_methods("in")
        ['increg']
    """
    from methods import method_names

    return _filter_by_prefix(incomplete, method_names())


def complete_method_lists(incomplete: str) -> list[str]:
    """Complete the last one of several methods with commas between them; none is proposed twice.

    Args:
        incomplete: What stands there already.

    Returns:
        Lists.

    Example:
        >>> complete_method_lists("increg,mag")
        ['increg,magnitude']
    """
    before, comma, last = incomplete.rpartition(",")
    there = before.split(",")
    return [f"{before}{comma}{name}" for name in complete_methods(last) if name not in there]


def complete_models(incomplete: str) -> list[str]:
    """Complete the name of a network of ours, or how the other names begin.

    Args:
        incomplete: What stands there already.

    Returns:
        Names.

    Example:
        >>> complete_models("resnet1")
        ['resnet110']
    """
    from methods.contract.named import list_known_names
    from search.tasks.models import GROUP, HF, MODELS, TIMM, TORCHVISION

    return _filter_by_prefix(incomplete, [*list_known_names(MODELS, GROUP), TORCHVISION, TIMM, HF])


def complete_data(incomplete: str) -> list[str]:
    """Complete the name of a data set, or how the other names begin.

    Args:
        incomplete: What stands there already.

    Returns:
        Names.

    Example:
        >>> complete_data("cifar")
        ['cifar10', 'cifar100']
    """
    from methods.contract.named import list_known_names
    from search.tasks.data.sets import DATA, GROUP, HF

    return _filter_by_prefix(incomplete, [*list_known_names(DATA, GROUP), HF])


def complete_settings(incomplete: str) -> list[str]:
    """Complete the key of ``--set KEY=VALUE``.

    Args:
        incomplete: What stands there already.

    Returns:
        Keys with an equals sign.

    Example:
        >>> complete_settings("finetune.ep")
        ['finetune.epochs=']
    """
    from search.study.config import StudyConfig
    from search.study.keys import list_keys

    return _filter_by_prefix(incomplete, [f"{key.name}=" for key in list_keys(StudyConfig)])


def _filter_by_prefix(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
