"""The trials of a sweep that are to be run, from what its plan and the records say to their own records.

It knows of trials and queued packs; which packs are under way, and what becomes of those, is the ledger's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from sweep.planning.due import Records
from sweep.planning.packs import Pack
from sweep.planning.plan import Plan
from sweep.planning.plan_of import lose_stopped
from sweep.planning.points import Point
from sweep.records.record import Record
from sweep.records.steering import Steering
from sweep.records.sweep_storage import RecordIndex, SweepStorage
from sweep.running.choosing import Choosing
from sweep.running.failures import FailurePolicy
from sweep.running.job_records import JobRecords
from sweep.running.jobs import Jobs
from sweep.running.known_trials import KnownTrials
from sweep.running.other_sweeps import OtherSweeps
from sweep.running.pack_queue import Packing, PackQueue
from sweep.running.sampled import SampledTrials
from sweep.running.stage_trials import StageTrials
from sweep.running.waiting_starts import WaitingStarts
from trainables.node.patience import patiently


class Backlog:
    """Opens the stages of a sweep, queues what their trials lack, and takes in what they came to.

    Args:
        plan: the space, expanded with the records and choices there are.
        storage: where records go.
        name: of the sweep.
        index: the records there are; those that this run makes are added.
        choices: recorded choices by key.
        packing: how trials are put together.
        retry_failed: run failed trials again.
        policy: forgets the failures of what has its result.
        say: prints a line for the user.
        amends: the sweep's manifest stays; of this plan's trials those are added that are new.
        chosen: hears of each choice that is made, in a line.

    Attributes:
        policy: as given.
        known: the trials, and what each came to.
        jobs: what is queued or under way.
        records: of the jobs.
        sampled: the trials of the sampled stages.
        stages: the trials of each stage.
        choosing: the questions, open and settled.
        others: other sweeps that need the same trials.
        queue: the packs that wait.
        starts: the trials that wait for the weights from which they start.
    """

    def __init__(
        self,
        plan: Plan,
        storage: SweepStorage,
        name: str,
        index: RecordIndex,
        choices: dict[str, Any],
        packing: Packing,
        retry_failed: bool,
        policy: FailurePolicy,
        say: Callable[[str], None],
        amends: bool,
        chosen: Callable[[str], None],
    ) -> None:
        """Put its parts together; `refresh` opens what can be opened."""
        self._storage, self.policy, self._say = storage, policy, say
        self._due = Records(index, storage, retry_failed, plan.wanted)
        self.known = KnownTrials(index, name, retry_failed)
        self.starts = WaitingStarts(self._due, say)
        self.jobs = Jobs(self.known, self._due, self.starts, packing.states_bytes)
        self.records = JobRecords(plan, storage, name, index, self._due)
        self.sampled = SampledTrials(plan, storage, name, self.known, choices, say)
        self.stages = StageTrials(plan, storage, name, self.known, self.sampled, amends)
        self.choosing = Choosing(plan.questions, choices, self.known, storage, name, say, chosen)
        self.others = OtherSweeps(storage, name, say)
        self.queue = PackQueue(self.jobs, packing, self.sampled, self.stages, self.choosing.settled)
        self._told_whole: set[str] = set()
        self._unbegun: list[Record] = []

    def adopt(self, plan: Plan) -> None:
        """Go on with another plan of the same sweep; `refresh` opens what it adds."""
        self.records.adopt(plan)
        self.stages.adopt(plan)
        self.sampled.adopt(plan)
        self.choosing.adopt(plan.questions)

    def refresh(self, steering: Steering, anew: bool = False) -> None:
        """Settle the questions whose candidates are all recorded, and queue what that opens.

        Args:
            steering: what the sweep was asked.
            anew: look at every stage, also where nothing has been settled: the plan is another one.
        """
        self.queue.add(self.starts.take_ready())
        if not self.choosing.settle() and self.known.points and not anew:
            return
        self.queue.add(self.stages.open(self.choosing.settled))
        self.drop_stopped(steering)
        self.stages.write()

    def next_pack(self, steering: Steering) -> Pack | None:
        """Take the next pack, without the trials that other sweeps in this storage are running or have recorded."""
        self.queue.put(self.others.take_held_back(), 1)
        while (pack := self.queue.next(steering.finishing)) is not None and self.others.claims_anything:
            others = self.others.names()
            points = [point for point in pack.points if self._is_ours(point, others)]
            if points:
                return pack if len(points) == len(pack.points) else self.jobs.packs(points, len(points), 1)[0]
            self.refresh(steering)
        return pack

    def next_like(self, members: Sequence[Point], steering: Steering) -> Point | None:
        """Take a trial of this run's own that can join some others: one that is queued, or is drawn."""
        while (point := self.queue.next_like(members, self.policy.has_failed)) is not None:
            if not self.others.claims_anything or self._is_ours(point, self.others.names()):
                return point
            self.refresh(steering)
        return None

    def sampled_of(self, training: str) -> str:
        """Return the sampled trial that a training leads, if it is one; else nothing."""
        return self.sampled.lead_of(self.jobs.trials_of(training))

    def begin(self, leads: Iterable[Point], pack: str) -> dict[str, Record]:
        """Return the begun records of the trials of some jobs, which are handed out in a pack.

        Args:
            leads: the first trial of each job.
            pack: its id.
        """
        return self.records.begin((self.jobs[lead.training] for lead in leads), pack)

    def record(self, result: Mapping[str, Any], steering: Steering) -> list[Record]:
        """Write the records of a job that is over; return those of the trials that this completes.

        Its checkpoint is kept where it has failed, or somebody has stopped it: it may be resumed.
        """
        training = result["id"]
        job = self.jobs.end(training)
        self.records.write(job, result)
        self._due.wanted.pop(training, None)
        self.policy.forget(training)
        if result["status"] != "failed" and training not in self.known.trainings(steering.stopped):
            patiently(self._storage.delete, self.records.checkpoint(training))
        made = [self._take_in(point) for point in job.points]
        self.others.release(training)
        found = [record for record in made if record is not None]
        for record in found[:1]:
            self._say_whole(record)
        self.queue.add(self.jobs.take_later(training))
        return found

    def drop_stopped(self, steering: Steering) -> None:
        """Record the trials that are stopped before they have begun, and take them out of the queue."""
        for training in self.queue.drop(self.known.trainings(steering.stopped)):
            self.begin([self.jobs[training].lead], "")
            self._unbegun += self.record({"id": training, "status": "stopped"}, steering)

    def taken_unbegun(self) -> list[Record]:
        """Return, once, the records of trials that were stopped before they had begun."""
        found, self._unbegun = self._unbegun, []
        return found

    def take_up(self, trial: str) -> bool:
        """Queue a trial again that was stopped; False where it was not stopped, or is none of this run's."""
        point = self.known.points.get(trial)
        if point is None or self.known.statuses.get(trial) != "stopped":
            return False
        lose_stopped(self.known.index, trial)
        for other in [t for t, p in self.known.points.items() if p.training == point.training]:
            self.known.statuses.pop(other, None)
        self.queue.add([point], (lambda _: 1) if trial in self.sampled else None)
        return True

    def clear_checkpoints(self, steering: Steering) -> None:
        """Remove the checkpoints of trainings that have a result, except of those that somebody stopped."""
        index = self.known.index
        self.records.clear_checkpoints({index[trial].training for trial in steering.stopped if trial in index})

    def _is_ours(self, point: Point, others: Collection[str]) -> bool:
        """Claim a training; False where another sweep is running it, or has done since this run began what is due."""
        if not self.others.claim(point):
            return False
        job = self.jobs[point.training]
        # After the claim: whoever had it until now has written the records before giving it back.
        if not self.records.add_others(job, others) or job.asks == self.jobs.still_due(job):
            return True
        self.jobs.end(point.training)
        self.others.release(point.training)
        for trial in job.points:
            self._take_in(trial)
        self.queue.add(job.points)
        return False

    def _take_in(self, point: Point) -> Record | None:
        """Take note of what there is now of a trial, and return its record."""
        self.records.forget(point.id)
        record = self.known.take_in(point)
        if record is not None:
            self.sampled.tell(point)
        return record

    def _say_whole(self, record: Record) -> None:
        """Say once of each model that cannot be split that its trials are slower for it."""
        name = record["model"]["name"]
        if record["counts"].get("whole_model") and name not in self._told_whole:
            self._told_whole.add(name)
            self._say(f"{name}: its blocks do not run alone, so the whole model runs for every text: right, and slower")
