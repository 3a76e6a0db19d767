"""MLflow made from records: for every record one complete run, known by its storage, sweep and trial id.

What lacks anything is built anew from the record, so that neither runs nor metric values are ever there twice; what
only lacks something that other trials decide (its name, its comparison, its description) is sent that. A sweep has one
more run of its own, and saved views. When nothing is missing, nothing is changed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

from sweep.records.manifest import sweep_stages
from sweep.records.record import Record
from sweep.records.sweep_storage import RecordHead, RecordIndex, SweepStorage
from sweep.tracking.address import Tracking
from sweep.tracking.client import RunHead, Runs, told_in_one_line
from sweep.tracking.describe import ANSWERS, NOTE, describe_trial, telling
from sweep.tracking.layout import PLAIN_COLOURS, complete_mark, member_tags, time_ms
from sweep.tracking.run_content import Added, ComparisonResult, MetricValue
from sweep.tracking.run_names import Naming, values_of
from sweep.tracking.saved_views import run_path
from sweep.tracking.sweep_run import OwnRun, Picture

CONNECTIONS = 4
"""Runs built at once: MLflow computes for 27 ms on a run of 125 values (SQLite file, MLflow 3.17, one core) and then
waits for the disk or the server; four threads fill that wait, more add nothing."""

Counts = dict[str, int]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Extras:
    """What the caller has found out from the records beyond themselves.

    Attributes:
        findings: how trials compare with others, by trial id.
        pictures: draws the pictures of a sweep, by its name; called where its run needs them.
        changed: makes the table of all answers of a trial that differ from its reference's, by trial id.
        conclusions: what a sweep comes to, by its name: questions, and the sentences that answer them.
        report: waits for a report that is being written beside this; called before the sweeps' own runs, which get it.
    """

    findings: Mapping[str, ComparisonResult] = field(default_factory=dict)
    pictures: Callable[[str], Sequence[Picture]] = lambda sweep: ()
    changed: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)
    conclusions: Mapping[str, Sequence[tuple[str, Sequence[str]]]] = field(default_factory=dict)
    report: Callable[[], None] | None = None


@dataclass(frozen=True)
class _Todo:
    """A trial whose run is to be built, or only to be sent what it lacks (`run`); with its answers or without."""

    record: Record
    members: Mapping[str, str]
    added: Added
    run: str = ""
    with_answers: bool = False


def publish(
    storage: SweepStorage,
    names: Sequence[str],
    tracking: Tracking,
    index: RecordIndex,
    progress: Progress = lambda done, total: None,
    extras: Extras = Extras(),  # noqa: B008 (immutable)
) -> Counts:
    """Bring MLflow up to date with the records of some sweeps. The caller holds their locks.

    A trial that another sweep ran and these only use keeps the run it has and is tagged as theirs too.

    Args:
        storage: the storage.
        names: sweeps to publish.
        tracking: where runs go.
        index: the records of the storage.
        progress: called with the number of records done and their total.
        extras: comparisons and pictures, where the caller has some.

    Returns:
        Numbers of runs: `created`, `completed` (lacked something and were built anew), `updated` (were sent a new name,
        comparison or membership), `unchanged`, `removed` (duplicates), `ended` (left running by a killed sweep,
        without a record).

    Raises:
        TrackingError: MLflow does not answer; what was done so far stays, and a repeat goes on from there.
    """
    stages = {name: sweep_stages(storage, name, index) for name in names}
    wanted = {trial for trials in stages.values() for trial in trials}
    heads = [head for head in index.values() if head.sweep in names or head.id in wanted]
    with told_in_one_line(tracking.uri):
        runs = Runs(tracking, storage.storage_id())
        return _Publisher(storage, runs, stages, index, extras).bring_up(heads, progress)


class _Publisher:
    """One pass over the records of some sweeps."""

    def __init__(
        self,
        storage: SweepStorage,
        runs: Runs,
        stages: Mapping[str, Mapping[str, Sequence[str]]],
        index: RecordIndex,
        extras: Extras,
    ) -> None:
        """Take the sweeps to publish: for each its trials, for each of these its stages."""
        self.storage, self.runs, self.stages, self.index, self.extras = storage, runs, stages, index, extras
        self.counts: Counter[str] = Counter(
            {name: 0 for name in ("created", "completed", "updated", "unchanged", "removed", "ended")}
        )
        self._namings: dict[str, Naming] = {}
        self._own: dict[str, OwnRun] = {}
        self._telling: set[str] = set()
        self._marks: dict[str, str] = {}
        self._run_of: dict[str, str] = {}  # trial -> its run, once that is whole

    def bring_up(self, heads: Sequence[RecordHead], progress: Progress) -> Counts:
        present: dict[tuple[str, str], list[RunHead]] = defaultdict(list)
        for run in self.runs.find():
            present[run.sweep, run.trial].append(run)
        records = {head.id: head.record() for head in heads}
        self._marks = {trial: complete_mark(record) for trial, record in records.items()}
        for name, trials in self.stages.items():
            own = [record for trial, record in records.items() if trial in trials]
            self._namings[name] = Naming.of(map(values_of, own))
            self._telling |= telling(own, self.extras.findings) & self.extras.changed.keys()
            self._own[name] = OwnRun(
                self.runs, self.storage, name, self.index, own, present.pop((name, ""), []), self._marks
            )
        steps = count(1)
        for own_heads in _sources_first(heads, records):
            todo: list[_Todo] = []
            for head in own_heads:
                record = records[head.id]
                left = self._missing(record, head.folder, present.pop((record["sweep"], record["id"]), []))
                if left:
                    todo.append(left)
                else:
                    progress(next(steps), len(heads))
            with ThreadPoolExecutor(CONNECTIONS) as threads:
                for _ in threads.map(self._do, todo):
                    progress(next(steps), len(heads))
        pictures = self.extras.pictures
        if self.extras.report is not None:
            drawn = {name: pictures(name) for name in self._own}  # while we would only wait
            pictures = drawn.__getitem__
            self.extras.report()
        for name, sweep_run in self._own.items():
            outcome = sweep_run.complete(
                self.extras.findings,
                self._namings[name],
                pictures,
                self.extras.conclusions.get(name, ()),
            )
            self.counts[outcome] += 1
            self.counts["removed"] += sweep_run.removed
        for (sweep, _), remnants in present.items():
            if sweep in self.stages:
                self._end(remnants)
        return dict(self.counts)

    def _members(self, record: Record) -> dict[str, str]:
        """Return the sweeps that a trial belongs to, each with its stages there."""
        members = {record["sweep"]: record["stage"]}
        for name, trials in self.stages.items():
            if trials.get(record["id"]):
                members[name] = "+".join(trials[record["id"]])
        return members

    def _missing(self, record: Record, folder: str, present: list[RunHead]) -> _Todo | None:
        """Return what a trial's run lacks, if anything; what there was of an incomplete one is removed."""
        mark, members = self._marks[record["id"]], self._members(record)
        good = next((run for run in present if run.complete == mark), None)
        ours = record["sweep"] in self.stages
        if good is None and (ours or not present):
            self.runs.delete(present)
            self.counts["completed" if present else "created"] += 1
            return _Todo(record, members, self._added(record, folder), with_answers=record["id"] in self._telling)
        keep = good or present[0]
        if ours:
            self._remove([run for run in present if run is not keep])
        added = self._added(record, folder) if ours else Added()
        tags = {**member_tags(members), **added.tags}
        lacking = {tag: text for tag, text in tags.items() if keep.tags.get(tag) != text}
        self.counts["updated" if lacking else "unchanged"] += 1
        self._run_of[record["id"]] = keep.run
        if not lacking:
            return None
        changed = Added(lacking, added.values if "compared" in lacking else {})
        with_answers = record["id"] in self._telling and lacking.keys() & {"compared", NOTE}
        return _Todo(record, members, changed, keep.run, bool(with_answers))

    def _added(self, record: Record, folder: str) -> Added:
        finding, name = self.extras.findings.get(record["id"]), record["sweep"]
        naming, own = self._namings.get(name, Naming()), self._own.get(name)
        tags = {"mlflow.runName": naming.of_record(record), "folder": self.storage.full(folder)}
        stated, models = record["identity"], [model for model, _ in naming.models]
        if stated["method"] == "memory" and stated["allocation"] == "none" and record["model"]["name"] in models:
            place = models.index(record["model"]["name"])
            tags["mlflow.runColor"] = PLAIN_COLOURS[place % len(PLAIN_COLOURS)]
        if own:
            link = run_path(self.runs.experiment_id, own.run)
            has_file = record["id"] in self._telling
            tags[NOTE] = describe_trial(record, self.storage.full(folder), finding, link, has_file, self._run_link)
        if finding:
            tags |= {**finding.tags, "compared": finding.mark}
        return Added(tags, finding.values if finding else {}, self._marks[record["id"]])

    def _run_link(self, trial: str) -> str | None:
        run = self._run_of.get(trial)
        return run_path(self.runs.experiment_id, run) if run else None

    def _do(self, todo: _Todo) -> None:
        if todo.run:
            now = time_ms(todo.record["finished_at"])
            values = [MetricValue(name, value, 0, now) for name, value in todo.added.values.items()]
            run = todo.run
            self.runs.update(run, values, todo.added.tags)
        else:
            run = self._run_of[todo.record["id"]] = self.runs.build(todo.record, todo.members, todo.added)
        table = self.extras.changed[todo.record["id"]]() if todo.with_answers else b""
        if table:
            self.runs.attach_bytes(run, ANSWERS, table)

    def _end(self, left: Iterable[RunHead]) -> None:
        for run in left:
            if run.running:
                self.runs.end(run.run, "KILLED")
                self.counts["ended"] += 1

    def _remove(self, left: Sequence[RunHead]) -> None:
        self.runs.delete(left)
        self.counts["removed"] += len(left)


def _sources_first(heads: Sequence[RecordHead], records: Mapping[str, Record]) -> list[list[RecordHead]]:
    """Return the trials in groups, a clone in a later one than the trial that it is a clone of: it links to its run."""
    depths: dict[str, int] = {}

    def depth(trial: str) -> int:
        if trial not in depths:
            depths[trial] = 0  # should clones ever name each other
            source = records[trial].get("labels", {}).get("cloned_from")
            depths[trial] = 1 + depth(source) if source in records else 0
        return depths[trial]

    groups: dict[int, list[RecordHead]] = defaultdict(list)
    for head in heads:
        groups[depth(head.id)].append(head)
    return [groups[number] for number in sorted(groups)]
