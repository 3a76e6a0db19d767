"""What is done, what runs and what comes next, while a sweep runs.

The ledger lives in the driver. An executor takes packs from it and gives results to it; every result may
settle a choice, and a settled choice opens the stages that wait for it, one group at a time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from sweep.planning.expand import Plan, stage_points
from sweep.planning.packs import Pack, make_packs
from sweep.planning.points import Point
from sweep.records.manifest import manifest_stages
from sweep.records.names import ModelNames
from sweep.records.record import Origin, Record, begin_record, complete_record, timestamp
from sweep.records.storage_id import MANIFEST
from sweep.records.store import RESERVED, RecordIndex, Store
from sweep.records.sweep_files import CHOICES, write_sweep_file
from sweep.running.failures import FailurePolicy
from sweep.running.optuna_draws import StageDraws
from trainables.errors import OWN_KINDS, Failure
from trainables.node.patience import patiently
from trainables.trial.task import TrialTask

ASK_AGAIN_S = 1.0
"""How often other sweeps are asked whether they still run a trial that this one needs too."""


def _again(points: Sequence[Point], halves: bool) -> Iterable[Pack]:
    """Return the packs in which trials are tried again: all in one, or in two."""
    half = -(-len(points) // 2) if halves else len(points)
    return make_packs(points, max(1, half))


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
        store: where records go.
        name: of the sweep.
        index: the records there are; those that this run makes are added.
        choices: recorded choices by key.
        packing: how trials are put together.
        retry_failed: run failed trials again.
        say: prints a line for the user.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        name: str,
        index: RecordIndex,
        choices: dict[str, Any],
        packing: Packing,
        retry_failed: bool,
        say: Callable[[str], None],
    ) -> None:
        """Open what can be opened at once."""
        self.plan, self.store, self.name, self.packing = plan, store, name, packing
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
        self._running: dict[str, dict[str, Record]] = {}
        self._claims = store.claims(name)
        self._elsewhere: list[Point] = []
        self._others: set[str] = set()
        self._ask_again = 0.0
        self._tasks: dict[str, Point] = {}
        self._open: dict[str, Question] = {q.key: q for q in plan.questions}
        self._settled: dict[str, Any] = {}
        self.policy = FailurePolicy()
        self.waiting: dict[str, Failure] = {}
        self._stop_file_written = False
        self.members: dict[str, list[str]] = {stage.name: [] for stage in plan.stages}
        self._draws = {
            stage.name: StageDraws(plan, stage, store, name, self._known, partial(self._recorded, stage.name), choices)
            for stage in plan.stages
            if stage.stage.sampling
        }
        self._latest: dict[str, dict[str, float]] = {}
        self._curves: dict[str, dict[str, list[list[float]]]] = {}
        self._manifest = dict(manifest_stages(store, name))
        self.clear()
        self.refresh()

    # -- what the executor asks

    def next_pack(self) -> tuple[Pack, dict[str, Record]] | None:
        """Return the next pack with its begun records; None when nothing is ready.

        Raises:
            LockLost: another run has taken this sweep over.
        """
        self.check_lock()
        if self.stopping:
            return None
        pack = self._next_of_ours()
        if pack is None:
            return None
        begun = {}
        for point in pack.points:
            origin = Origin(self.name, point.spec.stage, pack.id)
            begun[point.id] = begin_record(point.spec, point.identity, self.models.named(point.card), origin)
        self._running[pack.id] = begun
        return pack, begun

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left to hand out, now or later."""
        if self.stopping:
            return True
        more = any(draws.has_more for draws in self._draws.values()) and bool(self._running)
        return not (self._queue or self._running or self._elsewhere or more)

    def check_lock(self) -> None:
        """Do nothing while this run is the only writer of its sweep.

        Raises:
            LockLost: another run has taken it over.
        """
        self.store.check_lock(self.name)

    @property
    def running_trials(self) -> int:
        """Trials handed out and not finished."""
        return sum(len(members) for members in self._running.values())

    def is_sampled(self, trial: str) -> bool:
        """Whether a trial was drawn by a sampler rather than being a point of a grid."""
        return trial in self._curves

    def task(self, point: Point) -> TrialTask:
        """Return a point as a worker gets it, its places made absolute."""
        folder = self._folder_of(point)
        spec = self.plan.spec_to_run(point)
        return TrialTask(point.id, spec, self.store.full(folder), self.store.full(self.checkpoint(point.id)))

    def _folder_of(self, point: Point) -> str:
        return self.store.trial_folder(self.name, point.spec, self.models.named(point.card).name, point.id)

    def checkpoint(self, trial: str) -> str:
        """Return the place of a trial's checkpoint in the storage."""
        return f"{self.name}/checkpoints/{trial}.safetensors"

    @property
    def stop_file(self) -> str:
        """Place of the file that tells the workers to checkpoint and stop."""
        return self.store.full(f"{self.name}/stop")

    @property
    def plan_file(self) -> str:
        """Place of the sweep's plan, which is there before the first pack."""
        return self.store.full(f"{self.name}/{MANIFEST}")

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
            self.store.write(f"{self.name}/stop", self.stopping.encode())
        except OSError as error:
            self._say(f"note: {error}")

    def clear(self) -> None:
        """Remove what nobody needs any more: the stop file, and checkpoints of trials that have a result.

        A driver that was killed leaves both, and a process that was stopped early writes its checkpoint anew.
        """
        self.store.delete(f"{self.name}/stop")
        for file in self.store.files(f"{self.name}/checkpoints"):
            head = self._index.get(file.partition(".")[0])
            if head is not None and head.status != "failed":
                self.store.delete(f"{self.name}/checkpoints/{file}")

    # -- what the executor tells

    def epoch(self, trial: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take note of a trial's epoch, and remember that of a sampled one, which may be stopped early."""
        self.policy.epoch(trial, epoch)
        if trial not in self._curves:
            return
        self._latest[trial] = dict(metrics)
        for name, value in metrics.items():
            if name.startswith("train/"):
                curve = self._curves[trial].setdefault(name, [])
                if not curve or curve[-1][0] < epoch:  # a worker that died repeats epochs
                    curve.append([epoch, value])

    def falls_behind(self, trial: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Whether a sampled trial is to be stopped after this epoch, by its stage's metric, mode, grace and reduction.

        Asked once an epoch, while the trial could go on. A trial of a grid is never stopped.
        """
        if trial not in self._curves or self.stopping:
            return False
        return self._draws[self._tasks[trial].spec.stage].falls_behind(trial, epoch, metrics)

    def finish(self, pack: str, result: Mapping[str, Any]) -> Record | None:
        """Write a finished trial's record; None when this trial has been recorded before."""
        begun = self._running.get(pack, {}).pop(result["id"], None)
        if begun is None:
            return None
        record = complete_record(begun, result)
        point = self._tasks[result["id"]]
        self._index.add(patiently(self.store.write_record, record, self._folder_of(point)))
        self.statuses[point.id] = record["status"]
        self.policy.forget(point.id)
        if record["status"] != "failed":
            patiently(self.store.delete, self.checkpoint(point.id))
        if point.spec.stage in self._draws:
            self._draws[point.spec.stage].tell(point.id)
        self._release(point.id)
        self._say_whole(record)
        self._judge(record, result.get("device", ""))
        return record

    def _say_whole(self, record: Record) -> None:
        """Say once of each model that cannot be split that its trials are slower for it."""
        name = record["model"]["name"]
        if record["counts"].get("whole_model") and name not in self._told_whole:
            self._told_whole.add(name)
            self._say(f"{name}: its blocks do not run alone, so the whole model runs for every text: right, and slower")

    def end_pack(self, pack: str, told: Mapping[str, Any] | None = None) -> list[Record]:
        """Close a pack and return the records that this makes.

        Of members without a result, a sampled trial was stopped early, and any other waits for a later run.

        Args:
            pack: its id.
            told: where it ran: `versions`, `host`, `node` and `device`.
        """
        made = []
        for trial in list(self._running.get(pack, {})):
            curves = self._curves.get(trial, {})
            if not curves or self.stopping:
                self._release(trial)
                continue
            stopped = {"id": trial, "status": "stopped", "metrics": self._latest[trial], "curves": curves}
            record = self.finish(pack, {**(told or {}), **stopped})
            made += [record] if record else []
        self._running.pop(pack, None)
        self.refresh()
        return made

    def fail_pack(self, pack: str, failure: Failure, elsewhere: bool = False) -> list[Record]:
        """Close a pack that failed and return the records that this makes; its trials may be queued again.

        Args:
            pack: its id.
            failure: what happened.
            elsewhere: whether there is another node to run on.
        """
        begun = self._running.get(pack, {})
        made: list[Record] = []
        if begun:
            left = list(begun)
            known = len(self.policy.left_out)
            verdict = self.policy.judge(left, failure, elsewhere)
            for told in list(self.policy.left_out.values())[known:]:
                self._say(told)
            if verdict == "result":
                results = ({"id": trial, "status": "failed", "error": failure.result} for trial in left)
                made = [record for result in results if (record := self.finish(pack, result)) is not None]
            elif verdict == "later":
                self.waiting |= dict.fromkeys(left, failure)
            else:
                points = [self._tasks[trial] for trial in left]
                self._queue += _again(points, halves=verdict == "halves")
            self._running.pop(pack, None)
        if self.policy.stop and not self.stopping:
            self.stop(self.policy.stop)
        self.refresh()
        return made

    def refresh(self) -> None:
        """Settle the questions whose candidates are all recorded, and queue what that opens."""
        before = len(self._settled)
        for key, question in list(self._open.items()):
            self._try_to_settle(key, question)
        if self._tasks and len(self._settled) == before:
            return
        fresh: list[Point] = []
        for stage in self.plan.stages:
            if stage.name in self._draws:
                self.members[stage.name] = self._draws[stage.name].ids
                continue
            points = stage_points(self.plan, stage.name, self._settled)
            self.members[stage.name] = [point.id for point in points]
            for point in points:
                self._tasks.setdefault(point.id, point)
                if point.id not in self._issued and point.id not in self.statuses:
                    self._issued.add(point.id)
                    fresh.append(point)
        by_size: dict[int, list[Point]] = {}
        for point in fresh:
            by_size.setdefault(self.packing.size(point), []).append(point)
        for size, points in by_size.items():
            self._queue += make_packs(points, size, self.packing.slots)
        self.write_manifest()

    @cached_property
    def _storage_id(self) -> str:
        return patiently(self.store.storage_id)

    def write_manifest(self) -> None:
        """Write the sweep's `plan.json`: which trials belong to which stage, as far as known.

        Trials that earlier runs of this sweep recorded stay listed, also when this run asks for fewer.
        """
        stages = []
        for stage in self.plan.stages:
            ids = self.members[stage.name]
            kept = self._earlier(stage.name, ids)
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
            if kept:
                stages.append({"name": name, "points": len(kept), "ids": kept, "waits_for": None})
        patiently(
            write_sweep_file,
            self.store,
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
            },
        )

    def _earlier(self, stage: str, ids: Collection[str]) -> list[str]:
        """Return the trials of a stage that earlier runs recorded and this one does not ask for."""
        listed = frozenset(ids)
        return [trial for trial in self._manifest.get(stage, ()) if trial in self._index and trial not in listed]

    def waiting_lines(self) -> list[str]:
        """Return a line for each reason why trials that were tried have no result."""
        reasons = Counter(f"{failure.kind}: {failure.message[:300]}" for failure in self.waiting.values())
        return [f"{count} without a result ({told}); the same command tries again" for told, count in reasons.items()]

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
        """Give back the claims on trials that are under way; for the end of a run."""
        for members in self._running.values():
            for trial in members:
                self._release(trial)

    def _release(self, trial: str) -> None:
        if self._claims is not None:
            self._claims.release(trial)

    def _next_of_ours(self) -> Pack | None:
        """Return the next pack without the trials that other sweeps in this storage are running or have recorded."""
        if self._elsewhere and time.monotonic() >= self._ask_again:
            self._queue += [pack for point in self._elsewhere for pack in make_packs([point], 1)]
            self._elsewhere = []
            self._ask_again = time.monotonic() + ASK_AGAIN_S
        while True:
            pack = self._queue.pop(0) if self._queue else self._sampled_pack()
            if pack is None or self._claims is None:
                return pack
            others = [
                name
                for name in self.store.folders()
                if not name.startswith(".") and name not in RESERVED and name != self.name
            ]
            points = [point for point in pack.points if self._is_ours(point, others)]
            if points:
                return pack if len(points) == len(pack.points) else make_packs(points, len(points))[0]
            self.refresh()

    def _is_ours(self, point: Point, others: Collection[str]) -> bool:
        """Claim a trial; False where another sweep is running it, or has recorded it since this run began."""
        assert self._claims is not None
        other = self._claims.take(point.id)
        if other:
            self._elsewhere.append(point)
            if other not in self._others:
                self._others.add(other)
                self._say(f"note: sweep {other} is running trials that this one needs too; it waits for their records")
            return False
        # After the claim: whoever had it until now has written the record before giving it back.
        folders = [self.store.trial_folder(name, point.spec, point.card.name, point.id) for name in others]
        found = self.store.find_record(folders)
        if found is None or (found.status == "failed" and self._retry_failed):
            return True
        self._release(point.id)
        self._index.add(found)
        self.statuses[point.id] = found.status
        if point.spec.stage in self._draws:
            self._draws[point.spec.stage].tell(point.id)
        return False

    def _all_drawn(self, stage: str) -> bool:
        """Whether a sampled stage ends early because nothing is left to draw."""
        draws = self._draws.get(stage)
        return draws is not None and bool(draws.exhausted) and not draws.has_more

    def _sampled_pack(self) -> Pack | None:
        """Draw a trial of a sampled stage; it runs alone, so that it can be stopped alone."""
        for name, draws in self._draws.items():
            told = len(draws.exhausted)
            point = draws.next(self._settled)
            for line in list(draws.exhausted.values())[told:]:
                self._say(f"note: {line}")
            if point is not None:
                self._tasks[point.id] = point
                self._curves[point.id] = {}
                self.members[name] = draws.ids
                self.write_manifest()
                return make_packs([point], 1)[0]
        return None

    def _known(self, trial: str) -> Record | None:
        """Return the record of a trial, if there is one."""
        return self._index[trial].record() if trial in self.statuses else None

    def _recorded(self, stage: str) -> list[Record]:
        """Return the records of a stage that this sweep ran, oldest first."""
        records = [head.record() for head in self._index.values() if head.sweep == self.name]
        return sorted((r for r in records if r["stage"] == stage), key=lambda r: (r["started_at"], r["id"]))

    def _judge(self, record: Record, device: str) -> None:
        """Let the policy learn from a record, made on this device, and stop the sweep if it says so."""
        if record["status"] != "failed":
            self.policy.succeed(record["node"], device)
        elif record["error"] and record["error"]["class"] in OWN_KINDS:
            error, pack = record["error"], record["pack"]
            failure = Failure(error["class"], error["message"], host=record["host"], device=device, node=record["node"])
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
            patiently(write_sweep_file, self.store, self.name, CHOICES, self.choices)
        if anew or not stays:
            self._say(f"chosen: {question} is {chosen_line(choice)}")

    def _candidate_records(self, question: Question) -> dict[str, Record] | None:
        """Return the candidates' records, or None while one is missing."""
        ids = [point.id for point in question.candidates]
        return {trial: self._index[trial].record() for trial in ids} if self.statuses.keys() >= set(ids) else None
