"""The run of a sweep itself: its plan and choices, its results in a page of Markdown, pictures, report and views."""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from sweep.records.record import Record, code_version
from sweep.records.results_table import table_bytes
from sweep.records.storage_id import MANIFEST
from sweep.records.sweep_files import CHOICES, read_sweep_file
from sweep.records.sweep_storage import RecordIndex, SweepStorage
from sweep.tracking.asked import asked_of, varied_fields
from sweep.tracking.client import RunHead, Runs
from sweep.tracking.describe import NOTE, describe_sweep
from sweep.tracking.layout import LAYOUT, data_set, metric_values, time_ms, totals
from sweep.tracking.run_content import ComparisonResult, LoggedData, MetricValue
from sweep.tracking.run_names import Naming
from sweep.tracking.saved_views import TAG, decode, encode, run_path, view_id, view_path, view_state
from sweep.tracking.views import View, views_of

REPORT = "report/report.html"
_NOTE_CHARS = 7500  # MLflow cuts a tag at 8000


@dataclass(frozen=True)
class Picture:
    """A drawing for the sweep's page: file name without ending, heading, PNG."""

    name: str
    heading: str
    png: bytes


class OwnRun:
    """The own run of one sweep; made at once where there is none, so that its trials can refer to it."""

    def __init__(
        self,
        runs: Runs,
        storage: SweepStorage,
        sweep: str,
        index: RecordIndex,
        records: Sequence[Record],
        present: list[RunHead],
        marks: Mapping[str, str],
    ) -> None:
        """Keep one of the runs that there are, or make one.

        Args:
            runs: the connection.
            storage: the storage.
            sweep: the sweep's name.
            index: the records of the storage.
            records: of its trials.
            present: the runs that it has.
            marks: `complete_mark` of each record, by trial id.
        """
        self._runs, self._storage, self._sweep, self._index, self._records = runs, storage, sweep, index, records
        self._plan = read_sweep_file(storage, sweep, MANIFEST) or {}
        self._choices = read_sweep_file(storage, sweep, CHOICES)
        self._params = _params(self._plan, records)
        self._present, self._marks = present, marks
        kept = next((run for run in present if run.complete), present[0] if present else None)
        if kept is not None and (_of_another_layout(kept) or self._contradicts(runs.params_of(kept.run))):
            kept = None  # params cannot be changed, nor metrics taken back
        self._kept = kept
        others = [run for run in present if run is not kept]
        runs.delete(others)
        self.removed = len(others) if kept else max(0, len(others) - 1)
        started = min((time_ms(record["started_at"]) for record in records), default=_now_ms())
        tags = {"kind": "sweep", "storage": runs.storage, "sweep": sweep}
        self.run = kept.run if kept else runs.create_named(f"sweep {sweep}", tags, started)

    def _contradicts(self, params: Mapping[str, str]) -> bool:
        return any(params.get(name, value) != value for name, value in self._params.items())

    def complete(
        self,
        findings: Mapping[str, ComparisonResult],
        naming: Naming,
        pictures: Callable[[str], Sequence[Picture]],
        conclusions: Sequence[tuple[str, Sequence[str]]] = (),
    ) -> str:
        """Send what the run lacks; return `created`, `completed` or `unchanged`."""
        metrics = {value.name for record in self._records for value in metric_values(record)}
        metrics |= {name for record in self._records if (f := findings.get(record["id"])) for name in f.values}
        asked = asked_of(self._plan, self._records)
        views = views_of(self._sweep, varied_fields(self._records), metrics, asked)
        self._write_views(views, metrics)
        files = self._files()
        parts = [*files.values(), *sorted(self._marks[record["id"]].encode() for record in self._records)]
        parts += [findings[r["id"]].mark.encode() for r in self._records if r["id"] in findings]
        read = _data_sets(self._records)
        mark = _mark([*parts, naming_text(naming), repr(read).encode(), repr(conclusions).encode()])
        if self._kept and self._kept.complete == mark:
            return "unchanged"
        files["results.parquet"] = table_bytes(self._storage, self._sweep, self._index)
        drawn = pictures(self._sweep)
        with tempfile.TemporaryDirectory() as folder:
            for name, data in files.items():
                path = Path(folder) / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
                self._runs.attach(self.run, [path], "report" if name == REPORT else None)
            for picture in drawn:
                path = Path(folder) / f"{picture.name}.png"
                path.write_bytes(picture.png)
                self._runs.attach(self.run, [path], "figures")
        now = _now_ms()
        values = [MetricValue(metric, value, 0, now) for metric, value in totals(self._records).items()]
        note = self._note(findings, naming, views, drawn, conclusions)
        tags = {**self._tags(), NOTE: note, "complete": mark}
        for each in read:
            self._runs.log_data(self.run, each)
        self._runs.log(self.run, values, self._params, tags)
        ended = max((time_ms(record["finished_at"]) for record in self._records), default=now)
        self._runs.end(self.run, "FINISHED", ended)
        return "completed" if self._present else "created"

    def _files(self) -> dict[str, bytes]:
        found = {}
        for name in (MANIFEST, CHOICES, REPORT):
            if self._storage.exists(f"{self._sweep}/{name}"):
                found[name] = self._storage.read(f"{self._sweep}/{name}")
        return found

    def _tags(self) -> dict[str, str]:
        versions = sorted({code_version(record) for record in self._records})
        commits = {record["versions"].get("commit", "").removesuffix("-dirty") for record in self._records} - {""}
        tags = {
            "mlflow.source.type": "LOCAL",
            "mlflow.source.name": f"sweep.run {self._plan.get('space', self._sweep)}",
        }
        tags |= {"code_version": " ".join(versions)} if versions else {}
        return tags | ({"mlflow.source.git.commit": max(commits)} if len(commits) == 1 else {})

    def _note(
        self,
        findings: Mapping[str, ComparisonResult],
        naming: Naming,
        views: Sequence[View],
        drawn: Sequence[Picture],
        conclusions: Sequence[tuple[str, Sequence[str]]],
    ) -> str:
        experiment = self._runs.experiment_id
        links = {view.title: view_path(experiment, self._view_id(view), view.charts) for view in views}
        links["report"] = run_path(experiment, self.run, REPORT)
        figures = [(picture.heading, artifact_path(self.run, f"figures/{picture.name}.png")) for picture in drawn]
        note = describe_sweep(self._plan, self._choices, self._records, findings, naming, links, figures, conclusions)
        return note if len(note) <= _NOTE_CHARS else note[: note.rfind("\n", 0, _NOTE_CHARS)] + "\n\n_… cut off_"

    def _view_id(self, view: View) -> str:
        return view_id(self._runs.storage, self._sweep, view.key)

    def _write_views(self, views: Sequence[View], metrics: Iterable[str]) -> None:
        """Write the views that are new or have changed, and remove those whose question has gone."""
        tags, known = self._runs.experiment_tags(), set(metrics)
        for view in views:
            tag, name = TAG + self._view_id(view), f"{self._sweep}: {view.title}"
            state = view_state(view, self._runs.storage, self._sweep, known)
            if tag not in tags or decode(tags[tag]) != (name, state):
                self._runs.tag_experiment(tag, encode(name, state, _now_ms()))
        ours = view_id(self._runs.storage, self._sweep, "")
        wanted = {TAG + self._view_id(view) for view in views}
        for tag in tags:
            if re.fullmatch(re.escape(TAG + ours) + r"[a-z_]+", tag) and tag not in wanted:
                self._runs.untag_experiment(tag)


