"""What is done, what runs and what comes next, while a sweep runs.

The ledger lives in the driver. An executor takes packs from it and gives results to it; every result may
settle a choice, and a settled choice opens the stages that wait for it, one group at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sweep.planning.choices import NoCandidate, Question, decide, reconcile
from sweep.planning.expand import Plan, stage_points
from sweep.planning.packs import Pack, make_packs
from sweep.planning.points import Point
from sweep.records.manifest import MANIFEST, manifest_stages
from sweep.records.record import Origin, Record, begin_record, complete_record, timestamp
from sweep.records.store import RecordIndex, Store
from sweep.running.optuna_draws import StageDraws
from trainables.trial.task import TrialTask

HOPELESS_AFTER = 3
"""Packs that must fail alike, before any has succeeded, for the sweep to stop."""


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
        self._retry_failed = retry_failed
        self._say = say
        self._issued: set[str] = set()
        self._queue: list[Pack] = []
        self._running: dict[str, dict[str, Record]] = {}
        self._tasks: dict[str, Point] = {}
        self._open: dict[str, Question] = {q.key: q for q in plan.questions}
        self._settled: dict[str, Any] = {}
        self._hopeless: dict[str, str] | None = {}
        self.members: dict[str, list[str]] = {stage.name: [] for stage in plan.stages}
        self._draws = {
            stage.name: StageDraws(plan, stage, store, name, self._known)
            for stage in plan.stages
            if stage.stage.sampling
        }
        self._latest: dict[str, dict[str, float]] = {}
        self._curves: dict[str, dict[str, list[list[float]]]] = {}
        self._manifest = dict(manifest_stages(store, name))
        store.delete(f"{name}/stop")
        self.refresh()

    # -- what the executor asks

    def next_pack(self) -> tuple[Pack, dict[str, Record]] | None:
        """Return the next pack with its begun records; None when nothing is ready."""
        if self.stopping:
            return None
        pack = self._queue.pop(0) if self._queue else self._sampled_pack()
        if pack is None:
            return None
        begun = {}
        for point in pack.points:
            origin = Origin(self.name, point.spec.stage, pack.id)
            begun[point.id] = begin_record(point.spec, point.identity, point.card, origin)
        self._running[pack.id] = begun
        return pack, begun

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left to hand out, now or later."""
        if self.stopping:
            return True
        more = any(draws.has_more for draws in self._draws.values()) and bool(self._running)
        return not (self._queue or self._running or more)

    @property
    def running_trials(self) -> int:
        """Trials handed out and not finished."""
        return sum(len(members) for members in self._running.values())

    def is_sampled(self, trial: str) -> bool:
        """Whether a trial was drawn by a sampler rather than being a point of a grid."""
        return trial in self._curves

    def task(self, point: Point) -> TrialTask:
        """Return a point as a worker gets it, its places made absolute."""
        folder = self.store.trial_folder(self.name, point.spec, point.card.name, point.id)
        return TrialTask(point.id, point.spec, self.store.full(folder), self.store.full(self.checkpoint(point.id)))

    def checkpoint(self, trial: str) -> str:
        """Return the place of a trial's checkpoint in the storage."""
        return f"{self.name}/checkpoints/{trial}.safetensors"

    @property
    def stop_file(self) -> str:
        """Place of the file that tells the workers to checkpoint and stop."""
        return self.store.full(f"{self.name}/stop")

    def stop(self, reason: str) -> None:
        """Hand out nothing more, and have the running packs keep a checkpoint after their epoch and end."""
        self.stopping = reason
        self.store.write(f"{self.name}/stop", reason.encode())

    # -- what the executor tells

    def epoch(self, trial: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Remember an epoch of a sampled trial, which may be stopped early."""
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
        folder = self.store.trial_folder(self.name, point.spec, point.card.name, point.id)
        self._index.add(self.store.write_record(record, folder))
        self.store.delete(self.checkpoint(point.id))
        self.statuses[point.id] = record["status"]
        if point.spec.stage in self._draws:
            self._draws[point.spec.stage].tell(point.id)
        self._judge(record)
        return record

    def end_pack(self, pack: str, error: Mapping[str, str] | None = None) -> list[Record]:
        """Close a pack and return the records that this makes.

        Members without a result fail with `error`; without one, a sampled trial was stopped early, and any other
        waits for a later run.
        """
        made = []
        for trial in list(self._running.get(pack, {})):
            curves = self._curves.get(trial, {})
            if error:
                result: dict[str, Any] = {"status": "failed", "error": dict(error)}
            elif curves and not self.stopping:
                result = {"status": "stopped", "metrics": self._latest[trial], "curves": curves}
            else:
                continue
            record = self.finish(pack, {"id": trial, **result})
            made += [record] if record else []
        self._running.pop(pack, None)
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
        self.store.write_json(
            f"{self.name}/{MANIFEST}",
            {
                "format": 1,
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

    def _judge(self, record: Record) -> None:
        """Stop the sweep when everything fails in the same way from the start."""
        if record["status"] != "failed":
            self._hopeless = None
        if self._hopeless is None:
            return
        error = record["error"] or {}
        self._hopeless[record["pack"]] = f"{error.get('class')}: {error.get('message')}"
        if len(self._hopeless) >= HOPELESS_AFTER and len(set(self._hopeless.values())) == 1:
            self.stop(f"the first {len(self._hopeless)} packs all failed alike; --retry-failed runs them again")

    def _try_to_settle(self, key: str, question: Question) -> None:
        recorded = self.choices.get(key)
        records = self._candidate_records(question)
        try:
            fresh = None if records is None else decide(question, records, timestamp())
        except NoCandidate as error:
            self._say(f"stage cannot go on: {error}")
            del self._open[key]
            return
        if recorded is not None and recorded["value"] in question.values:
            self._settled[key] = recorded
            if fresh is not None:
                _, warning = reconcile(question, recorded, fresh)
                if warning:
                    self._say(f"note: {warning}")
                del self._open[key]
            return
        if fresh is None:
            return
        choice, warning = reconcile(question, recorded, fresh)
        if warning:
            self._say(f"note: {warning}")
        self._settled[key] = choice
        del self._open[key]
        if recorded is None:
            self.choices[key] = choice
            self.store.write_json(f"{self.name}/choices.json", self.choices)
        following = "".join(f", next {c['value']} ({c['metric']:.4f})" for c in choice["runners_up"][:1])
        self._say(f"chosen: {question} is {choice['value']} ({choice['by']} {choice['metric']:.4f}{following})")

    def _candidate_records(self, question: Question) -> dict[str, Record] | None:
        """Return the candidates' records, or None while one is missing."""
        ids = [point.id for point in question.candidates]
        return {trial: self._index[trial].record() for trial in ids} if self.statuses.keys() >= set(ids) else None
