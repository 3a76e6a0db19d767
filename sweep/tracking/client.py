"""The runs of one storage in one MLflow experiment: found, made, filled, ended, removed.

MLflow is imported when a connection is opened, not before. Its own client does not repeat requests: a
repeated one may count twice, and the callers here know better when to try again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from sweep.records.record import Record
from sweep.tracking.address import Tracking, sqlite_file
from sweep.tracking.knock import knock, tables_alone
from sweep.tracking.layout import complete_tags, data_set, run_status, run_tags, time_ms, whole_run
from sweep.tracking.moved import follow_move
from sweep.tracking.run_content import Added, LoggedData, MetricValue
from sweep.tracking.run_names import Naming
from trainables.errors import ConfigError
from trainables.node.addresses import hidden, shown

REQUEST_TIMEOUT_S = 10
_BATCH_METRICS, _BATCH_PARAMS = 1000, 100
_PAGE = 200  # more may take a small server longer than the timeout


class TrackingError(ConfigError):
    """MLflow cannot be reached or refuses; nothing is lost, since the records stay."""


@dataclass(frozen=True)
class RunHead:
    """What the search for runs returns of one.

    Attributes:
        run: MLflow's run id.
        kind: `trial` or `sweep`.
        sweep: the sweep it belongs to.
        trial: trial id; empty for a sweep's own run.
        complete: the mark of the record it holds; empty while it may lack something, as while it runs and
            when it was ended as KILLED.
        running: MLflow counts it as running.
        tags: all tags.
    """

    run: str
    kind: str
    sweep: str
    trial: str
    complete: str
    running: bool
    tags: Mapping[str, str]


@contextmanager
def told_in_one_line(uri: str) -> Iterator[None]:
    """Turn whatever MLflow raises into one `TrackingError`."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        text = hidden(_reason(error), uri)  # MLflow repeats the address with its password
        raise TrackingError(
            f"MLflow at {shown(uri)}: {text.splitlines()[0][:200]}; nothing is lost, publish when it answers"
        ) from error


