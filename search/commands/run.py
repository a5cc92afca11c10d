"""Running studies: ``sweep``, ``train``, ``resume``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands import options
from search.commands.afterwards import command_line, front_so_far, resume_hint, summary
from search.commands.failures import FAILED
from search.commands.interrupts import Heard, exit_code, raise_at_first_signal
from search.commands.options import RUN, SEARCH, names
from search.commands.output import note, put, put_json, put_tables
from search.records.collector import import_for_good
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
    methods: options.Methods = None,
    model: options.Model = None,
    weights: options.Weights = None,
    freeze_backbone: options.FreezeBackbone = None,
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
    max_flops: options.SearchedFlops = None,
    min_flops: options.LeastFlops = None,
    max_params: options.SearchedParams = None,
    max_latency: options.SearchedLatency = None,
    max_drop: options.MaxDrop = None,
    sampler: options.SamplerName = None,
    scheduler: options.SchedulerName = None,
    warm_start: options.WarmStart = None,
    budget: options.Budget = None,
    device_budget: options.DeviceBudget = None,
    patience: options.Patience = None,
    seed: options.Seed = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    overrides: options.Overrides = None,
    device: options.Device = None,
    cpus_per_trial: options.CpusPerTrial = None,
    gpus_per_trial: options.GpusPerTrial = None,
    max_concurrent: options.MaxConcurrent = None,
    executor: options.Executor = None,
    address: options.Address = None,
    retries: options.Retries = None,
    trial_timeout: options.TrialTimeout = None,
    storage: options.Storage = None,
    working_dir: options.WorkingDir = None,
    directory: options.OptionalDirectory = None,
    tracking_uri: options.TrackingUri = None,
    study_storage: options.StudyStorage = None,
    quiet: options.Quiet = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be done; train and write nothing.", rich_help_panel=RUN),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Search for the best pruned networks, and show their Pareto front."""
    from search.store.studies import study_names
    from search.study.config_file import load_config
    from search.workers.launch import Launch

    config = load_config(
        file,
        (*options.natural("finetune", epochs, batch_size, device), *(overrides or ())),
        name=name,
        trials=trials,
        methods=names(methods),
        model=model,
        weights=weights,
        freeze_backbone=freeze_backbone,
        data=data,
        data_root=data_root,
        objectives=names(objectives),
        max_flops=max_flops,
        min_flops=min_flops,
        max_params=max_params,
        max_latency=max_latency,
        max_drop=max_drop,
        sampler=sampler,
        scheduler=scheduler,
        warm_start=names(warm_start),
        budget=budget,
        device_budget=device_budget,
        patience=patience,
        seed=seed,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        max_concurrent=max_concurrent,
        executor=executor,
        address=address,
        retries=retries,
        trial_timeout=trial_timeout,
        storage=storage,
        working_dir=working_dir,
        directory=directory,
        tracking_uri=tracking_uri,
        study_storage=study_storage,
    )

    with ExitStack() as leaving:  # Ray is stopped whatever the sweep is refused for

        def begin(listener: Listener) -> Sweep:
            # Ray starts while torch is imported, but not for a name that is going to be refused.
            is_taken = config.name is not None and config.name in study_names(config.directory)
            launch = None if dry_run or is_taken else leaving.enter_context(Launch(config.resources))
            with import_for_good():
                from search.driver.sweep import Sweep
            return Sweep(config, listener, launch=launch)

        if dry_run:
            _tell_plan(begin, quiet, as_json)
        else:
            run_and_show(begin, quiet, as_json)


