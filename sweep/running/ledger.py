"""What is done, what runs and what comes next, while a sweep runs.

The ledger lives in the driver. An executor takes packs from it and gives results to it; every result may
settle a choice, and a settled choice opens the stages that wait for it, one group at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from sweep.planning.packs import Pack
from sweep.planning.plan import Plan
from sweep.planning.points import Point
from sweep.records.names import ModelNames
from sweep.records.record import Record
from sweep.records.steering import NOTHING_ASKED, Steering
from sweep.records.storage_id import MANIFEST
from sweep.records.sweep_storage import RecordIndex, SweepStorage
from sweep.running.backlog import Backlog
from sweep.running.failures import FailurePolicy
from sweep.running.pack_queue import Packing
from sweep.running.regrouping import joining, leaving
from sweep.running.stop_file import StopFile
from sweep.running.under_way import PacksUnderWay
from trainables.errors import OWN_KINDS, Failure
from trainables.trial.task import TrialTask


class Ledger:
    """Keeps the state of one sweep.

    Args:
        plan: the space, expanded with the records and choices there are.
        storage: where records go.
        name: of the sweep.
        index: the records there are; those that this run makes are added.
        choices: recorded choices by key.
        packing: how trials are put together.
        retry_failed: run failed trials again.
        say: prints a line for the user.
        amends: the sweep's manifest stays; of this plan's trials those are added that are new.
        steering: what the sweep was asked so far: whether it is paused or ends early, which trials are stopped.
        chosen: hears of each choice that is made, in a line.

    Attributes:
        backlog: the trials that are to be run.
        stop_file: why the run ends, and which packs end before.
        policy: what follows from failures.
        waiting: trainings without a result that a later run tries again, with what happened.
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
        say: Callable[[str], None],
        amends: bool = False,
        steering: Steering = NOTHING_ASKED,
        chosen: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Open what can be opened at once."""
        self.plan, self.storage, self.name, self.steering, self._say = plan, storage, name, steering, say
        self.policy = FailurePolicy()
        self.waiting: dict[str, Failure] = {}
        self.stop_file = StopFile(storage, name, say)
        self._packs = PacksUnderWay(storage, name)
        self.backlog = Backlog(
            plan, storage, name, index, choices, packing, retry_failed, self.policy, say, amends, chosen
        )
        self.clear()
        self.backlog.refresh(steering)

    # -- what the executor asks

    def next_pack(self) -> tuple[Pack, dict[str, Record]] | None:
        """Return the next pack with its begun records; None when nothing is ready.

        Raises:
            LockLost: another run has taken this sweep over.
        """
        self.check_lock()
        if self.stopping or self.steering.paused:
            return None
        pack = self.backlog.next_pack(self.steering)
        if pack is None:
            return None
        self._packs.begin(pack)
        return pack, self.backlog.begin(pack.points, pack.id)

    def orders_file(self, pack: Pack) -> str:
        """Return the place of the file that tells a pack, which is handed out, who leaves and joins; empty for none."""
        return self._packs.orders_file(pack, may_leave=any(point.id in self.backlog.sampled for point in pack.points))

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left to hand out, now or later."""
        if self.stopping:
            return True
        if self.steering.finishing:
            return not (self._packs.members or self.backlog.queue.has_any(self.steering.finishing))
        waiting = self.backlog.sampled.has_more and bool(self._packs.members or self.steering.paused)
        return not (self.backlog.queue.packs or self._packs.members or self.backlog.others.are_waited_for or waiting)

    @property
    def stopping(self) -> str:
        """Why nothing more is handed out; empty while the run goes on."""
        return self.stop_file.reason

    def check_lock(self) -> None:
        """Do nothing while this run is the only writer of its sweep.

        Raises:
            LockLost: another run has taken it over.
        """
        self.storage.check_lock(self.name)

    def task(self, point: Point) -> TrialTask:
        """Return the job that a point leads as a worker gets it, its places made absolute."""
        return self.backlog.records.task(self.backlog.jobs[point.training])

    def point(self, trial: str) -> Point:
        """Return a trial that has begun."""
        return self.backlog.known.points[trial]

    def trials_of(self, training: str) -> tuple[str, ...]:
        """Return the ids of the trials that a training under way gives a result to."""
        return self.backlog.jobs.trials_of(training)

    @property
    def models(self) -> ModelNames:
        """The names of the sweep's models."""
        return self.backlog.records.models

    @property
    def plan_file(self) -> str:
        """Place of the sweep's plan, which is there before the first pack."""
        return self.storage.full(f"{self.name}/{MANIFEST}")

    # -- what the executor tells

    def go_on(self, training: str, curves: Mapping[str, list[list[float]]]) -> None:
        """Take note of what a training that goes on from a checkpoint came to before, maybe in an earlier run.

        A sampled trial is stopped or not as if it had never been cut off, and its record has all its epochs.
        """
        trial = self.backlog.sampled_of(training)
        if trial:
            self.backlog.sampled.go_on(trial, curves)

    def epoch(self, training: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take note of a training's epoch, and remember that of a sampled one, which may be stopped early."""
        self.policy.epoch(training, epoch)
        trial = self.backlog.sampled_of(training)
        if trial:
            self.backlog.sampled.epoch(trial, epoch, metrics)

    def regroup(
        self, pack: str, epochs: Mapping[str, int], told: Mapping[str, Any]
    ) -> tuple[list[Record], dict[str, Record]]:
        """Have trials that fall behind leave a pack that goes on, and trials that wait take the places that are free.

        The pack hears of it before its next epoch.

        Args:
            pack: its id.
            epochs: which epoch each training has just done; what it came to is known from `epoch`.
            told: where it ran: `versions`, `host`, `node` and `device`.

        Returns:
            The records of the trials that leave, and the begun ones of those that join.
        """
        made, left, joined = list[Record](), list[str](), list[Point]()
        for stopped in leaving(pack, epochs, self._packs, self.backlog, self.steering) if not self.stopping else ():
            made += self.finish(pack, {**told, **stopped})
            left.append(stopped["id"])
        if not (self.stopping or self.steering.finishing or pack in self.stop_file.ending):
            joined = joining(pack, self._packs, self.backlog, self.steering)
        begun = self.backlog.begin(joined, pack)
        self._packs.join(pack, joined)
        if left or joined:
            self._packs.orders.tell(pack, left, [self.task(point) for point in joined])
        return made, begun

    def finish(self, pack: str, result: Mapping[str, Any]) -> list[Record]:
        """Write the records of a finished training and its askings; return those of the trials that this completes.

        Nothing is written, and nothing returned, where this training has been recorded before.
        """
        if result["id"] not in self._packs.of(pack):
            return []
        self._packs.members[pack].discard(result["id"])
        found = self.backlog.record(result, self.steering)
        self._judge(pack, result)
        return found

    def end_pack(self, pack: str, told: Mapping[str, Any] | None = None) -> list[Record]:
        """Close a pack and return the records that this makes.

        Of members without a result, one that was stopped is recorded as such. The others are queued again where their
        pack was to end after its epoch, and wait for a later run else.

        Args:
            pack: its id.
            told: where it ran: `versions`, `host`, `node` and `device`.
        """
        made: list[Record] = []
        again: list[Point] = []
        for training in list(self._packs.of(pack)):
            job = self.backlog.jobs[training]
            if training in self._stopped_trainings() and not job.asks:
                made += self.finish(pack, {**(told or {}), "id": training, "status": "stopped"})
                continue
            if pack in self.stop_file.ending and not self.stopping:
                again.append(job.lead)
            self.backlog.others.release(training)
        self._packs.end(pack)
        self.backlog.queue.put_first(again)
        self._has_ended(pack)
        self.backlog.refresh(self.steering)
        return made

    def fail_pack(self, pack: str, failure: Failure, elsewhere: bool = False) -> list[Record]:
        """Close a pack that failed and return the records that this makes; its trials may be queued again.

        Args:
            pack: its id.
            failure: what happened.
            elsewhere: whether there is another node to run on.
        """
        made: list[Record] = []
        left = sorted(self._packs.of(pack))
        if left:
            known = len(self.policy.left_out)
            verdict = self.policy.judge(left, failure, elsewhere)
            for told in list(self.policy.left_out.values())[known:]:
                self._say(told)
            if verdict == "result":
                for training in left:
                    made += self.finish(pack, {"id": training, "status": "failed", "error": failure.result})
            elif verdict == "later":
                self.waiting |= dict.fromkeys(left, failure)
            else:
                points = [self.backlog.jobs[training].lead for training in left]
                half = -(-len(points) // 2) if verdict == "halves" else len(points)
                self.backlog.queue.put(points, max(1, half))
        self._packs.end(pack)
        self._has_ended(pack)
        self.backlog.drop_stopped(self.steering)
        if self.policy.stop and not self.stopping:
            self.stop(self.policy.stop)
        self.backlog.refresh(self.steering)
        return made

    # -- how the run ends

    def stop(self, reason: str) -> None:
        """Hand out nothing more, and have the running packs keep a checkpoint after their epoch and end."""
        self.stop_file.note(reason)
        self.stop_file.announce()

    def clear(self) -> None:
        """Remove what nobody needs any more: the stop file, and checkpoints of trials that have a result.

        A driver that was killed leaves both, and a process that was stopped early writes its checkpoint anew. A trial
        that somebody stopped keeps its own: it may be resumed.
        """
        self.stop_file.clear()
        self._packs.orders.clear()
        self.backlog.clear_checkpoints(self.steering)

    def release_all(self) -> None:
        """Give back the claims on trainings that are under way; for the end of a run."""
        for training in self.under_way:
            self.backlog.others.release(training)

    def waiting_lines(self) -> list[str]:
        """Return a line for each reason why trials that were tried have no result."""
        reasons = Counter(f"{failure.kind}: {failure.message[:300]}" for failure in self.waiting.values())
        tried = [f"{count} without a result ({told}); the same command tries again" for told, count in reasons.items()]
        return tried + self.backlog.starts.lines()

    def outcome(self) -> dict[str, int]:
        """Count the sweep's trials by status; `missing` have no record."""
        return self.backlog.stages.outcome()

    # -- what people ask while it runs

    def steer(self, steering: Steering) -> None:
        """Let what was asked hold from now on: packs under way end after their epoch where they are to.

        A paused sweep, and a pack with a trial that is stopped, keep checkpoints; their trials are queued again.
        """
        self.steering = steering
        stopped = self._stopped_trainings()
        ending = {pack for pack, members in self._packs.members.items() if steering.paused or members & stopped}
        if ending != self.stop_file.ending:
            self.stop_file.end_packs(ending, stopped)
        self.backlog.drop_stopped(steering)

    def adopt(self, plan: Plan) -> None:
        """Go on with a plan of the same sweep that has more points.

        Args:
            plan: made with the index and the choices of this ledger.
        """
        self.plan = plan
        self.backlog.adopt(plan)
        self.backlog.refresh(self.steering, anew=True)

    def state_of(self, trial: str) -> str:
        """Return what is known of a trial: `running`, `waiting`, how it ended, or nothing where it is not known."""
        if trial in self.backlog.known.statuses:
            return self.backlog.known.statuses[trial]
        point = self.backlog.known.points.get(trial)
        if point is None:
            return ""
        return "running" if point.training in self._packs else "waiting"

    def is_asked_only(self, trial: str) -> bool:
        """Whether nothing is trained for a trial that waits or runs."""
        point, jobs = self.backlog.known.points.get(trial), self.backlog.jobs
        return bool(point and (not point.trains or (point.training in jobs and jobs[point.training].asks)))

    @property
    def under_way(self) -> tuple[str, ...]:
        """The trainings in packs that are handed out."""
        return self._packs.trainings

    @property
    def running_trials(self) -> int:
        """Trials handed out and not finished."""
        return sum(len(self.trials_of(training)) for members in self._packs.members.values() for training in members)

    # -- within

    def _judge(self, pack: str, result: Mapping[str, Any]) -> None:
        """Let the policy learn from a result, and stop the sweep if it says so."""
        error, node, device = result.get("error"), result.get("node", ""), result.get("device", "")
        if result["status"] != "failed":
            self.policy.succeed(node, device)
        elif error and error["class"] in OWN_KINDS:
            failure = Failure(error["class"], error["message"], host=result.get("host", ""), device=device, node=node)
            self.policy.note_result(pack, failure)
            if self.policy.stop and not self.stopping:
                self.stop(self.policy.stop)

    def _has_ended(self, pack: str) -> None:
        """Have no later pack of the same members end as well."""
        if pack in self.stop_file.ending:
            self.stop_file.end_packs(self.stop_file.ending - {pack}, self._stopped_trainings())

    def _stopped_trainings(self) -> set[str]:
        return self.backlog.known.trainings(self.steering.stopped)
