"""MLflow made from records: `python -m sweep.publish STORAGE[/NAME]`.

For every record there is one complete run, known by its storage, sweep and trial id; what lacks anything is
built anew from the record, so that neither runs nor metric values are ever there twice. A sweep has one more
run for its plan, its table and its choices. When nothing is missing, nothing is changed.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from sweep.cli import user_errors
from sweep.records.manifest import sweep_stages
from sweep.records.mend import mend_storage_file, problems_of
from sweep.records.record import Record, record_hash
from sweep.records.store import RecordHead, RecordIndex, Store, split_location
from sweep.records.table import table_bytes, write_results
from sweep.tracking.client import RunHead, Runs, told_in_one_line
from sweep.tracking.layout import (
    EXPERIMENT,
    LAYOUT,
    Point,
    Tracking,
    complete_mark,
    member_tags,
    resolve_tracking,
    totals,
    ui_command,
)
from sweep.tracking.sqlite_rows import Todo, build_runs
from trainables.node.addresses import shown

Counts = dict[str, int]
Progress = Callable[[int, int], None]


def publish(
    store: Store,
    names: Sequence[str],
    tracking: Tracking,
    progress: Progress = lambda done, total: None,
    index: RecordIndex | None = None,
) -> Counts:
    """Bring MLflow up to date with the records of some sweeps. The caller holds their locks.

    A trial that another sweep ran and these only use keeps the run it has and is tagged as theirs too.

    Args:
        store: the storage.
        names: sweeps to publish.
        tracking: where runs go.
        progress: called with the number of records done and their total.
        index: the records of the storage, where they have been read already.

    Returns:
        Numbers of runs: `created`, `completed` (lacked something and were built anew), `tagged`, `unchanged`,
        `removed` (duplicates), `ended` (left running by a killed sweep, without a record).

    Raises:
        TrackingError: MLflow does not answer; what was done so far stays, and a repeat goes on from there.
    """
    index = store.index() if index is None else index
    stages = {name: sweep_stages(store, name, index) for name in names}
    wanted = {trial for trials in stages.values() for trial in trials}
    heads = [head for head in index.values() if head.sweep in names or head.id in wanted]
    with told_in_one_line(tracking.uri):
        runs = Runs(tracking, store.storage_id())
        return _Publisher(store, runs, stages, index).bring_up(heads, progress)


class _Publisher:
    """One pass over the records of some sweeps."""

    def __init__(
        self, store: Store, runs: Runs, stages: Mapping[str, Mapping[str, Sequence[str]]], index: RecordIndex
    ) -> None:
        """Take the sweeps to publish: for each its trials, for each of these its stages."""
        self.store, self.runs, self.stages, self.index = store, runs, stages, index
        self.counts: Counter[str] = Counter(
            {name: 0 for name in ("created", "completed", "tagged", "unchanged", "removed", "ended")}
        )

    def bring_up(self, heads: Sequence[RecordHead], progress: Progress) -> Counts:
        present: dict[tuple[str, str], list[RunHead]] = defaultdict(list)
        for run in self.runs.find():
            present[run.sweep, run.trial].append(run)
        records: dict[str, Record] = {}
        lacking: list[Todo] = []
        steps = count(1)
        for record in (head.record() for head in heads):
            members = self._members(record)
            if self._is_whole(record, members, present.pop((record["sweep"], record["id"]), [])):
                progress(next(steps), len(heads))
            else:
                lacking.append((record, members))
            records[record["id"]] = record
        build_runs(self.runs, lacking, lambda: progress(next(steps), len(heads)))
        for name in self.stages:
            self._sweep(name, records, present.pop((name, ""), []))
        for (sweep, _), left in present.items():
            if sweep in self.stages:
                self._end(left)
        return dict(self.counts)

    def _members(self, record: Record) -> dict[str, str]:
        """Return the sweeps that a trial belongs to, each with its first stage there."""
        members = {record["sweep"]: record["stage"]}
        for name, trials in self.stages.items():
            if trials.get(record["id"]):
                members[name] = trials[record["id"]][0]
        return members

    def _is_whole(self, record: Record, members: Mapping[str, str], present: list[RunHead]) -> bool:
        """Say whether a trial has its run, brought up to date; if not, what there was of it has been removed."""
        mark = complete_mark(record)
        good = next((run for run in present if run.complete == mark), None)
        ours = record["sweep"] in self.stages
        if good is None and (ours or not present):
            self.runs.delete(present)
            self.counts["completed" if present else "created"] += 1
            return False
        keep = good or present[0]
        if ours:
            self._remove([run for run in present if run is not keep])
        lacking = {tag: stage for tag, stage in member_tags(members).items() if keep.tags.get(tag) != stage}
        if lacking:
            self.runs.log(keep.run, [], tags=lacking)
        self.counts["tagged" if lacking else "unchanged"] += 1
        return True

    def _sweep(self, name: str, records: Mapping[str, Record], present: list[RunHead]) -> None:
        """Keep one run for the sweep itself: plan, choices, table, totals."""
        own = [record for trial, record in records.items() if trial in self.stages[name]]
        files = {}
        for file in ("plan.json", "choices.json"):
            if self.store.exists(f"{name}/{file}"):
                files[file] = self.store.read(f"{name}/{file}")
        mark = _mark([*files.values(), *sorted(record_hash(record).encode() for record in own)])
        good = next((run for run in present if run.complete == mark), None)
        if good:
            self._remove([run for run in present if run is not good])
            self.counts["unchanged"] += 1
            return
        self.runs.delete(present)
        now = round(1000 * time.time())
        tags = {"kind": "sweep", "storage": self.runs.storage, "sweep": name}
        run = self.runs.create_named(f"sweep {name}", tags, now)
        with tempfile.TemporaryDirectory() as folder:
            files["results.parquet"] = table_bytes(self.store, name, self.index)
            for file, data in files.items():
                (Path(folder) / file).write_bytes(data)
            self.runs.attach(run, sorted(Path(folder).iterdir()))
        points = [Point(metric, value, 0, now) for metric, value in totals(own).items()]
        self.runs.log(run, points, tags={"complete": mark})
        self.runs.end(run, "FINISHED")
        self.counts["completed" if present else "created"] += 1

    def _end(self, left: Iterable[RunHead]) -> None:
        for run in left:
            if run.running:
                self.runs.end(run.run, "KILLED")
                self.counts["ended"] += 1

    def _remove(self, left: Sequence[RunHead]) -> None:
        self.runs.delete(left)
        self.counts["removed"] += len(left)


def _mark(parts: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return f"{LAYOUT}-{digest.hexdigest()}"


HELP = """Bring MLflow and results.parquet up to date with the records of a storage; a repeat changes nothing.

