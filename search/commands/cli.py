"""The command line: parsing and printing only.

Importing this, and every ``--help``, costs neither torch nor any other heavy library: commands import what they
need when they run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from search.commands import (
    allocate,
    begin,
    confirm,
    doctor,
    keep,
    league,
    look,
    manage,
    page,
    profile,
    reference,
    report,
    run,
    valley,
)
from search.commands.failures import report_failures
from search.commands.hints import command_hint, option_hint
from search.commands.output import prepare_streams
from search.records.collector import keep_what_is_there

RUNNING = "Run"
LOOKING = "Inspect"
KEEPING = "Keep"
KNOWING = "Reference"

COMMANDS: tuple[tuple[str, Callable[..., None], str], ...] = (
    (RUNNING, begin.init, "paretoprune init small.toml --model resnet20 --data cifar10"),
    (RUNNING, run.sweep, "paretoprune sweep --methods magnitude,increg --trials 12 --set finetune.epochs=2"),
    (RUNNING, run.train, "paretoprune train --model digits_resnet --data digits"),
    (RUNNING, run.resume, "paretoprune resume my-study --trials 48"),
    (RUNNING, manage.enqueue, "paretoprune enqueue my-study magnitude sparsity.flops=0.3"),
    (RUNNING, league.league, "paretoprune league --name digits --arms increg,greedy --seeds 3 --minutes 20"),
    (RUNNING, manage.rerun, "paretoprune rerun my-study 1"),
    (RUNNING, confirm.confirm, "paretoprune confirm my-study --seeds 3"),
    (LOOKING, look.status, "paretoprune status my-study --json"),
    (LOOKING, look.front, "paretoprune front my-study --max-flops 50% --plot front.png"),
    (LOOKING, look.show, "paretoprune show my-study 7"),
    (LOOKING, look.compare, "paretoprune compare my-study other-study"),
    (LOOKING, report.report, "paretoprune report my-study other-study --to report.html"),
    (LOOKING, valley.valley, "paretoprune valley my-study 7 --plot valley.png"),
    (LOOKING, keep.export, "paretoprune export my-study --pick knee --to small-network"),
    (LOOKING, page.ui, "paretoprune ui --port 5001 --no-browser"),
    (KEEPING, manage.list_studies, "paretoprune list"),
    (KEEPING, manage.check, "paretoprune check my-study"),
    (KEEPING, manage.rename, "paretoprune rename my-study better-name"),
    (KEEPING, manage.delete, "paretoprune delete my-study --yes"),
    (KEEPING, manage.mirror, "paretoprune mirror my-study --to http://localhost:5000"),
    (KNOWING, reference.methods, "paretoprune methods"),
    (KNOWING, reference.space, "paretoprune space increg --model resnet56"),
    (KNOWING, reference.models, "paretoprune models resnet5"),
    (KNOWING, reference.data, "paretoprune data"),
    (KNOWING, reference.config, "paretoprune config finetune"),
    (KNOWING, doctor.doctor, "paretoprune doctor torchvision:resnet50"),
    (
        KNOWING,
        allocate.allocate,
        "paretoprune allocate --model digits_resnet --of params --budgets 50%,25%",
    ),
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
        with report_failures(show_traceback=bool(ctx.params["traceback"])), _add_option_hints():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that was asked for.

        Args:
            ctx: Typer's context.
            args: The words of the command line, the command first.

        Returns:
            What typer needs to run it. A word that is no command ends in a usage error that names what was meant,
            and never a command that does something else.
        """
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            ctx.fail(f"No such command {args[0]!r}.{command_hint(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


@contextmanager
def _add_option_hints() -> Generator[None]:
    """Add to the usage error of an option that does not exist what does its work."""
    try:
        yield
    except Exception as error:
        option = getattr(error, "option_name", None)  # typer's error class is not public
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoSuchOption" and option is not None and context is not None:
            hint = option_hint(context.info_name or "", option)
            if hint:
                error.message = f"No such option: {option}{hint}"  # type: ignore[attr-defined]
                error.possibilities = []  # type: ignore[attr-defined]
        raise


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"paretoprune {version('paretoprune')}")
        except PackageNotFoundError:  # run as python -m paretoprune in a clone
            typer.echo("paretoprune, not installed")
        raise typer.Exit


def _parse_common_options(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version.")
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
    application.callback(epilog="Start with: paretoprune sweep. For your own network and data: paretoprune init")(
        _parse_common_options
    )
    for heading, command, example in COMMANDS:
        # What a caller in Python must know of the function, its sections, says nothing to who calls the command.
        said = inspect.cleandoc(command.__doc__ or "").partition("\nRaises:")[0].strip()
        name = example.split()[1]
        application.command(name, help=said, rich_help_panel=heading, epilog=f"Example: {example}")(command)
    return application


app = _application()


def main() -> None:
    """Run ``paretoprune`` with the arguments of the process; ends the process with an exit code."""
    prepare_streams()
    try:
        app(prog_name="paretoprune")
    finally:
        keep_what_is_there()
