"""The records of jobs: begun when a job is handed out, written when it is over; and the places of its files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sweep.planning.due import Records
from sweep.planning.plan import Plan
from sweep.planning.points import Point
from sweep.records.askings import split
from sweep.records.names import ModelNames
from sweep.records.record import Origin, Record, begin_record, complete_record
from sweep.records.starts import told_start
from sweep.records.sweep_storage import RecordIndex, SweepStorage
from sweep.running.jobs import Job
from trainables.node.patience import patiently
from trainables.trial.task import TrialTask


class JobRecords:
    """Keeps the records of one run of a sweep.

    Args:
        plan: of the sweep.
        storage: where records go.
        sweep: its name.
        index: the records there are; those that are written are added.
        records: says where the weights lie from which trials start.

    Attributes:
        models: the names of the models of the plan and the index.
    """

    def __init__(self, plan: Plan, storage: SweepStorage, sweep: str, index: RecordIndex, records: Records) -> None:
        """Begin with none."""
        self._storage, self._sweep, self._index, self._records = storage, sweep, index, records
        self._begun: dict[str, Record] = {}
        self.adopt(plan)

    def adopt(self, plan: Plan) -> None:
        """Go on with another plan of the same sweep."""
        self._plan = plan
        self.models = ModelNames((p.card for stage in plan.stages for p in stage.points), self._index)

    def begin(self, jobs: Iterable[Job], pack: str) -> dict[str, Record]:
        """Return the begun records of the trials of some jobs, by id.

        Args:
            jobs: that are handed out.
            pack: id of their pack; empty where they end before they run.
        """
        begun: dict[str, Record] = {}
        for point in (point for job in jobs for point in job.points):
            origin = Origin(self._sweep, point.spec.stage, pack, point.labels)
            begun[point.id] = begin_record(point.spec, point.identity, self.models.named(point.card), origin)
            if point.spec.start_from:
                start = self._index.training(point.spec.start_from)
                begun[point.id]["start"] = told_start(start, point.identity, point.spec.data)
        self._begun |= begun
        return begun

    def write(self, job: Job, result: Mapping[str, Any]) -> None:
        """Write the records of what a job came to: the training first, for askings mean nothing without it."""
        folder = self.folder(job)
        whole = complete_record(self._begun[job.lead.id], {**result, "id": job.lead.id})
        asked = job.askings if result["status"] != "stopped" else ()
        record, askings = split(whole, asked, result.get("askings") or {})
        if not job.asks:
            self._index.take(patiently(self._storage.write_record, record, folder))
        if job.asks or result["status"] != "failed":
            for asking in askings:
                self._index.take(patiently(self._storage.write_asking, asking, folder))

    def forget(self, trial: str) -> None:
        """Keep nothing of a trial that is over."""
        self._begun.pop(trial, None)

    def task(self, job: Job) -> TrialTask:
        """Return a job as a worker gets it, its places made absolute."""
        point, training = job.lead, job.lead.training
        folder, checkpoint = self._storage.full(self.folder(job)), self._storage.full(self.checkpoint(training))
        start = () if job.asks or not point.spec.start_from else self._records.start(point).files
        files = tuple(map(self._storage.full, start))
        return TrialTask(training, self._plan.spec_to_run(point), folder, checkpoint, job.askings, job.asks, files)

    def folder(self, job: Job) -> str:
        """Return the folder of a job's files: that of its training where this is stored already."""
        stored = self._index.training(job.lead.training)
        return stored.folder if job.asks and stored else self._new_folder(self._sweep, job.lead)

    def checkpoint(self, training: str) -> str:
        """Return the place of a training's checkpoint in the storage."""
        return f"{self._sweep}/checkpoints/{training}.safetensors"

    def clear_checkpoints(self, kept: Collection[str]) -> None:
        """Remove the checkpoints of trainings that have a result, except those that are to be kept."""
        for file in self._storage.files(f"{self._sweep}/checkpoints"):
            training = file.partition(".")[0]
            head = self._index.training(training)
            if head is not None and head.status != "failed" and training not in kept:
                self._storage.delete(f"{self._sweep}/checkpoints/{file}")

    def add_others(self, job: Job, sweeps: Collection[str]) -> bool:
        """Add to the index what other sweeps have recorded of a job since this run began; False where that is nothing.

        Args:
            job: of this run.
            sweeps: names of the others.
        """
        folders = [self._new_folder(name, job.lead) for name in sweeps]
        if job.asks and self.folder(job).partition("/")[0] != self._sweep:
            folders = [self.folder(job)]
        elif job.asks:
            return False
        return self._storage.add_training(self._index, folders)

    def _new_folder(self, sweep: str, point: Point) -> str:
        return self._storage.trial_folder(sweep, point.spec, self.models.named(point.card).name, point.training)