\b
Examples:
  python -m sweep.publish outputs
  python -m sweep.publish outputs/inductive --tracking-uri http://mlflow.lab:5000
"""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(help=HELP)
def main(
    location: Annotated[str, typer.Argument(metavar="STORAGE[/NAME]", help="a storage, or one sweep in it")],
    tracking_uri: Annotated[
        str | None, typer.Option(help="default: MLFLOW_TRACKING_URI, else mlflow.db in the storage")
    ] = None,
    experiment: Annotated[str | None, typer.Option(help=f"default: {EXPERIMENT}")] = None,
) -> None:
    """Bring MLflow and results.parquet up to date with the records of a storage."""
    with user_errors():
        store, name = split_location(location)
        names = [name] if name else store.sweeps()
        tracking = resolve_tracking(store, tracking_uri, experiment)
        with ExitStack() as locks:
            for each in names:
                locks.enter_context(store.lock(each))
            index = store.index()
            notes = [*index.warnings, *mend_storage_file(store)]
            notes += [line for each in names for line in problems_of(store, each, index)]
            for line in notes:
                typer.echo(f"note: {shown(line)}", err=True)
            for each in names:
                typer.echo(f"wrote {store.full(write_results(store, each, index))}")
            counts = publish(store, names, tracking, index=index)
        typer.echo("MLflow runs: " + ", ".join(f"{number} {what}" for what, number in counts.items() if number))
        typer.echo(f"look at them: {ui_command(tracking)}")


if __name__ == "__main__":
    app()
