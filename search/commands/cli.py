"""The command line: parsing and printing only.

Importing this, and every ``--help``, costs neither torch nor any other heavy library: commands import what they
need when they run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from search.commands import keep, look, page, profile, reference, run, valley
from search.commands.failures import report_failures
from search.commands.output import prepare_streams

RUNNING = "Run"
LOOKING = "Look"
KNOWING = "Know"

COMMANDS: tuple[tuple[str, Callable[..., None], str], ...] = (
    (RUNNING, run.sweep, "paretoprune sweep --methods magnitude,increg --trials 12 --set finetune.epochs=2"),
    (RUNNING, run.train, "paretoprune train --model digits_resnet --data digits"),
    (RUNNING, run.resume, "paretoprune resume my-study --trials 48"),
    (LOOKING, look.status, "paretoprune status my-study --json"),
    (LOOKING, look.front, "paretoprune front my-study --max-flops 50% --plot front.png"),
    (LOOKING, look.show, "paretoprune show my-study 7"),
    (LOOKING, look.compare, "paretoprune compare my-study other-study"),
    (LOOKING, valley.valley, "paretoprune valley my-study 7 --plot valley.png"),
    (LOOKING, keep.export, "paretoprune export my-study --pick knee --to small-network"),
    (LOOKING, page.ui, "paretoprune ui --port 5001 --no-browser"),
    (KNOWING, reference.methods, "paretoprune methods"),
    (KNOWING, reference.space, "paretoprune space increg --model resnet56"),
    (KNOWING, profile.profile, "paretoprune profile resnet20 --batch-size 64 --plot profile.png"),
)
"""Every command with its heading in the list of commands, and an example."""


class Reporting(TyperGroup):
    """A group of commands whose failures end in one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for.

        Args:
            ctx: Typer's context; its ``traceback`` says whether to print tracebacks.

        Returns:
            What the command returns: nothing.
        """
        with report_failures(show_traceback=bool(ctx.params["traceback"])):
            return super().invoke(ctx)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"paretoprune {version('paretoprune')}")
        except PackageNotFoundError:  # run as python -m paretoprune in a clone
            typer.echo("paretoprune, not installed")
        raise typer.Exit


def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Print the traceback of a failure.")] = False,
) -> None:
    """Search for the best structured pruning of a network: methods, hyperparameters and sparsities.

    The result is a Pareto front of smaller networks: none is both more accurate and cheaper than another.
    """


def _application() -> typer.Typer:
    application = typer.Typer(
        name="paretoprune",
        cls=Reporting,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    application.callback(epilog="Start with: paretoprune sweep")(_common)
    for heading, command, example in COMMANDS:
        application.command(rich_help_panel=heading, epilog=f"Example: {example}")(command)
    return application


app = _application()


def main() -> None:
    """Run ``paretoprune`` with the arguments of the process; ends the process with an exit code."""
    prepare_streams()
    app(prog_name="paretoprune")
