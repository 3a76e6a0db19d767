"""The runs of one storage in one MLflow experiment: found, made, filled, ended, removed.

MLflow is imported when a connection is opened, not before. Its own client does not repeat requests: a
repeated one may count twice, and the callers here know better when to try again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from sweep.records.record import Record
from sweep.tracking.layout import (
    Point,
    Tracking,
    complete_tags,
    run_name,
    run_status,
    run_tags,
    sqlite_file,
    time_ms,
    whole_run,
)
from sweep.tracking.moved import follow_move
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
        text = hidden(str(error).strip(), uri) or type(error).__name__
        raise TrackingError(
            f"MLflow at {shown(uri)}: {text.splitlines()[0][:200]}; nothing is lost, publish when it answers"
        ) from error


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
            follow_move(tracking)
            self._client = _client(tracking.uri)
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

    def create(self, record: Record, members: Mapping[str, str]) -> str:
        """Start a trial's run, with its tags, and return its id."""
        tags = run_tags(record, self.storage, members)
        return self.create_named(run_name(record), tags, time_ms(record["started_at"]))

    def create_named(self, name: str, tags: Mapping[str, str], started_ms: int) -> str:
        """Start a run."""
        run = self._client.create_run(self.experiment_id, start_time=started_ms, tags=dict(tags), run_name=name)
        return str(run.info.run_id)

    def log(
        self,
        run: str,
        points: Sequence[Point],
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add metrics, params and tags, as few requests as MLflow's limits allow, the tags last."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(p.name, p.value, p.time_ms, p.step) for p in points]
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

    def delete(self, runs: Iterable[RunHead]) -> None:
        """Delete runs (MLflow keeps deleted ones out of sight until `mlflow gc`)."""
        for run in runs:
            self._client.delete_run(run.run)

    def attach(self, run: str, files: Sequence[Path]) -> None:
        """Store files as a run's artifacts."""
        for file in files:
            self._client.log_artifact(run, str(file))

    def build(self, record: Record, members: Mapping[str, str]) -> str:
        """Make a trial's whole run from its record, in three requests, and return its id.

        Its mark is there from the start; it counts once the run has ended (see `RunHead.complete`).
        """
        whole = whole_run(record, self.storage, members)
        run = self.create_named(whole.name, whole.tags, whole.started_ms)
        self.log(run, whole.points, whole.params)
        self.end(run, whole.status, whole.ended_ms)
        return run

    def complete(
        self,
        run: str,
        record: Record,
        points: Sequence[Point],
        params: Mapping[str, str],
        members: Mapping[str, str],
    ) -> None:
        """Send what a run still lacks, vouch that it is complete, and end it."""
        self.log(run, points, params, complete_tags(record, self.storage, members))
        self.end(run, run_status(record), time_ms(record["finished_at"]))


def _client(uri: str) -> Any:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_TIMEOUT_S))
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def _alone(uri: str) -> AbstractContextManager[Any]:
    """Keep two processes from making the tables of one SQLite file at the same time: both would fail."""
    path = sqlite_file(uri)
    if path is None:
        return nullcontext()
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
