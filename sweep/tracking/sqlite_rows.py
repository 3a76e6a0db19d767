"""Many runs built from records at once.

MLflow's client computes for tens of milliseconds on every run, whatever one asks of it. Into a SQLite file the runs are
therefore written as rows, in the form that the client gave one of them: the first run is built by it, and only where
the rows found are those that would have been written here are the others written here. Other databases and
servers get every run by the client.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sweep.records.record import Record
from sweep.tracking.client import Runs
from sweep.tracking.layout import Point, WholeRun, is_served, sqlite_file, whole_run

TOGETHER = 100
"""Runs in one transaction: of a killed publish, these are lost whole."""
CLIENTS = 4
"""Connections to a server at once."""
_VALUES = ("tags", "params", "metrics", "latest_metrics")
_BUSY_S = 60

Todo = tuple[Record, Mapping[str, str]]
Row = dict[str, Any]
Rows = dict[str, list[Row]]


def build_runs(runs: Runs, todo: Sequence[Todo], done: Callable[[], None]) -> None:
    """Build the runs of some records.

    Args:
        runs: the connection.
        todo: records, each with the sweeps and stages it belongs to.
        done: called after each.

    Raises:
        Exception: MLflow or its database does not answer or refuses; what was built so far stays.
    """
    if not todo:
        return
    if sqlite_file(runs.tracking.uri):
        first = max(todo, key=lambda item: len(item[0].get("metrics", {})))  # shows most of the form
        todo = [item for item in todo if item is not first]
        example = runs.build(*first)
        done()
        database = _Database(runs.tracking.uri)
        try:
            form = _Form(database.read(example))
            if form.fits(_whole(runs, first)):
                for start in range(0, len(todo), TOGETHER):
                    some = todo[start : start + TOGETHER]
                    database.write(form.rows(uuid.uuid4().hex, _whole(runs, item)) for item in some)
                    for _ in some:
                        done()
                return
        finally:
            database.close()
    with ThreadPoolExecutor(CLIENTS if is_served(runs.tracking.uri) else 1) as threads:
        for _ in threads.map(lambda item: runs.build(*item), todo):
            done()


def _whole(runs: Runs, item: Todo) -> WholeRun:
    record, members = item
    return whole_run(record, runs.storage, members)


class _Form:
    """The form of a run's rows, by the example of one that MLflow wrote."""

    def __init__(self, example: Rows) -> None:
        """Take a run's rows."""
        self._example = example
        (self._run,) = example["runs"]
        self._own_tags = {row["key"]: row["value"] for row in example["tags"] if row["key"].startswith("mlflow.")}

    def fits(self, whole: WholeRun) -> bool:
        """Say whether the example's rows are those that would be written here for its record."""
        return _in_order(self.rows(self._run["run_uuid"], whole)) == _in_order(self._example)

    def rows(self, run: str, whole: WholeRun) -> Rows:
        """Return the rows of a run.

        Args:
            run: its id.
            whole: all that it holds.
        """
        latest: dict[str, Point] = {}
        for point in whole.points:
            before = latest.get(point.name)
            if before is None or (point.step, point.time_ms, point.value) > (before.step, before.time_ms, before.value):
                latest[point.name] = point
        own = {
            "run_uuid": run, "name": whole.name, "status": whole.status,
            "start_time": whole.started_ms, "end_time": whole.ended_ms,
            "artifact_uri": self._run["artifact_uri"].replace(self._run["run_uuid"], run),
        }  # fmt: skip
        tags = {**self._own_tags, "mlflow.runName": whole.name, **whole.tags}
        return {
            "runs": [{**self._run, **own}],
            "tags": [{"key": name, "value": value, "run_uuid": run} for name, value in tags.items()],
            "params": [{"key": name, "value": value, "run_uuid": run} for name, value in whole.params.items()],
            "metrics": [_metric(run, point) for point in whole.points],
            "latest_metrics": [_metric(run, point) for point in latest.values()],
        }


def _metric(run: str, point: Point) -> Row:
    return {
        "key": point.name, "value": point.value, "timestamp": point.time_ms, "step": point.step, "is_nan": False,
        "run_uuid": run,
    }  # fmt: skip


def _in_order(rows: Rows) -> list[list[tuple[tuple[str, Any], ...]]]:
    return [sorted(tuple(sorted(row.items())) for row in rows[table]) for table in ("runs", *_VALUES)]


class _Database:
    """MLflow's tables in a SQLite file."""

    def __init__(self, uri: str) -> None:
        """Look at the tables."""
        import sqlalchemy

        self._engine = sqlalchemy.create_engine(uri, connect_args={"timeout": _BUSY_S})
        metadata = sqlalchemy.MetaData()
        metadata.reflect(self._engine, only=["runs", *_VALUES])
        self._tables = {name: metadata.tables[name] for name in ("runs", *_VALUES)}

    def read(self, run: str) -> Rows:
        """Return all rows of a run."""
        with self._engine.connect() as connection:
            return {
                name: [dict(row) for row in connection.execute(table.select().filter_by(run_uuid=run)).mappings()]
                for name, table in self._tables.items()
            }

    def write(self, runs: Iterable[Rows]) -> None:
        """Write the rows of some runs in one transaction."""
        every: Rows = {name: [] for name in self._tables}
        for rows in runs:
            for name in every:
                every[name] += rows[name]
        with self._engine.begin() as connection:
            for name, table in self._tables.items():
                if every[name]:
                    connection.execute(table.insert(), every[name])

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()
