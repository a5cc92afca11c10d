"""The mirror of a study in MLflow: one parent run per sweep, one child run per trial.

The only import of mlflow, and only once a :class:`Tracker` is opened (it takes a second). The driver alone owns
a tracker. After :meth:`Tracker.start_sweep` everything is sent by one background thread, so that a slow server
does not slow the sweep, and what cannot be sent is counted, not raised, so that a lost server does not end it:
:meth:`Tracker.close` tells. The study's own files stay the truth; sending a trial twice is harmless.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from search.objectives import Objective
from search.records.outcome import DenseRow, Outcome
from search.records.text import remove_credentials
from search.report.palette import styles
from search.tracking.models import ModelSource, log_model, register
from search.tracking.origin import origin
from search.tracking.outbox import Delivery, Outbox
from search.tracking.records import (
    ACCURACY,
    COSTS,
    MetricPoint,
    clean_names,
    clip_markdown,
    dense_metrics,
    dense_name,
    flatten,
    milliseconds,
    run_name,
    shares,
    split_finite,
    trial_metrics,
    trial_params,
)
from search.tracking.run_store import RunStore, experiment_name
from search.tracking.ui_views import describe_views
from spaces import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
RUN_TAG_LENGTH = 8000
EXPERIMENT_TAG_LENGTH = 20000
METRICS_PER_BATCH = 800  # with the parameters and tags of one call below 1000 entities, MLflow's limit
PARAMS_PER_BATCH = 100
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow's own patience with a server (7 retries, 120 s each) would hold up a finished sweep for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class Child(NamedTuple):
    """The run of a trial.

    Attributes:
        run_id: Its id.
        status: MLflow's status of it; ``RUNNING`` until everything was sent.
        method: The trial's method.
        began: When the trial began, in milliseconds since the epoch: a trial that was run again has another.
    """

    run_id: str
    status: str
    method: str
    began: int


class Tracker:
    """Sends sweeps and trials to one MLflow experiment; made by :meth:`open`.

    Args:
        client: MLflow's client of the store.
        store: The store's address.
        experiment_id: Id of the experiment.
    """

    def __init__(self, client: MlflowClient, store: RunStore, experiment_id: str) -> None:
        self.store = store
        self.experiment_id = experiment_id
        self._client = client
        self._outbox = Outbox(_reason)
        self._origin = origin()
        self._sweep = ""
        self._parent = ""
        self._children: dict[int, Child] = {}
        self._dense_run: str | None = None
        self._quality: Objective = ACCURACY
        self._costs: tuple[str, ...] = COSTS

    @classmethod
    def open(cls, directory: Path, tracking_uri: str | None = None, experiment: str | None = None) -> Self:
        """Open the store, creating it and the experiment where they do not exist.

        A store that cannot be used is an :class:`~spaces.InputError` whose message says what would do.

        Args:
            directory: The directory of the project's runs (``mlruns/``).
            tracking_uri: MLflow's address; by default ``MLFLOW_TRACKING_URI``, else a database in
                ``directory`` with the runs' files beside it.
            experiment: Name of the experiment; by default ``MLFLOW_EXPERIMENT_NAME``, else ``paretoprune``.

        Returns:
            The open tracker.
        """
        store = RunStore.resolve(directory, tracking_uri)
        store.prepare()
        import_mlflow()
        with _explain(store), store.wait_for_database():
            store.repair_locations()
            client = _client(store.uri)
            store.remove_misread_folder()
            return cls(client, store, _experiment_id(client, store, experiment_name(experiment)))

    def start_sweep(
        self,
        name: str,
        config: Mapping[str, Any],
        dense: DenseRow | None = None,
        tags: Mapping[str, str] | None = None,
        run_id: str | None = None,
        objectives: Sequence[Objective] = (),
    ) -> str:
        """Create the parent run of a sweep, or continue it; the only call that waits for MLflow.

        Args:
            name: Name of the study, the parent's run name.
            config: The resolved configuration: parameters of the parent run (nested keys joined by dots) and
                its artefact ``config.json``. Values that a resumed sweep changed become tags ``changed.KEY``,
                since MLflow's parameters are final.
            dense: The dense network, if it is known already.
            tags: Further tags of the parent run.
            run_id: The parent run to continue; one that this store does not hold (any more) is made again.
            objectives: What is searched for: decides names of runs, and columns and charts of the page.

        Returns:
            The parent's run id, to be handed in again when the sweep is resumed.
        """
        self._sweep = name
        self._quality = next((each for each in objectives if each.quality), ACCURACY)
        costs = [each.name for each in objectives if each.relative and each.name != "seconds"]
        self._costs = tuple(dict.fromkeys([*costs, *COSTS]))
        with _explain(self.store):
            parent = self._find_parent_run(run_id) if run_id else None
            if parent is None:
                own = {"kind": "sweep", "sweep": name, **self._origin, **(tags or {})}
                parent = self._client.create_run(self.experiment_id, milliseconds(time.time()), own, name)
                self._children = {}
            else:
                self.experiment_id = parent.info.experiment_id
                self._client.update_run(parent.info.run_id, "RUNNING")
                self._children = self._find_children(parent.info.run_id)
            self._parent = parent.info.run_id
            self._send_config(config, parent.data.params)
            for key, view in describe_views(self._quality.name, self._costs).items():
                self._client.set_experiment_tag(self.experiment_id, key, json.dumps(view))
        if dense is not None:
            self.log_dense(dense)
        return self._parent

    def log_dense(self, dense: DenseRow) -> None:
        """Send the dense network's numbers to the parent run, and as a run of its own beside the trials.

        Args:
            dense: The dense network; sent again, what is new is added.
        """
        self._outbox.submit("the dense network's run", partial(self._send_dense, dense))
        numbers = {f"dense_{name}": value for name, value in dense.metrics.items()}
        numbers |= {f"dense_test_{name}": value for name, value in dense.test_metrics.items()}
        self._outbox.submit("the dense network", partial(self._send_numbers, numbers))

    def log_trial(self, outcome: Outcome, dense: DenseRow | None, files: Mapping[str, Path] | None = None) -> None:
        """Send a finished trial as a child run; does nothing when MLflow has it already.

        Args:
            outcome: The trial, complete or failed.
            dense: The dense network, for the shares of its FLOPs and parameters.
            files: Artefacts by their path in the run.
        """
        send = partial(self._send_trial, outcome, dense, dict(files or {}))
        self._outbox.submit(f"trial {outcome.number}", send)

    def log_tests(self, numbers: Mapping[int, Mapping[str, float]]) -> None:
        """Add what the test set said to runs of trials.

        Args:
            numbers: Metrics by name, by number of the trial.
        """
        for number, metrics in numbers.items():
            self._outbox.submit(f"the test of trial {number}", partial(self._send_metrics, number, metrics))

    def log_model(self, number: int, source: ModelSource) -> None:
        """Send the network of a trial as a logged model; does nothing when MLflow has it already.

        Args:
            number: The trial.
            source: Its network.
        """
        self._outbox.submit(f"the network of trial {number}", partial(self._send_model, number, source))

    def register_model(self, parent: str, number: int, source: ModelSource, name: str, alias: str | None) -> str:
        """Register the network of a trial; waits for MLflow, and logs the network first where that was not done.

        Args:
            parent: Run of the sweep.
            number: The trial.
            source: Its network.
            name: Name of the registered model.
            alias: Alias that points at it from now on.

        Returns:
            The number of the version.

        Raises:
            InputError: If MLflow does not have the trial, or does not take name or alias.
        """
        with _explain(self.store):
            run = self._find_parent_run(parent)
            child = None if run is None else self._find_children(parent).get(number)
            if run is None or child is None:
                raise InputError(f"MLflow at {self.store.public} does not hold trial {number} of {source.name!r}")
            model_id = log_model(self._client, run.info.experiment_id, child.run_id, source)
            return register(self._client, model_id, child.run_id, name, alias)

    def finish_sweep(
        self,
        ranks: Mapping[int, int],
        files: Mapping[str, Path],
        hypervolume: float,
        note: str,
        summary: Mapping[str, float] | None = None,
    ) -> None:
        """Mark the front, send the sweep's results to the parent run and end it.

        Args:
            ranks: How many fronts must be taken away before a trial is on the front, by number; 0 is on it.
            files: The front's files by name; they go to ``front/`` of the parent run.
            hypervolume: Hypervolume of the front.
            note: The front as Markdown, shown on the parent run and the experiment.
            summary: Further metrics of the sweep, such as ``trials`` and ``overhead_share``.
        """
        submit = self._outbox.submit
        for number, rank in sorted(ranks.items()):
            submit(f"the rank of trial {number}", partial(self._send_rank, number, rank, frozenset(ranks)))
        for name, path in files.items():
            submit(f"front/{name}", partial(self._send_file, self._parent, f"front/{name}", path))
        numbers = {"hypervolume": hypervolume, **(summary or {})}
        submit("the sweep's results", partial(self._send_numbers, numbers))
        submit("the sweep's note", partial(self._send_note, note))
        submit("the sweep's end", partial(self._client.set_terminated, self._parent, "FINISHED"))

    def stop_sweep(self, status: Literal["KILLED", "FAILED"] = "KILLED") -> None:
        """End the parent run of a sweep that did not finish.

        Args:
            status: ``KILLED`` when it was interrupted, ``FAILED`` when an error ended it.
        """
        self._outbox.submit("the sweep's end", partial(self._client.set_terminated, self._parent, status))

    def close(self, timeout: float = 120.0) -> Delivery:
        """Wait until everything is sent; nothing can be sent afterwards.

        Args:
            timeout: How long to wait at most, in seconds; what is not sent by then is counted as lost.

        Returns:
            What was sent and what was lost.
        """
        return self._outbox.close(timeout)

    def _find_parent_run(self, run_id: str) -> Run | None:
        """Return the parent run of an earlier start, unless this store never had it or it was deleted."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if run.info.lifecycle_stage == "active" else None

    def _find_children(self, parent: str) -> dict[int, Child]:
        """Return the runs of trials that an earlier start has sent, by number."""
        children: dict[int, Child] = {}
        query, token = f"tags.`{PARENT}` = '{parent}' and tags.kind = 'trial'", None
        while True:
            page = self._client.search_runs([self.experiment_id], query, max_results=1000, page_token=token)
            for run in page:
                tags = run.data.tags
                began = int(run.info.start_time)
                children[int(tags["trial"])] = Child(run.info.run_id, run.info.status, tags["method"], began)
            token = page.token
            if not token:
                return children

    def _send_config(self, config: Mapping[str, Any], known: Mapping[str, str]) -> None:
        params = clean_names(flatten(config))
        self._log(self._parent, [], {key: text for key, text in params.items() if key not in known})
        for key, text in params.items():
            if key in known and known[key] != text:
                self._client.set_tag(self._parent, f"changed.{key}", text)
        self._client.log_dict(self._parent, dict(config), "config.json")

    def _send_trial(self, outcome: Outcome, dense: DenseRow | None, files: Mapping[str, Path]) -> None:
        """Write one child run; its end status comes last, so that a run that lacks something is RUNNING."""
        status = {"complete": "FINISHED", "stopped": "KILLED"}.get(outcome.state, "FAILED")
        child = self._children.get(outcome.number)
        if child is not None and child.status != "RUNNING" and child.began != milliseconds(outcome.started):
            self._client.delete_run(child.run_id)  # the trial was run again: its old numbers count no more
            child = None
        child = child or self._create_child(outcome, dense)
        if child.status == status:
            return
        points = trial_metrics(outcome, dense, self._quality, self._costs)
        self._log(child.run_id, points, trial_params(outcome))
        if outcome.error is not None:
            last_line = outcome.error.strip().rpartition("\n")[2]
            self._client.log_text(child.run_id, outcome.error, "traceback.txt")
            self._client.set_tag(child.run_id, "error", last_line[:RUN_TAG_LENGTH])
        failures = []
        for name, path in files.items():
            try:
                self._send_file(child.run_id, name, path)
            except Exception as error:  # a lost picture must not leave the run open
                failures.append(error)
        self._client.set_terminated(child.run_id, status, milliseconds(outcome.started + outcome.seconds))
        self._children[outcome.number] = child._replace(status=status)
        if failures:
            raise failures[0]

    def _create_child(self, outcome: Outcome, dense: DenseRow | None) -> Child:
        """Return the new run of a trial."""
        tags = {
            PARENT: self._parent,
            "kind": "trial",
            "trial": str(outcome.number),
            "sweep": self._sweep,
            "method": outcome.method,
            **self._origin,
        }
        share = shares(outcome, dense, self._costs).get(f"{self._costs[0]}_share")
        name = run_name(outcome, share, self._quality)
        run = self._client.create_run(self.experiment_id, milliseconds(outcome.started), tags, name)
        child = Child(run.info.run_id, run.info.status, outcome.method, int(run.info.start_time))
        self._children[outcome.number] = child
        return child

    def _send_dense(self, dense: DenseRow) -> None:
        """Write the run of the dense network: the point that all others are compared with."""
        if self._dense_run is None:
            query = f"tags.`{PARENT}` = '{self._parent}' and tags.kind = 'dense'"
            found = self._client.search_runs([self.experiment_id], query, max_results=1)
            self._dense_run = found[0].info.run_id if found else self._create_dense(dense)
        values = dense_metrics(dense, self._costs)
        now = milliseconds(time.time())
        self._log(self._dense_run, [MetricPoint(name, value, now, 0) for name, value in values.items()], {})
        self._client.set_terminated(self._dense_run, "FINISHED")

    def _create_dense(self, dense: DenseRow) -> str:
        tags = {PARENT: self._parent, "kind": "dense", "sweep": self._sweep, "method": "dense", **self._origin}
        run = self._client.create_run(
            self.experiment_id, milliseconds(time.time()), tags, dense_name(dense, self._quality)
        )
        self._client.log_param(run.info.run_id, "method", "dense")
        return str(run.info.run_id)

    def _send_metrics(self, number: int, metrics: Mapping[str, float]) -> None:
        now = milliseconds(time.time())
        points = [MetricPoint(name, value, now, 0) for name, value in clean_names(metrics).items()]
        self._log(self._children[number].run_id, points, {})

    def _send_model(self, number: int, source: ModelSource) -> None:
        log_model(self._client, self.experiment_id, self._children[number].run_id, source)

    def _send_rank(self, number: int, rank: int, ranked: frozenset[int]) -> None:
        from mlflow.entities import Metric, RunTag

        child = self._children[number]
        looks = styles(self._children[other].method for other in ranked if other in self._children)
        tags = {"pareto": "true" if rank == 0 else "false", "mlflow.runColor": looks[child.method].colour}
        self._client.log_batch(
            child.run_id,
            metrics=[Metric("pareto_rank", rank, milliseconds(time.time()), 0)],
            tags=[RunTag(name, text) for name, text in tags.items()],
        )

    def _send_file(self, run_id: str, name: str, path: Path) -> None:
        target = PurePosixPath(name)
        folder = None if target.parent == PurePosixPath(".") else str(target.parent)
        if path.name == target.name:
            self._client.log_artifact(run_id, str(path), folder)
            return
        with tempfile.TemporaryDirectory() as scratch:  # MLflow names a file as it is named on disk
            renamed = Path(scratch) / target.name
            shutil.copyfile(path, renamed)
            self._client.log_artifact(run_id, str(renamed), folder)

    def _send_note(self, note: str) -> None:
        self._client.set_tag(self._parent, NOTE, clip_markdown(note, RUN_TAG_LENGTH))
        self._client.set_experiment_tag(self.experiment_id, NOTE, clip_markdown(note, EXPERIMENT_TAG_LENGTH))

    def _send_numbers(self, numbers: Mapping[str, float]) -> None:
        now = milliseconds(time.time())
        points = [MetricPoint(name, value, now, 0) for name, value in clean_names(numbers).items()]
        self._log(self._parent, points, {})

    def _log(self, run_id: str, points: Sequence[MetricPoint], params: Mapping[str, str]) -> None:
        """Write metrics and parameters in as few calls as MLflow's limits allow."""
        from mlflow.entities import Metric, Param, RunTag

        kept, odd = split_finite(points)
        metrics = [Metric(*point) for point in kept]
        texts = [Param(name, text) for name, text in params.items()]
        tags = [RunTag("not_finite", odd[:RUN_TAG_LENGTH])] if odd else []
        batches = math.ceil(max(len(metrics) / METRICS_PER_BATCH, len(texts) / PARAMS_PER_BATCH, 1))
        for index in range(batches):
            some = metrics[index * METRICS_PER_BATCH :][:METRICS_PER_BATCH]
            few = texts[index * PARAMS_PER_BATCH :][:PARAMS_PER_BATCH]
            self._client.log_batch(run_id, metrics=some, params=few, tags=tags if index == 0 else [])