def _reason(error: BaseException) -> str:
    """Return what went wrong at the bottom: a database's own words rather than the statement that met them."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(getattr(cause, "orig", None), BaseException):
            return str(cause.orig)  # type: ignore[attr-defined]
        cause = cause.__cause__
    return str(error).strip() or type(error).__name__


class Runs:
    """An open connection."""

    def __init__(self, tracking: Tracking, storage: str) -> None:
        """Open the connection; make the database's tables and the experiment where they are missing.

        Args:
            tracking: where runs go.
            storage: id of the storage whose runs these are.

        Raises:
            TrackingError: MLflow cannot be reached, or the experiment has been deleted there.
        """
        self.tracking, self.storage = tracking, storage
        with told_in_one_line(tracking.uri), _alone(tracking.uri):
            knock(tracking.uri)
            follow_move(tracking)
            self._client = client_of(tracking.uri)
            self.experiment_id = self._experiment()

    def _experiment(self) -> str:
        name = self.tracking.experiment
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=self.tracking.artifacts))
            except Exception:
                found = self._client.get_experiment_by_name(name)  # another process has just made it
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"experiment={name!r}: it has been deleted in MLflow at {shown(self.tracking.uri)}; "
                "restore it there or choose another --experiment"
            )
        return str(found.experiment_id)

    def find(self, sweep: str | None = None, trial: str | None = None, unfinished: bool = False) -> list[RunHead]:
        """Return this storage's runs: all, or those of a sweep, of a trial, or not FINISHED."""
        wanted = {"storage": self.storage, "sweep": sweep, "trial_id": trial}
        terms = [f"tags.{key} = '{value}'" for key, value in wanted.items() if value is not None]
        text = " and ".join([*terms, *(["attributes.status != 'FINISHED'"] if unfinished else [])])
        heads: list[RunHead] = []
        token = None
        while True:
            page = self._client.search_runs([self.experiment_id], text, max_results=_PAGE, page_token=token)
            heads += [_head(run) for run in page]
            token = page.token
            if not token:
                return heads

    def create(self, record: Record, members: Mapping[str, str], naming: Naming | None = None) -> str:
        """Start a trial's run, with its tags, and return its id."""
        tags, name = run_tags(record, self.storage, members), (naming or Naming()).of_record(record)
        return self.create_named(name, tags, time_ms(record["started_at"]))

    def create_named(self, name: str, tags: Mapping[str, str], started_ms: int) -> str:
        """Start a run."""
        run = self._client.create_run(self.experiment_id, start_time=started_ms, tags=dict(tags), run_name=name)
        return str(run.info.run_id)

    def log(
        self,
        run: str,
        values: Sequence[MetricValue],
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add metrics, params and tags, as few requests as MLflow's limits allow, the tags last."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(p.name, p.value, p.time_ms, p.step) for p in values]
        every = [Param(name, value) for name, value in (params or {}).items()][:_BATCH_PARAMS]
        last = [RunTag(name, value) for name, value in (tags or {}).items()]
        while len(metrics) > _BATCH_METRICS - len(every):
            self._client.log_batch(run, metrics[:_BATCH_METRICS])
            metrics = metrics[_BATCH_METRICS:]
        if metrics or every or last:
            self._client.log_batch(run, metrics, every, last)

    def end(self, run: str, status: str, ended_ms: int | None = None) -> None:
        """End a run as FINISHED, FAILED or KILLED."""
        self._client.set_terminated(run, status, end_time=ended_ms)

    def update(self, run: str, values: Sequence[MetricValue], tags: Mapping[str, str]) -> None:
        """Send what has changed about a run that has ended; the latest of a metric's values is what the UI shows."""
        now = round(1000 * time.time())
        self.log(run, [replace(value, time_ms=max(now, value.time_ms)) for value in values], tags=tags)

    def log_data(self, run: str, data: LoggedData, context: str = "training") -> None:
        """Show what data a run read; a repeat adds nothing."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        shown_data = Dataset(data.name, data.digest, "local", data.source, profile=data.profile)
        inputs = [DatasetInput(shown_data, [InputTag("mlflow.data.context", context)])]
        try:
            self._client.log_inputs(run, inputs)
        except Exception:  # of two threads that log one data set for the first time, MLflow 3.17 refuses one
            self._client.log_inputs(run, inputs)

    def params_of(self, run: str) -> dict[str, str]:
        """Return a run's params."""
        return dict(self._client.get_run(run).data.params)

    def tag_experiment(self, name: str, value: str) -> None:
        """Set a tag of the experiment."""
        self._client.set_experiment_tag(self.experiment_id, name, value)

    def untag_experiment(self, name: str) -> None:
        """Take a tag off the experiment."""
        self._client.delete_experiment_tag(self.experiment_id, name)

    def experiment_tags(self) -> dict[str, str]:
        """Return the experiment's tags."""
        return dict(self._client.get_experiment(self.experiment_id).tags)

    def delete(self, runs: Iterable[RunHead]) -> None:
        """Delete runs (MLflow keeps deleted ones out of sight until `mlflow gc`)."""
        for run in runs:
            self._client.delete_run(run.run)

    def attach(self, run: str, files: Sequence[Path], folder: str | None = None) -> None:
        """Store files as a run's artifacts, in a folder of these."""
        for file in files:
            self._client.log_artifact(run, str(file), folder)

    def attach_bytes(self, run: str, name: str, data: bytes) -> None:
        """Store an artifact of this content."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            self.attach(run, [path])

    def build(self, record: Record, members: Mapping[str, str], added: Added | None = None) -> str:
        """Make a trial's whole run from its record, in four requests, and return its id.

        Its mark is there from the start; it counts once the run has ended (see `RunHead.complete`).
        """
        whole = whole_run(record, self.storage, members, added)
        run = self.create_named(whole.name, whole.tags, whole.started_ms)
        self.log(run, whole.values, whole.params)
        self.log_data(run, whole.data)
        self.end(run, whole.status, whole.ended_ms)
        return run

    def complete(
        self,
        run: str,
        record: Record,
        values: Sequence[MetricValue],
        params: Mapping[str, str],
        members: Mapping[str, str],
    ) -> None:
        """Send what a run still lacks, vouch that it is complete, and end it."""
        self.log_data(run, data_set(record))
        self.log(run, values, params, complete_tags(record, self.storage, members))
        self.end(run, run_status(record), time_ms(record["finished_at"]))


def client_of(uri: str) -> Any:
    """Return a client of MLflow's, set up to fail rather than to repeat requests, and to keep quiet."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_TIMEOUT_S))
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # it logs with a traceback what it raises as well
    return MlflowClient(tracking_uri=uri)


def _alone(uri: str) -> AbstractContextManager[Any]:
    """Keep two processes from making the tables of one database at the same time: one or both would fail."""
    path = sqlite_file(uri)
    if path is None:
        return tables_alone(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()  # with the umask of the user; SQLite would close it to the group's other members
    return FileLock(f"{path}.lock", timeout=120)


def _head(run: Any) -> RunHead:
    tags, status = run.data.tags, run.info.status
    return RunHead(
        run=run.info.run_id,
        kind=tags.get("kind", ""),
        sweep=tags.get("sweep", ""),
        trial=tags.get("trial_id", ""),
        complete=tags.get("complete", "") if status in ("FINISHED", "FAILED") else "",
        running=status in ("RUNNING", "SCHEDULED"),
        tags=dict(tags),
    )