def train(
    file: options.File = None,
    model: options.Model = None,
    weights: options.Weights = None,
    freeze_backbone: options.FreezeBackbone = None,
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
    from search.study.config_file import load_config

    natural = options.natural("dense", epochs, batch_size, device)
    config = load_config(
        file,
        (*natural, *(overrides or ())),
        model=model,
        weights=weights,
        freeze_backbone=freeze_backbone,
        data=data,
        data_root=data_root,
        seed=seed,
        directory=directory,
    )
    with _show_progress(quiet) as listener:
        from search.driver.sweep import train_dense

        dense = train_dense(config, listener)
    if as_json:
        put_json(dense.to_json())
    else:
        put(f"dense network  {dense_numbers(dense)}")


def resume(
    study: options.Study = None,
    trials: options.Trials = None,
    data_root: options.DataRoot = None,
    weights: options.MovedWeights = None,
    cpus_per_trial: options.CpusPerTrial = None,
    gpus_per_trial: options.GpusPerTrial = None,
    max_concurrent: options.MaxConcurrent = None,
    executor: options.Executor = None,
    address: options.Address = None,
    retries: options.Retries = None,
    trial_timeout: options.TrialTimeout = None,
    storage: options.Storage = None,
    working_dir: options.WorkingDir = None,
    directory: options.Directory = options.DIRECTORY,
    tracking_uri: options.TrackingUri = None,
    study_storage: options.StudyStorage = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Go on with an interrupted study, or add trials to a finished one."""
    from search.store.studies import StudyFiles
    from search.study.config_file import move_places
    from search.workers.launch import Launch

    files = StudyFiles.open(directory, study)  # before torch is loaded: a wrong name is told at once
    moved = {
        "data_root": data_root,
        "weights": weights,
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
        "max_concurrent": max_concurrent,
        "executor": executor,
        "address": address,
        "retries": retries,
        "trial_timeout": trial_timeout,
        "storage": storage,
        "working_dir": working_dir,
        "tracking_uri": tracking_uri,
        "study_storage": study_storage,
    }

    with ExitStack() as leaving:

        def resume_from(listener: Listener) -> Sweep:
            launch = leaving.enter_context(Launch(move_places(files.config(), moved).resources))
            with import_for_good():
                from search.driver.sweep import Sweep
            return Sweep.resume(files.name, directory, listener, trials, moved, launch)

        run_and_show(resume_from, quiet, as_json)


def _tell_plan(begun: Callable[[Listener], Sweep], quiet: bool, as_json: bool) -> None:
    with _show_progress(quiet) as listener:
        plan = begun(listener).plan()
        guess = plan.guess()
    if as_json:
        put_json(plan.to_json() | guess)
    else:
        from search.report.diagnosis import training_lines

        put("\n".join([*plan.lines(), *(f"cost      {line}" for line in training_lines(guess))]))


def run_and_show(begun: Callable[[Listener], Sweep], quiet: bool, as_json: bool) -> None:
    """Run a sweep and print its front, also if a signal ended it; sum up.

    Args:
        begun: Makes the sweep, given who hears of its progress.
        quiet: Show warnings alone.
        as_json: Print the front as JSON.

    Raises:
        typer.Exit: If the sweep was interrupted, or no trial was completed.
    """
    from search.report.tables import front_table

    with _show_progress(quiet) as listener, raise_at_first_signal() as heard:
        sweep = begun(listener)
        finished, code = _run_until_interrupted(sweep, heard)
    front = front_so_far(sweep) if finished is None else finished
    if front is not None and as_json:
        put_json(front.to_json())
    elif front is not None:
        put_tables(front_table(front))
    if finished is None:
        note(f"interrupted{resume_hint(sweep)}")
        raise typer.Exit(code)
    if not quiet:
        note("\n".join(summary(sweep)))
    if not finished.members:
        note(f"error: {_explain_empty_front(finished, sweep.config.directory)}")
        raise typer.Exit(FAILED)


def _explain_empty_front(front: Front, directory: Path) -> str:
    """Say why a sweep that was not interrupted has no front."""
    from search.store.studies import StudyFiles

    study = front.study
    if front.outside:
        return f"every network came out beyond the limits of the study, the first one in trial {front.outside[0]}"
    numbers = StudyFiles.open(directory, study).numbers()
    if not numbers:
        onwards = command_line("resume", study, directory=directory)
        return f"the budget was spent before the first trial; `{onwards}` goes on for as long again"
    why = command_line("show", study, numbers[0], directory=directory)
    return f"no trial was completed; `{why}` tells why the first one failed"


@contextmanager
def _show_progress(quiet: bool) -> Generator[Listener]:
    """Show progress on stderr; what foreign code prints meanwhile goes there too, stdout is for data."""
    from search.report.listeners import choose_listener

    with redirect_stdout(sys.stderr):
        shown = choose_listener(quiet, sys.stderr)
        try:
            shown.stage("starting")
            yield shown
        finally:
            shown.close()


def _run_until_interrupted(sweep: Sweep, heard: Heard) -> tuple[Front | None, int]:
    """Run a sweep.

    Args:
        sweep: The sweep.
        heard: Which signals have come.

    Returns:
        The finished front and 0; ``None`` and the exit code if a signal came first.

    Raises:
        InputError: If the user got something wrong. Any other failure is told with how to go on.
    """
    try:
        return sweep.run(), 0
    except KeyboardInterrupt as interrupt:
        heard.ended.set()
        return None, exit_code(interrupt, heard)
    except InputError:
        raise
    except Exception:
        if after := resume_hint(sweep):
            note(f"stopped{after}")
        raise