def import_mlflow() -> None:
    """Import mlflow with its chatter off, unless the user's environment wants it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401


def _client(uri: str) -> MlflowClient:
    """Return a client of the store, creating its tables where there are none."""
    from mlflow import MlflowClient

    with warnings.catch_warnings():
        # MLflow's tables use a loader that SQLAlchemy 2.1 deprecates; nothing here can change that.
        warnings.filterwarnings("ignore", "The ``noload`` loader strategy", DeprecationWarning)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _experiment_id(client: MlflowClient, store: RunStore, name: str) -> str:
    """Return the experiment's id, creating it where there is none."""
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=store.artifacts))
    if found.lifecycle_stage != "active":
        raise InputError(
            f"the MLflow experiment {name!r} was deleted; restore it with 'mlflow experiments restore "
            f"--experiment-id {found.experiment_id}', or set MLFLOW_EXPERIMENT_NAME to another name"
        )
    return str(found.experiment_id)


@contextmanager
def _explain(store: RunStore) -> Generator[None]:
    """Turn what MLflow says about a store into one sentence for the user."""
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"the tracking URI {store.public!r} needs a package that is not installed: {error}") from error
    except Exception as error:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        if not isinstance(error, MlflowException | SQLAlchemyError):
            raise
        raise InputError(
            f"MLflow cannot use the tracking URI {store.public!r} ({_reason(error)}); correct it, or leave it "
            f"out to use {store.directory / 'mlflow.db'}"
        ) from error


def _reason(error: BaseException) -> str:
    """Return the first line of an error, fit for the user's eyes."""
    line = remove_credentials(str(error)).strip().partition("\n")[0]
    return f"{type(error).__name__}: {line if len(line) <= 200 else line[:199] + '…'}"
