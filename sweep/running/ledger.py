"""What is done, what runs and what comes next, while a sweep runs.

The ledger lives in the driver. An executor takes packs from it and gives results to it; every result may
settle a choice, and a settled choice opens the stages that wait for it, one group at a time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from sweep.planning.choices import (
    NoCandidate,
    Question,
    Undecided,
    awaits_retry,
    chosen_line,
    decide,
    reconcile,
    reopened,
)
from sweep.planning.due import Due, Records
from sweep.planning.expand import stage_points
from sweep.planning.packs import LARGEST, Pack, PackSize, make_ask_packs, make_packs
from sweep.planning.plan import Plan
from sweep.planning.plan_of import lose_stopped
from sweep.planning.points import Point
from sweep.records.askings import asks_of, split
from sweep.records.manifest import manifest_stages
from sweep.records.names import ModelNames
from sweep.records.record import Origin, Record, begin_record, complete_record, timestamp
from sweep.records.starts import told_start
from sweep.records.steering import NOTHING_ASKED, Steering
from sweep.records.storage_id import MANIFEST
from sweep.records.sweep_files import CHOICES, read_sweep_file, write_sweep_file
from sweep.records.sweep_storage import RESERVED, RecordIndex, SweepStorage
from sweep.running.failures import FailurePolicy
from sweep.running.optuna_draws import StageDraws
from sweep.running.orders import PackOrders
from sweep.running.starts import WaitingStarts
from trainables.adapters.registry import ADAPTERS
from trainables.errors import OWN_KINDS, Failure
from trainables.node.patience import patiently
from trainables.trial.asking import Asking, label_of
from trainables.trial.task import TrialTask

ASK_AGAIN_S = 1.0
"""How often other sweeps are asked whether they still run a trial that this one needs too."""
INFORMED = 4
"""A sampled stage has at most one in so many of its trials under way at a time, so that the others are drawn knowing
how some have gone (ours; Optuna's sampler draws its first ten at random)."""


@dataclass(frozen=True)
class Job:
    """One training with what is asked of it, or a stored one that is only asked.

    Attributes:
        points: the trials that it gives a result to, the first of which says how it is run.
        askings: what is asked.
        asks: whether nothing is trained.
    """

    points: tuple[Point, ...]
    askings: tuple[Asking, ...]
    asks: bool

    @property
    def lead(self) -> Point:
        """The first of its trials."""
        return self.points[0]


@dataclass(frozen=True)
class Packing:
    """How trials are put together.

    Attributes:
        size: members of a pack at most; a function of a point where that depends on the model.
        slots: packs that run at once.
    """

    size: Callable[[Point], int]
    slots: int


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
        self.steering, self._chosen = steering, chosen
        self._amends = amends
        self.plan, self.storage, self.name, self.packing = plan, storage, name, packing
        self.choices = choices
        self.stopping = ""
        self.statuses: dict[str, str] = {
            key: head.status for key, head in index.items() if not (retry_failed and head.status == "failed")
        }
        self._index = index
        self.models = ModelNames((p.card for stage in plan.stages for p in stage.points), index)
        self._retry_failed = retry_failed
        self._say = say
        self._told_whole: set[str] = set()
        self._issued: set[str] = set()
        self._queue: list[Pack] = []
        self._jobs: dict[str, Job] = {}
        self._later: dict[str, list[Point]] = {}
        self._records = Records(index, storage, retry_failed, plan.wanted)
        self._starts = WaitingStarts(self._records, say)
        self._running: dict[str, set[str]] = {}
        self._places: dict[str, int] = {}  # of packs under way: members that they were handed out with
        self._orders = PackOrders(storage, name)
        self._begun: dict[str, Record] = {}
        self._claims = storage.claims(name)
        self._elsewhere: list[Point] = []
        self._others: set[str] = set()
        self._ask_again = 0.0
        self._tasks: dict[str, Point] = {}
        self._open: dict[str, Question] = {q.key: q for q in plan.questions}
        self._settled: dict[str, Any] = {}
        self.policy = FailurePolicy()
        self.waiting: dict[str, Failure] = {}
        self._stop_file_written = False
        self._ending: set[str] = set()
        self.members: dict[str, list[str]] = {stage.name: [] for stage in plan.stages}
        self._draws = {
            stage.name: StageDraws(
                plan, stage, storage, name, self._known, partial(self._recorded, stage.name), choices
            )
            for stage in plan.stages
            if stage.stage.sampling
        }
        self._unbegun: list[Record] = []
        self._latest: dict[str, dict[str, float]] = {}
        self._curves: dict[str, dict[str, list[list[float]]]] = {}
        self._manifest = dict(manifest_stages(storage, name))
        self._planned = storage.planned_trials(name)
        self.clear()
        self.refresh()

    # -- what the executor asks

    def next_pack(self) -> tuple[Pack, dict[str, Record]] | None:
        """Return the next pack with its begun records; None when nothing is ready.

        Raises:
            LockLost: another run has taken this sweep over.
        """
        self.check_lock()
        if self.stopping or self.steering.paused:
            return None
        pack = self._next_of_ours()
        if pack is None:
            return None
        self._running[pack.id] = {point.training for point in pack.points}
        self._places[pack.id] = len(pack.points)
        return pack, self._begin(pack.points, pack.id)

    def orders_file(self, pack: Pack) -> str:
        """Return the place of the file that tells a pack, which is handed out, who leaves and joins; empty for none."""
        adapter = ADAPTERS[pack.points[0].spec.method]
        may_join = adapter.own_texts and len(pack.points) > 1
        may_leave = any(self.is_sampled(point.id) for point in pack.points)
        return self._orders.begin(pack.id) if not pack.asks and (may_join or may_leave) else ""

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
        left, made = self._fall_behind(pack, epochs, told)
        joined = self._joining(pack)
        begun = self._begin(joined, pack)
        self._running[pack] |= {point.training for point in joined}
        if left or joined:
            self._orders.tell(pack, left, [self.task(point) for point in joined])
        return made, begun

    def _joining(self, pack: str) -> list[Point]:
        """Return who takes the places that have become free in a pack under way.

        Those of its kind that are queued come first, then such as a sampled stage draws. Nobody joins a pack of which
        all have left, or one with a trial that has failed before: that may take the others with it.
        """
        members = [self._jobs[training].lead for training in self._running[pack]]
        is_ending = self.stopping or self.steering.finishing or pack in self._ending
        if is_ending or not members or len(members) >= self._places[pack] or not self._may_be_joined(members):
            return []
        before = len(members)
        while len(members) < self._places[pack] and (point := self._next_like(members)) is not None:
            members.append(point)
        return members[before:]

    def _may_be_joined(self, members: Sequence[Point]) -> bool:
        are_sound = not any(self.policy.has_failed(point.training) for point in members)
        asks = any(self._jobs[point.training].asks for point in members)
        return ADAPTERS[members[0].spec.method].own_texts and are_sound and not asks

    def _next_like(self, members: Sequence[Point]) -> Point | None:
        """Return a trial of this run's own that can join some others: one that is queued, or is drawn."""
        while (point := self._queued_like(members) or self._drawn_like(members)) is not None:
            if self._claims is None or self._is_ours(point, self._other_sweeps()):
                return point
            self.refresh()
        return None

    def _queued_like(self, members: Sequence[Point]) -> Point | None:
        """Take a trial that can join some others out of a pack in the queue."""
        for number, pack in enumerate(self._queue):
            if pack.asks or pack.points[0].pack_key != members[0].pack_key or not self._may_run(pack):
                continue
            for point in pack.points:
                if self._has_room(members, point) and not self.policy.has_failed(point.training):
                    rest = [other for other in pack.points if other is not point]
                    self._queue[number : number + 1] = self._packs(rest, len(rest), 1) if rest else []
                    return point
        return None

    def _drawn_like(self, members: Sequence[Point]) -> Point | None:
        """Draw a trial that can join some others; one that cannot is queued, and nothing drawn until it has begun."""
        for name in self._draws:
            if any(point.spec.stage == name for pack in self._queue for point in pack.points):
                continue
            point = self._draw(name, members[0].pack_key)
            if point is None:
                continue
            if point.pack_key == members[0].pack_key and self._has_room(members, point):
                return point
            self._queue += self._packs([point], 1, 1)
        return None

    def _has_room(self, members: Sequence[Point], point: Point) -> bool:
        """Whether a pack may have so many members with one more, which may be larger than the others."""
        return all(len(members) < self.packing.size(each) for each in (*members, point))

    def _begin(self, leads: Sequence[Point], pack: str) -> dict[str, Record]:
        """Take note that some trainings begin in a pack, and return the begun records of their trials."""
        begun: dict[str, Record] = {}
        for point in (point for lead in leads for point in self._jobs[lead.training].points):
            origin = Origin(self.name, point.spec.stage, pack, point.labels)
            begun[point.id] = begin_record(point.spec, point.identity, self.models.named(point.card), origin)
            if point.spec.start_from:
                start = self._index.training(point.spec.start_from)
                begun[point.id]["start"] = told_start(start, point.identity, point.spec.data)
        self._begun |= begun
        return begun

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left to hand out, now or later."""
        if self.stopping:
            return True
        if self.steering.finishing:
            return not (self._running or any(map(self._may_run, self._queue)))
        more = any(draws.has_more for draws in self._draws.values())
        waiting = more and bool(self._running or self.steering.paused)
        return not (self._queue or self._running or self._elsewhere or waiting)

    def _may_run(self, pack: Pack) -> bool:
        """Whether a pack may be handed out: once the sweep is to finish early, only what was under way then."""
        wish = self.steering.finishing
        return wish is None or all(point.training in wish.under_way for point in pack.points)

    def check_lock(self) -> None:
        """Do nothing while this run is the only writer of its sweep.

        Raises:
            LockLost: another run has taken it over.
        """
        self.storage.check_lock(self.name)

    @property
    def running_trials(self) -> int:
        """Trials handed out and not finished."""
        return sum(len(self._jobs[training].points) for members in self._running.values() for training in members)

    def is_sampled(self, trial: str) -> bool:
        """Whether a trial was drawn by a sampler rather than being a point of a grid."""
        return trial in self._curves

    def task(self, point: Point) -> TrialTask:
        """Return the job that a point leads as a worker gets it, its places made absolute."""
        job = self._jobs[point.training]
        folder, checkpoint = self.storage.full(self._folder_of(job)), self.storage.full(self.checkpoint(point.training))
        start = () if job.asks or not point.spec.start_from else self._records.start(point).files
        files = tuple(map(self.storage.full, start))
        return TrialTask(point.training, self.plan.spec_to_run(point), folder, checkpoint, job.askings, job.asks, files)

    def trials_of(self, training: str) -> tuple[str, ...]:
        """Return the ids of the trials that a training under way gives a result to."""
        return tuple(point.id for point in self._jobs[training].points) if training in self._jobs else ()

    def point(self, trial: str) -> Point:
        """Return a trial that has begun."""
        return self._tasks[trial]

    def points_of(self, pack: Pack) -> list[Point]:
        """Return all trials that a pack gives a result to."""
        return [point for lead in pack.points for point in self._jobs[lead.training].points]

    def _folder_of(self, job: Job) -> str:
        stored = self._index.training(job.lead.training)
        return stored.folder if job.asks and stored else self._new_folder(self.name, job.lead)

    def _new_folder(self, sweep: str, point: Point) -> str:
        return self.storage.trial_folder(sweep, point.spec, self.models.named(point.card).name, point.training)

    def checkpoint(self, training: str) -> str:
        """Return the place of a training's checkpoint in the storage."""
        return f"{self.name}/checkpoints/{training}.safetensors"

    @property
    def stop_file(self) -> str:
        """Place of the file that tells the workers to checkpoint and stop."""
        return self.storage.full(f"{self.name}/stop")

    @property
    def plan_file(self) -> str:
        """Place of the sweep's plan, which is there before the first pack."""
        return self.storage.full(f"{self.name}/{MANIFEST}")

    def note_stop(self, reason: str) -> None:
        """Hand out nothing more; touches nothing but memory."""
        self.stopping = self.stopping or reason

    def stop(self, reason: str) -> None:
        """Hand out nothing more, and have the running packs keep a checkpoint after their epoch and end."""
        self.note_stop(reason)
        self.announce_stop()

    def announce_stop(self) -> None:
        """Write the file that tells the workers to stop, once the sweep is stopping.

        Where the storage cannot be written, they hear it from the executor all the same, which asks `stopping`.
        """
        if not self.stopping or self._stop_file_written:
            return
        self._stop_file_written = True
        try:
            self.storage.write(f"{self.name}/stop", self.stopping.encode())
        except OSError as error:
            self._say(f"note: {error}")

    def clear(self) -> None:
        """Remove what nobody needs any more: the stop file, and checkpoints of trials that have a result.

        A driver that was killed leaves both, and a process that was stopped early writes its checkpoint anew. A trial
        that somebody stopped keeps its own: it may be resumed.
        """
        self.storage.delete(f"{self.name}/stop")
        self._orders.clear()
        stopped = {self._index[trial].training for trial in self.steering.stopped if trial in self._index}
        for file in self.storage.files(f"{self.name}/checkpoints"):
            training = file.partition(".")[0]
            head = self._index.training(training)
            if head is not None and head.status != "failed" and training not in stopped:
                self.storage.delete(f"{self.name}/checkpoints/{file}")

    # -- what people ask while it runs

    def steer(self, steering: Steering) -> None:
        """Let what was asked hold from now on: packs under way end after their epoch where they are to.

        A paused sweep, and a pack with a trial that is stopped, keep checkpoints; their trials are queued again.
        """
        self.steering = steering
        stopped = self._stopped_trainings()
        ending = {pack for pack, trainings in self._running.items() if steering.paused or trainings & stopped}
        if ending != self._ending:
            self._ending = ending
            self._tell_workers()
        self._drop_stopped()

    def adopt(self, plan: Plan) -> None:
        """Go on with a plan of the same sweep that has more points.

        Args:
            plan: made with the index and the choices of this ledger.
        """
        self.plan = plan
        self.models = ModelNames((p.card for stage in plan.stages for p in stage.points), self._index)
        for stage in plan.stages:
            self.members.setdefault(stage.name, [])
        for draws in self._draws.values():
            draws.adopt(plan)
        self._open |= {q.key: q for q in plan.questions if q.key not in self._settled}
        self.refresh(anew=True)

    def take_up(self, trial: str) -> bool:
        """Queue a trial again that was stopped; False where it was not stopped, or is none of this run's."""
        point = self._tasks.get(trial)
        if point is None or self.statuses.get(trial) != "stopped":
            return False
        lose_stopped(self._index, trial)
        for other in [t for t, p in self._tasks.items() if p.training == point.training]:
            self.statuses.pop(other, None)
        size = (lambda _: 1) if self.is_sampled(trial) else self.packing.size
        self._queue += self._packs(self._leads([point]), size, self.packing.slots)
        return True

    def state_of(self, trial: str) -> str:
        """Return what is known of a trial: `running`, `waiting`, how it ended, or nothing where it is not known."""
        if trial in self.statuses:
            return self.statuses[trial]
        point = self._tasks.get(trial)
        if point is None:
            return ""
        return "running" if any(point.training in pack for pack in self._running.values()) else "waiting"

    def is_asked_only(self, trial: str) -> bool:
        """Whether nothing is trained for a trial that waits or runs."""
        point = self._tasks.get(trial)
        job = self._jobs.get(point.training) if point else None
        return bool(point and (not point.trains or (job and job.asks)))

    @property
    def under_way(self) -> tuple[str, ...]:
        """The trainings in packs that are handed out."""
        return tuple(sorted(set().union(*self._running.values())))

    def taken_unbegun(self) -> list[Record]:
        """Return, once, the records of trials that were stopped before they had begun."""
        found, self._unbegun = self._unbegun, []
        return found

    def open_lines(self) -> list[str]:
        """Return a line for each question that is not decided, with how many of its candidates have a result."""
        lines = []
        for question in self._open.values():
            ids = [point.id for point in question.candidates]
            ended = sum(trial in self.statuses for trial in ids)
            lines.append(f"not chosen: {question}: {ended} of {len(ids)} candidates have a result")
        return lines

    def _stopped_trainings(self) -> set[str]:
        found = (self._tasks.get(trial) for trial in self.steering.stopped)
        return {point.training for point in found if point is not None}

    def _tell_workers(self) -> None:
        """Write the file that says which packs end after their epoch; remove it where none does."""
        if self.stopping:
            return
        try:
            if self._ending:
                told = {"packs": sorted(self._ending), "stopped": sorted(self._stopped_trainings())}
                self.storage.write_json(f"{self.name}/stop", told)
            else:
                self.storage.delete(f"{self.name}/stop")
        except OSError as error:
            self._say(f"note: {error}")
        if self.stopping:  # noted meanwhile, by the thread that hears signals: its word is the last
            self._stop_file_written = False
            self.announce_stop()

    def _drop_stopped(self) -> None:
        """Record the trials that are stopped before they have begun, and take them out of the queue."""
        stopped = self._stopped_trainings()
        if not any(point.training in stopped for pack in self._queue for point in pack.points):
            return
        queue, self._queue = self._queue, []
        for pack in queue:
            left = [point for point in pack.points if pack.asks or point.training not in stopped]
            if len(left) == len(pack.points):
                self._queue.append(pack)
                continue
            self._queue += self._packs(left, LARGEST, 1)
            for point in pack.points:
                if point not in left:
                    self._unbegun += self._record_stopped(point.training)

    def _record_stopped(self, training: str) -> list[Record]:
        """Record as stopped what has no result of its own yet."""
        self._begin([self._jobs[training].lead], "")
        return self._record({"id": training, "status": "stopped"})

    # -- what the executor tells

    def go_on(self, training: str, curves: Mapping[str, list[list[float]]]) -> None:
        """Take note of what a training that goes on from a checkpoint came to before, maybe in an earlier run.

        A sampled trial is stopped or not as if it had never been cut off, and its record has all its epochs.
        """
        trial = self._sampled(training)
        if not trial:
            return
        for name, curve in curves.items():
            known = self._curves[trial].setdefault(name, [])
            known[:0] = [point for point in curve if not known or point[0] < known[0][0]]
        draws = self._draws[self._tasks[trial].spec.stage]
        for epoch, value in curves.get(draws.sampling.metric, ()):
            draws.falls_behind(trial, int(epoch), {draws.sampling.metric: value})  # it did not, or would not be here

    def epoch(self, training: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take note of a training's epoch, and remember that of a sampled one, which may be stopped early."""
        self.policy.epoch(training, epoch)
        trial = self._sampled(training)
        if not trial:
            return
        self._latest[trial] = dict(metrics)
        for name, value in metrics.items():
            if name.startswith("train/"):
                curve = self._curves[trial].setdefault(name, [])
                if not curve or curve[-1][0] < epoch:  # a worker that died repeats epochs
                    curve.append([epoch, value])

    def _fall_behind(
        self, pack: str, epochs: Mapping[str, int], told: Mapping[str, Any]
    ) -> tuple[list[str], list[Record]]:
        """Stop the sampled trials of a pack that fall behind, by their stage's metric, mode, grace and reduction.

        They are asked in the order in which they were drawn, once an epoch, while they could go on. A trial of a grid
        is never stopped, nor one that somebody has resumed.

        Returns:
            The trainings that leave, and the records that this makes.
        """
        sampled = {self._sampled(training): training for training in epochs if training in self._running[pack]}
        made: list[Record] = []
        left: list[str] = []
        for trial in list(self._curves) if any(sampled) and not self.stopping else ():
            if trial not in sampled or trial in self.steering.resumed:
                continue
            training, metrics = sampled[trial], self._latest[trial]
            if self._draws[self._tasks[trial].spec.stage].falls_behind(trial, epochs[training], metrics):
                stopped = {"id": training, "status": "stopped", "metrics": metrics, "curves": self._curves[trial]}
                made += self.finish(pack, {**told, **stopped})
                left.append(training)
        return left, made

    def _sampled(self, training: str) -> str:
        """Return the sampled trial that a training under way leads, if it is one."""
        return next((trial for trial in self.trials_of(training)[:1] if trial in self._curves), "")

    def finish(self, pack: str, result: Mapping[str, Any]) -> list[Record]:
        """Write the records of a finished training and its askings; return those of the trials that this completes.

        Nothing is written, and nothing returned, where this training has been recorded before.
        """
        training = result["id"]
        if training not in self._running.get(pack, ()):
            return []
        self._running[pack].discard(training)
        found = self._record(result)
        self._judge(pack, result)
        return found

    def _record(self, result: Mapping[str, Any]) -> list[Record]:
        training = result["id"]
        job = self._jobs.pop(training)
        self._write(job, result)
        self._records.wanted.pop(training, None)
        self.policy.forget(training)
        if result["status"] != "failed" and training not in self._stopped_trainings():
            patiently(self.storage.delete, self.checkpoint(training))
        made = [self._take_in(point) for point in job.points]
        self._release(training)
        found = [record for record in made if record is not None]
        for record in found[:1]:
            self._say_whole(record)
        later = self._leads(self._later.pop(training, []))
        self._queue += self._packs(later, self.packing.size, self.packing.slots)
        return found

    def _write(self, job: Job, result: Mapping[str, Any]) -> None:
        """Write the records of what a job came to: the training first, for askings mean nothing without it."""
        folder = self._folder_of(job)
        whole = complete_record(self._begun[job.lead.id], {**result, "id": job.lead.id})
        asked = job.askings if result["status"] != "stopped" else ()
        record, askings = split(whole, asked, result.get("askings") or {})
        if not job.asks:
            self._index.take(patiently(self.storage.write_record, record, folder))
        if job.asks or result["status"] != "failed":
            for asking in askings:
                self._index.take(patiently(self.storage.write_asking, asking, folder))

    def _take_in(self, point: Point) -> Record | None:
        """Take note of what there is now of a trial, and return its record."""
        self._begun.pop(point.id, None)
        head = self._index.view(point.identity)
        if head is None:
            return None
        self.statuses[point.id] = head.status
        if point.spec.stage in self._draws:
            self._draws[point.spec.stage].tell(point.id)
        return head.record()

    def _say_whole(self, record: Record) -> None:
        """Say once of each model that cannot be split that its trials are slower for it."""
        name = record["model"]["name"]
        if record["counts"].get("whole_model") and name not in self._told_whole:
            self._told_whole.add(name)
            self._say(f"{name}: its blocks do not run alone, so the whole model runs for every text: right, and slower")

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
        for training in list(self._running.get(pack, ())):
            if training in self._stopped_trainings() and not self._jobs[training].asks:
                made += self.finish(pack, {**(told or {}), "id": training, "status": "stopped"})
                continue
            if pack in self._ending and not self.stopping:
                again.append(self._jobs[training].lead)
            self._release(training)
        self._forget(pack)
        self._queue[:0] = self._packs(again, LARGEST, 1)
        self._has_ended(pack)
        self.refresh()
        return made

    def _forget(self, pack: str) -> None:
        """Keep nothing of a pack that has ended."""
        self._running.pop(pack, None)
        self._places.pop(pack, None)
        self._orders.end(pack)

    def _has_ended(self, pack: str) -> None:
        """Have no later pack of the same members end as well."""
        if pack in self._ending:
            self._ending.discard(pack)
            self._tell_workers()

    def fail_pack(self, pack: str, failure: Failure, elsewhere: bool = False) -> list[Record]:
        """Close a pack that failed and return the records that this makes; its trials may be queued again.

        Args:
            pack: its id.
            failure: what happened.
            elsewhere: whether there is another node to run on.
        """
        made: list[Record] = []
        left = sorted(self._running.get(pack, ()))
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
                points = [self._jobs[training].lead for training in left]
                half = -(-len(points) // 2) if verdict == "halves" else len(points)
                self._queue += self._packs(points, max(1, half), 1)
        self._forget(pack)
        self._has_ended(pack)
        self._drop_stopped()
        if self.policy.stop and not self.stopping:
            self.stop(self.policy.stop)
        self.refresh()
        return made

    def refresh(self, anew: bool = False) -> None:
        """Settle the questions whose candidates are all recorded, and queue what that opens.

        Args:
            anew: look at every stage, also where nothing has been settled: the plan is another one.
        """
        ready = self._starts.take_ready()
        self._queue += self._packs(self._leads(ready), self.packing.size, self.packing.slots)
        before = len(self._settled)
        for key, question in list(self._open.items()):
            self._try_to_settle(key, question)
        if self._tasks and len(self._settled) == before and not anew:
            return
        fresh: list[Point] = []
        for stage in self.plan.stages:
            if stage.name in self._draws:
                self.members[stage.name] = self._draws[stage.name].ids
                fresh += [point for point in stage.to_ask if point.id not in self._issued]
                self._issued |= {point.id for point in stage.to_ask}
                continue
            points = stage_points(self.plan, stage.name, self._settled)
            self.members[stage.name] = [point.id for point in points]
            for point in points:
                self._tasks.setdefault(point.id, point)
                if point.id not in self._issued:
                    self._issued.add(point.id)
                    fresh.append(point)
        self._queue += self._packs(self._leads(fresh), self.packing.size, self.packing.slots)
        self._drop_stopped()
        self.write_manifest()

    def _leads(self, points: Iterable[Point]) -> list[Point]:
        """Make jobs of what some trials lack, one for each training, and return their first trials.

        A trial whose training is under way waits for it, and one that starts from weights that are not there for those.
        """
        dues: dict[str, list[tuple[Point, Due]]] = {}
        for point in points:
            due = self._records.due(point)
            if point.id in self._index and not (due and due.trains and not due.again):
                self.statuses[point.id] = self._index[point.id].status
            if due is not None and point.training in self._jobs:
                self._later.setdefault(point.training, []).append(point)
            elif due is not None and not (due.trains and self._starts.waits(point)):
                dues.setdefault(point.training, []).append((point, due))
        self._tasks |= {point.id: point for found in dues.values() for point, _ in found}
        for training, found in dues.items():
            stated = found[0][0].identity  # the labels are those within the first trial, whose record is written
            asked = {
                asking.id: replace(asking, label=label_of(asking.probe, asking.settings, stated))
                for _, due in found
                for asking in due.askings
            }
            for _, due in found:
                for asking in due.askings:
                    epochs = {*asked[asking.id].epochs, *asking.epochs}
                    asked[asking.id] = replace(asked[asking.id], epochs=tuple(sorted(epochs)))
            asks = not any(due.trains for _, due in found)
            self._jobs[training] = Job(tuple(point for point, _ in found), tuple(asked.values()), asks)
        return [self._jobs[training].lead for training in dues]

    def _packs(self, leads: Iterable[Point], size: int | PackSize, slots: int) -> list[Pack]:
        """Put jobs into packs: those that train, and those that only ask."""
        to_train, to_ask = [], []
        for point in leads:
            job = self._jobs[point.training]
            if job.asks:
                to_ask.append((point, job.askings))
            else:
                to_train.append(point)
        return [*make_packs(to_train, size, slots), *make_ask_packs(to_ask, size, slots)]

    @cached_property
    def _storage_id(self) -> str:
        return patiently(self.storage.storage_id)

    def write_manifest(self) -> None:
        """Write the sweep's `plan.json`: which trials belong to which stage, as far as known.

        Trials that earlier runs of this sweep recorded stay listed, also when this run asks for fewer.
        """
        if self._amends:
            self._amend_manifest()
            return
        stages = []
        listed: set[str] = set()
        for stage in self.plan.stages:
            ids = self.members[stage.name]
            kept = self._earlier(stage.name, ids)
            listed |= {*ids, *kept}
            stages.append(
                {
                    "name": stage.name,
                    "points": stage.num_points + len(kept),
                    "ids": ids + kept,
                    "waits_for": stage.waits_for,
                }
            )
        for name in self._manifest:
            kept = self._earlier(name, ()) if name not in self.members else []
            listed |= set(kept)
            if kept:
                stages.append({"name": name, "points": len(kept), "ids": kept, "waits_for": None})
        patiently(
            write_sweep_file,
            self.storage,
            self.name,
            MANIFEST,
            {
                "format": 1,
                "storage": self._storage_id,
                "space": self.plan.space.name,
                "title": self.plan.space.title,
                "grid_points": self.plan.grid_points,
                "unique_points": len(self.plan.grid),
                "arithmetic": self.plan.arithmetic,
                "stages": stages,
                "trials": self._trials_told(listed),
            },
        )

    def _amend_manifest(self) -> None:
        """Add the recorded trials that the sweep's `plan.json` does not list, in stages of their names."""
        manifest = read_sweep_file(self.storage, self.name, MANIFEST)
        listed = {trial for trials in self._manifest.values() for trial in trials}
        new = {name: [i for i in ids if i not in listed and i in self._index] for name, ids in self.members.items()}
        if manifest is None or not any(new.values()):
            return
        for name, ids in new.items():
            if ids:
                stage = {"name": name, "points": 0, "ids": [], "waits_for": None}
                held = [stage for stage in manifest["stages"] if stage["name"] == name]
                manifest["stages"] += [] if held else [stage]
                stage = (held or [stage])[0]
                stage["ids"] = list(dict.fromkeys([*stage["ids"], *ids]))
                stage["points"] = max(len(stage["ids"]), stage["points"])
        trials = {trial for ids in new.values() for trial in ids}
        manifest["trials"] = {**manifest.get("trials", {}), **self._trials_told(trials)}
        patiently(write_sweep_file, self.storage, self.name, MANIFEST, manifest)

    def _trials_told(self, listed: Collection[str]) -> dict[str, Any]:
        """Return for each listed trial its training and what it asks other than by default: what it is, in short."""
        found = {trial: told for trial, told in self._planned.items() if trial in listed}
        for trial in listed:
            point = self._tasks.get(trial)
            if point is not None:
                found[trial] = {"training": point.training, "asks": asks_of(point.identity)}
        return dict(sorted(found.items()))

    def _earlier(self, stage: str, ids: Collection[str]) -> list[str]:
        """Return the trials of a stage that earlier runs recorded and this one does not ask for."""
        listed = frozenset(ids)
        return [trial for trial in self._manifest.get(stage, ()) if trial in self._index and trial not in listed]

    def waiting_lines(self) -> list[str]:
        """Return a line for each reason why trials that were tried have no result."""
        reasons = Counter(f"{failure.kind}: {failure.message[:300]}" for failure in self.waiting.values())
        tried = [f"{count} without a result ({told}); the same command tries again" for told, count in reasons.items()]
        return tried + self._starts.lines()

    def outcome(self) -> dict[str, int]:
        """Count the sweep's trials by status; `missing` have no record."""
        ids = {trial for members in self.members.values() for trial in members}
        counts = {"done": 0, "stopped": 0, "diverged": 0, "failed": 0, "missing": 0}
        for trial in ids:
            counts[self.statuses.get(trial, "missing")] += 1
        expected = sum(
            len(self.members[stage.name]) if self._all_drawn(stage.name) else stage.num_points - stage.equivalent
            for stage in self.plan.stages
        )
        counts["missing"] += max(0, expected - len(ids))
        return counts

    def release_all(self) -> None:
        """Give back the claims on trainings that are under way; for the end of a run."""
        for members in self._running.values():
            for training in members:
                self._release(training)

    def _release(self, training: str) -> None:
        if self._claims is not None:
            self._claims.release(training)

    def _next_of_ours(self) -> Pack | None:
        """Return the next pack without the trials that other sweeps in this storage are running or have recorded."""
        if self._elsewhere and time.monotonic() >= self._ask_again:
            self._queue += self._packs(self._elsewhere, 1, 1)
            self._elsewhere = []
            self._ask_again = time.monotonic() + ASK_AGAIN_S
        while True:
            pack = self._next_queued()
            if pack is None or self._claims is None:
                return pack
            others = self._other_sweeps()
            points = [point for point in pack.points if self._is_ours(point, others)]
            if points:
                return pack if len(points) == len(pack.points) else self._packs(points, len(points), 1)[0]
            self.refresh()

    def _other_sweeps(self) -> list[str]:
        """Return the names of what may be other sweeps in this storage."""
        return [
            name
            for name in self.storage.folders()
            if not name.startswith(".") and name not in RESERVED and name != self.name
        ]

    def _next_queued(self) -> Pack | None:
        """Take the next pack that may run out of the queue; where none is queued, one is drawn."""
        for number, pack in enumerate(self._queue):
            if self._may_run(pack):
                return self._queue.pop(number)
        return None if self._queue or self.steering.finishing else self._sampled_pack()

    def _is_ours(self, point: Point, others: Collection[str]) -> bool:
        """Claim a training; False where another sweep is running it, or has done since this run began what is due."""
        assert self._claims is not None
        job = self._jobs[point.training]
        other = self._claims.take(point.training)
        if other:
            self._elsewhere.append(point)
            if other not in self._others:
                self._others.add(other)
                self._say(f"note: sweep {other} is running trials that this one needs too; it waits for their records")
            return False
        # After the claim: whoever had it until now has written the records before giving it back.
        folders = [self._new_folder(name, point) for name in others]
        if job.asks and self._folder_of(job).partition("/")[0] != self.name:
            folders = [self._folder_of(job)]
        elif job.asks:
            return True
        if not self.storage.add_training(self._index, folders) or job.asks == self._still_due(job):
            return True
        del self._jobs[point.training]
        self._release(point.training)
        for trial in job.points:
            self._take_in(trial)
        self._queue += self._packs(self._leads(job.points), self.packing.size, self.packing.slots)
        return False

    def _still_due(self, job: Job) -> bool | None:
        """Say what is still due of a job: False for training, True for asking as it does, None for something else."""
        dues = [due for point in job.points if (due := self._records.due(point)) is not None]
        if any(due.trains for due in dues):
            return False
        asked = {asking.id for due in dues for asking in due.askings}
        return True if asked == {asking.id for asking in job.askings} else None

    def _all_drawn(self, stage: str) -> bool:
        """Whether a sampled stage ends early because nothing is left to draw."""
        draws = self._draws.get(stage)
        return draws is not None and bool(draws.exhausted) and not draws.has_more

    def _sampled_pack(self) -> Pack | None:
        """Draw a pack of a sampled stage, each member of which may be stopped alone."""
        for name, draws in self._draws.items():
            points: list[Point] = []
            most = -(-draws.stage.copies // (INFORMED * self.packing.slots))
            while (point := self._draw(name, points[0].pack_key if points else None)) is not None:
                points.append(point)
                if point.pack_key != points[0].pack_key or not ADAPTERS[point.spec.method].packs:
                    break  # what is sampled decides with whom a trial can run, or it runs alone
                if len(points) >= min(most, *(self.packing.size(each) for each in points)):
                    break
            if points:
                first, *others = self._packs(points, self.packing.size, 1)
                self._queue += others
                return first
        return None

    def _draw(self, stage: str, pack_key: tuple[Any, ...] | None) -> Point | None:
        """Draw a trial of a sampled stage that is to be run; None when nothing is left, or a choice is open.

        Args:
            stage: its name.
            pack_key: draw for a pack of trials of this kind only; None for any.
        """
        draws = self._draws[stage]
        while True:
            told = len(draws.exhausted)
            point = draws.next(self._settled, pack_key)
            for line in list(draws.exhausted.values())[told:]:
                self._say(f"note: {line}")
            if point is None:
                return None
            if point.training in self._jobs:
                continue  # it is trained, and waits for an answer that it lacks
            self._tasks[point.id] = point
            self._curves[point.id] = {}
            self.members[stage] = draws.ids
            self.write_manifest()
            leads = self._leads([point])
            if leads:
                return leads[0]
            draws.tell(point.id)  # another trial has had the same training, and it came to nothing to be asked

    def _known(self, trial: str) -> Record | None:
        """Return the record of a trial, if there is one."""
        return self._index[trial].record() if trial in self.statuses else None

    def _recorded(self, stage: str) -> list[Record]:
        """Return the records of a stage that this sweep ran, oldest first."""
        records = [head.record() for head in self._index.values() if head.sweep == self.name]
        return sorted((r for r in records if r["stage"] == stage), key=lambda r: (r["started_at"], r["id"]))

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

    def _try_to_settle(self, key: str, question: Question) -> None:
        recorded = self.choices.get(key)
        if recorded is not None and awaits_retry(question, recorded, self.statuses):
            return
        records = self._candidate_records(question)
        fresh, trouble = None, ""
        try:
            fresh = None if records is None else decide(question, records, timestamp())
        except (NoCandidate, Undecided) as error:
            trouble = str(error)
        stays = recorded is not None and recorded["value"] in question.values
        if trouble and not stays:
            self._say(f"stage cannot go on: {trouble}")
            del self._open[key]
            return
        if fresh is None:
            if recorded is not None and stays:
                self._settled[key] = recorded
            return
        choice, warning = reconcile(question, recorded, fresh)
        if warning:
            self._say(f"note: {warning}")
        self._settled[key] = choice
        del self._open[key]
        anew = recorded is not None and reopened(recorded, fresh)
        if recorded is None or anew:
            self.choices[key] = choice
            patiently(write_sweep_file, self.storage, self.name, CHOICES, self.choices)
        if anew or not stays:
            line = f"{question} is {chosen_line(choice)}"
            self._say(f"chosen: {line}")
            self._chosen(line)

    def _candidate_records(self, question: Question) -> dict[str, Record] | None:
        """Return the candidates' records, or None while one is missing."""
        ids = [point.id for point in question.candidates]
        return {trial: self._index[trial].record() for trial in ids} if self.statuses.keys() >= set(ids) else None
