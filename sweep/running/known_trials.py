"""What is known of a sweep's trials: which there are, what each came to, and the records that say so."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sweep.planning.points import Point
from sweep.records.record import Record
from sweep.records.sweep_storage import RecordIndex


class KnownTrials:
    """The trials of one run of a sweep. The parts of its ledger share one of these.

    Args:
        index: the records there are; those that this run makes are added.
        sweep: its name.
        retry_failed: whether what has failed counts as if it had never run.

    Attributes:
        index: as given.
        statuses: how each trial with a result ended, by id, other sweeps' trials included.
        points: the trials that have come up in this run, by id.
    """

    def __init__(self, index: RecordIndex, sweep: str, retry_failed: bool) -> None:
        """Know what the records say."""
        self.index, self._sweep = index, sweep
        self.statuses: dict[str, str] = {
            key: head.status for key, head in index.items() if not (retry_failed and head.status == "failed")
        }
        self.points: dict[str, Point] = {}

    def record(self, trial: str) -> Record | None:
        """Return the record of a trial, if there is one."""
        return self.index[trial].record() if trial in self.statuses else None

    def records_of_all(self, trials: Collection[str]) -> dict[str, Record] | None:
        """Return the records of some trials by id; None while one of them has no result."""
        return {trial: self.index[trial].record() for trial in trials} if self.statuses.keys() >= set(trials) else None

    def recorded(self, stage: str) -> list[Record]:
        """Return the records of a stage that this sweep ran, oldest first."""
        records = [head.record() for head in self.index.values() if head.sweep == self._sweep]
        return sorted((r for r in records if r["stage"] == stage), key=lambda r: (r["started_at"], r["id"]))

    def trainings(self, trials: Iterable[str]) -> set[str]:
        """Return the trainings of some trials, as far as these have come up."""
        found = (self.points.get(trial) for trial in trials)
        return {point.training for point in found if point is not None}

    def take_in(self, point: Point) -> Record | None:
        """Take note of what is recorded of a trial by now, and return its record."""
        head = self.index.view(point.identity)
        if head is None:
            return None
        self.statuses[point.id] = head.status
        return head.record()
