"""Running studies: ``sweep``, ``train``, ``resume``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands import options
from search.commands.afterwards import front_so_far, resume_hint, summary
from search.commands.failures import FAILED, INTERRUPTED
from search.commands.interrupts import interrupted_once
from search.commands.options import RUN, SEARCH, names
from search.commands.output import note, put, put_json, put_tables
from spaces.errors import InputError

if TYPE_CHECKING:
    from search.driver.sweep import Sweep
    from search.fronts.front import Front
    from search.records.listener import Listener


def sweep(
    file: options.File = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="Name of the study; numbered after data and model if left out.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    trials: options.Trials = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", show_default=False, help="Pruning methods that compete, with commas.", rich_help_panel=SEARCH
        ),
    ] = None,
    model: options.Model = None,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    objectives: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            show_default=False,
            help="What is searched for, out of accuracy, flops, latency, params, predicted_damage, seconds.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    seed: options.Seed = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    overrides: options.Overrides = None,
    device: options.Device = None,
    cpus_per_trial: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", show_default=False, help="Cores of each trial.", rich_help_panel=RUN),
    ] = None,
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="N",
            show_default=False,
            help="GPUs of each trial; may be a fraction such as 0.25.",
            rich_help_panel=RUN,
        ),
    ] = None,
    max_concurrent: Annotated[
        int | None, typer.Option(min=1, metavar="N", show_default=False, help="Trials at a time.", rich_help_panel=RUN)
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            metavar="ray|inline",
            show_default=False,
            help="On Ray Tune, or one by one in this process.",
            rich_help_panel=RUN,
        ),
    ] = None,
    directory: options.OptionalDirectory = None,
    tracking_uri: options.TrackingUri = None,
    quiet: options.Quiet = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be done; train and write nothing.", rich_help_panel=RUN),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Search for the best pruned networks, and show their Pareto front."""
    from search.study.config import load_config

    config = load_config(
        file,
        (*options.natural("finetune", epochs, batch_size, device), *(overrides or ())),
        name=name,
        trials=trials,
        methods=names(methods),
        model=model,
        data=data,
        data_root=data_root,
        objectives=names(objectives),
        seed=seed,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        max_concurrent=max_concurrent,
        executor=executor,
        directory=directory,
        tracking_uri=tracking_uri,
    )

    def begun(listener: Listener) -> Sweep:
        from search.driver.sweep import Sweep

        return Sweep(config, listener)

    if dry_run:
        _tell_plan(begun, quiet, as_json)
    else:
        _run(begun, quiet, as_json)


def train(
    file: options.File = None,
    model: options.Model = None,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    seed: options.Seed = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    overrides: options.Overrides = None,
    device: options.Device = None,
    directory: options.OptionalDirectory = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Train the dense network alone; sweeps with the same settings then start from it."""
    from search.report.progress import dense_numbers
    from search.study.config import load_config

    natural = options.natural("dense", epochs, batch_size, device)
    config = load_config(
        file,
        (*natural, *(overrides or ())),
        model=model,
        data=data,
        data_root=data_root,
        seed=seed,
        directory=directory,
    )
    with _watched(quiet) as listener:
        from search.driver.sweep import train_dense

        dense = train_dense(config, listener)
    if as_json:
        put_json(dense.to_json())
    else:
        put(f"dense network  {dense_numbers(dense)}")


def resume(
    study: options.Study = None,
    trials: options.Trials = None,
    directory: options.Directory = options.DIRECTORY,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Go on with an interrupted study, or add trials to a finished one."""
    from search.store.studies import StudyFiles

    files = StudyFiles.open(directory, study)  # before torch is loaded: a wrong name is told at once

    def continued(listener: Listener) -> Sweep:
        from search.driver.sweep import Sweep

        return Sweep.resume(files.name, directory, listener, trials)

    _run(continued, quiet, as_json)


def _tell_plan(begun: Callable[[Listener], Sweep], quiet: bool, as_json: bool) -> None:
    with _watched(quiet) as listener:
        plan = begun(listener).plan()
    if as_json:
        put_json(plan.to_json())
    else:
        put("\n".join(plan.lines()))


def _run(begun: Callable[[Listener], Sweep], quiet: bool, as_json: bool) -> None:
    """Run a sweep and print its front, also if Ctrl-C ended it; sum up.

    Raises:
        typer.Exit: If the sweep was interrupted, or no trial was completed.
    """
    from search.report.tables import front_table

    with _watched(quiet) as listener, interrupted_once():
        sweep = begun(listener)
        finished = _until_interrupted(sweep)
    front = front_so_far(sweep) if finished is None else finished
    if front is not None and as_json:
        put_json(front.to_json())
    elif front is not None:
        put_tables(front_table(front))
    if finished is None:
        note(f"interrupted{resume_hint(sweep)}")
        raise typer.Exit(INTERRUPTED)
    if not quiet:
        note("\n".join(summary(sweep)))
    if not finished.members:
        note(f"error: no trial was completed; `paretoprune show {finished.study} 0` tells why the first one failed")
        raise typer.Exit(FAILED)


@contextmanager
def _watched(quiet: bool) -> Generator[Listener]:
    """Show progress on stderr; what foreign code prints meanwhile goes there too, stdout is for data."""
    from search.report.listeners import choose_listener

    with redirect_stdout(sys.stderr):
        shown = choose_listener(quiet, sys.stderr)
        try:
            shown.stage("starting")
            yield shown
        finally:
            shown.close()


def _until_interrupted(sweep: Sweep) -> Front | None:
    """Run a sweep.

    Args:
        sweep: The sweep.

    Returns:
        The finished front; ``None`` if Ctrl-C came first.

    Raises:
        InputError: If the user got something wrong. Any other failure is told with how to go on.
    """
    try:
        return sweep.run()
    except KeyboardInterrupt:
        return None
    except InputError:
        raise
    except Exception:
        if after := resume_hint(sweep):
            note(f"stopped{after}")
        raise
