"""Whether a front is more than luck: its members are pruned again with further seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from methods.contract.recipe import derive_seed
from methods.network.architecture import rebuild
from search.driver.dense_setting import dense_setting
from search.driver.prepare import plan, require_same
from search.fronts.confirmation import Confirmation, judge
from search.fronts.front import Front
from search.objectives.quality import measure_quality
from search.records.listener import Listener
from search.records.outcome import Outcome
from search.records.trial_spec import TrialSpec
from search.report.listeners import choose_listener
from search.store.files import read_json, write_json
from search.store.reruns import RerunFiles
from search.store.studies import StudyFiles
from search.tasks.workload import Workload
from search.trials.trial import Setting
from search.workers.inline import InlinePool
from spaces import InputError

LEAST = 2
"""Seeds that an interval needs."""

_FURTHER = 1_000_003
"""Keeps further seeds apart from those of trials, which are derived from a number alone."""


def confirm(
    study: str | None = None,
    directory: Path | str = "mlruns",
    *,
    seeds: int = 3,
    listener: Listener | None = None,
    workload: Workload | None = None,
) -> Confirmation:
    """Prune every member of a front again with further seeds, and say which of them stand.

    Every rerun is a folder under the study's ``confirmations/``, written when it is finished: what was interrupted
    goes on, and more seeds add to those that are there. The outcomes of the study stay as they are. When all reruns are
    there, and not before, the networks of the members that stand are tested.

    Args:
        study: Name of the study; ``None`` for the one that was begun last.
        directory: The run store.
        seeds: How many further seeds, at least two.
        listener: Receives progress; shown by default.
        workload: Network and data in hand, for a study that was made from them.

    Returns:
        Means, intervals and verdicts; also stored as ``confirmations/confirmation.json``.

    Raises:
        InputError: If there is no such study or no front, too few seeds, or another process confirms this study.
    """
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < LEAST:
        raise InputError(f"seeds = {seeds!r}: an interval needs at least {LEAST} further seeds, such as seeds = 3")
    files = StudyFiles.open(directory, study)
    front = files.front()
    if not front.members:
        raise InputError(
            f"study {files.name!r} has no front to confirm: none of its trials is complete; "
            f"`paretoprune status {files.name}` tells how they ended"
        )
    parts = [RerunFiles(files, index) for index in range(seeds)]
    for part in parts:
        part.prepare()
    lock = FileLock(files.root / "confirmations" / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"study {files.name!r} is being confirmed by another process") from error
    watcher = listener or choose_listener()
    try:
        return _confirm(files, front, parts, watcher, workload)
    finally:
        watcher.close()
        lock.release()


def _confirm(
    files: StudyFiles, front: Front, parts: list[RerunFiles], listener: Listener, workload: Workload | None
) -> Confirmation:
    """Run what is missing, judge, and test what stands."""
    listener.stage("loading data and network")
    planned = plan(files.config(), workload)
    require_same(files, planned.workload)
    listener.stage("dense network")
    setting = dense_setting(planned, listener.dense_epoch, files.dense().latency)[0]
    resources = planned.config.resources
    pool = InlinePool(resources.retries, resources.trial_timeout, listener.warning)
    reruns: dict[int, dict[int, Outcome]] = {member.trial: {} for member in front.members}
    for index, part in enumerate(parts):
        for member in front.members:
            seed = derive_seed(planned.config.seed, _FURTHER, index)
            spec = TrialSpec(member.trial, member.method, dict(member.point), seed)
            if member.trial not in part.numbers():
                listener.stage(f"trial {member.trial} ({member.method}) with seed {index + 1} of {len(parts)}")
                pool.run_one(setting, spec, part)
            reruns[member.trial][index] = _read_checked(part, spec)
    judged = judge(front, reruns, len(parts))
    standing = [each.member.trial for each in judged.confirmed]
    listener.stage(f"testing {len(standing)} member{'s' * (len(standing) != 1)} that stand{'s' * (len(standing) == 1)}")
    for part in parts:
        _test(files, part, standing, setting, planned.workload)
    # Read again, with the test metrics; what was tested in an earlier run and stands no more stays out of sight.
    for trial, outcomes in reruns.items():
        if trial in standing:
            outcomes.update({index: parts[index].outcome(trial) for index in outcomes})
    confirmation = judge(front, reruns, len(parts))
    write_json(files.root / "confirmations" / "confirmation.json", confirmation.to_json())
    return confirmation


def _read_checked(part: RerunFiles, spec: TrialSpec) -> Outcome:
    """Read a rerun, and refuse one of another point."""
    outcome = part.outcome(spec.number)
    if (outcome.method, outcome.point, outcome.seed) != (spec.method, spec.point, spec.seed):
        raise InputError(
            f"{part.folder(spec.number)} is the rerun of another point or seed; remove the folder, and "
            f"`paretoprune confirm {part.name}` runs it again"
        )
    return _drop_test_metrics(outcome)


def _drop_test_metrics(outcome: Outcome) -> Outcome:
    """Leave out what an earlier run read from the test set: verdicts are made without it."""
    return replace(outcome, test_metrics={})


def _test(files: StudyFiles, part: RerunFiles, trials: list[int], setting: Setting, workload: Workload) -> None:
    """Test the reruns of one seed, each once."""
    tested = part.read_tested()
    for trial in trials:
        if str(trial) in tested or not part.outcome(trial).complete:
            continue
        architecture = read_json(part.folder(trial) / "architecture.json")
        layers = files.layers_of(trial, architecture)
        model = rebuild(setting.model, architecture, part.weights(trial), layers)
        tested[str(trial)] = measure_quality(model, workload.data.test, setting.task, setting.device)
    part.write_tested(tested)