def _data_sets(records: Iterable[Record]) -> list[LoggedData]:
    """Return the data sets that trials read, each once: as described by the trial that used most of its pages."""
    most: dict[tuple[str, str], Record] = {}
    for record in records:
        data = data_set(record)
        held = most.get((data.name, data.digest))
        if held is None or _pages(record) > _pages(held):
            most[data.name, data.digest] = record
    return [data_set(record) for _, record in sorted(most.items())]


def _pages(record: Record) -> int:
    return int((record.get("counts") or {}).get("n_trunc") or 0)


def _of_another_layout(run: RunHead) -> bool:
    return bool(run.complete) and not run.complete.startswith(f"{LAYOUT}-")


def naming_text(naming: Naming) -> bytes:
    """Return a naming as bytes, for a mark."""
    return repr(naming).encode()


def artifact_path(run: str, path: str) -> str:
    """Return the address of an artifact's bytes, relative to the UI's page."""
    return f"get-artifact?{urlencode({'path': path, 'run_uuid': run}, quote_via=quote)}"


def _params(plan: Mapping[str, object], records: Sequence[Record]) -> dict[str, str]:
    params = {
        "space": str(plan.get("space") or ""),
        "data": ", ".join(sorted({str(record["data"]["given"]) for record in records})),
        "models": ", ".join(sorted({str(record["model"]["name"]) for record in records})),
        "stages": ", ".join(str(stage["name"]) for stage in plan.get("stages") or ()),  # type: ignore[attr-defined]
        "grid": str(plan.get("arithmetic") or ""),
    }
    return {name: value[:5000] for name, value in params.items() if value}


def _mark(parts: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return f"{LAYOUT}-{digest.hexdigest()}"


def _now_ms() -> int:
    return round(1000 * time.time())
