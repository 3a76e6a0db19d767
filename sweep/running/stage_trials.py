"""Which trials belong to which stage of a sweep, as far as known: what `plan.json` lists, and what is counted."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Any

from sweep.planning.choices import Choices
from sweep.planning.expand import stage_points
from sweep.planning.plan import Plan
from sweep.planning.points import Point
from sweep.records.askings import asks_of
from sweep.records.manifest import manifest_stages
from sweep.records.storage_id import MANIFEST
from sweep.records.sweep_files import read_sweep_file, write_sweep_file
from sweep.records.sweep_storage import SweepStorage
from sweep.running.known_trials import KnownTrials
from sweep.running.sampled import SampledTrials
from trainables.node.patience import patiently


class StageTrials:
    """The trials of each stage, in memory and in the sweep's `plan.json`.

    Args:
        plan: of the sweep.
        storage: of the sweep.
        sweep: its name.
        known: its trials; those that open are added.
        sampled: those of its sampled stages.
        amends: whether the file stays, and of this plan's trials those are added that are new.

    Attributes:
        members: the ids of the trials of each stage.
    """

    def __init__(
        self,
        plan: Plan,
        storage: SweepStorage,
        sweep: str,
        known: KnownTrials,
        sampled: SampledTrials,
        amends: bool,
    ) -> None:
        """Read what earlier runs listed."""
        self._plan, self._storage, self._sweep = plan, storage, sweep
        self._known, self._sampled, self._amends = known, sampled, amends
        self.members: dict[str, list[str]] = {stage.name: [] for stage in plan.stages}
        self._issued: set[str] = set()
        self._listed = dict(manifest_stages(storage, sweep))
        self._planned = storage.planned_trials(sweep)

    def adopt(self, plan: Plan) -> None:
        """Go on with another plan of the same sweep."""
        self._plan = plan
        for stage in plan.stages:
            self.members.setdefault(stage.name, [])

    def open(self, choices: Choices) -> list[Point]:
        """Return, once, the trials that can be run with what has been chosen so far; drawn ones are not among them."""
        fresh: list[Point] = []
        for stage in self._plan.stages:
            if stage.name in self._sampled.stages:
                self.members[stage.name] = self._sampled.ids(stage.name)
                fresh += [point for point in stage.to_ask if point.id not in self._issued]
                self._issued |= {point.id for point in stage.to_ask}
                continue
            points = stage_points(self._plan, stage.name, choices)
            self.members[stage.name] = [point.id for point in points]
            for point in points:
                self._known.points.setdefault(point.id, point)
                if point.id not in self._issued:
                    self._issued.add(point.id)
                    fresh.append(point)
        return fresh

    def add_drawn(self, point: Point) -> None:
        """Add a trial of a sampled stage that has been drawn, and list it."""
        self._known.points[point.id] = point
        self.members[point.spec.stage] = self._sampled.ids(point.spec.stage)
        self.write()

    def outcome(self) -> dict[str, int]:
        """Count the sweep's trials by status; `missing` have no record."""
        ids = {trial for members in self.members.values() for trial in members}
        counts = {"done": 0, "stopped": 0, "diverged": 0, "failed": 0, "missing": 0}
        for trial in ids:
            counts[self._known.statuses.get(trial, "missing")] += 1
        expected = sum(
            len(self.members[stage.name])
            if self._sampled.all_drawn(stage.name)
            else stage.num_points - stage.equivalent
            for stage in self._plan.stages
        )
        counts["missing"] += max(0, expected - len(ids))
        return counts

    def write(self) -> None:
        """Write the sweep's `plan.json`.

        Trials that earlier runs of this sweep recorded stay listed, also when this run asks for fewer.
        """
        if self._amends:
            self._amend()
            return
        stages = []
        listed: set[str] = set()
        for stage in self._plan.stages:
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
        for name in self._listed:
            kept = self._earlier(name, ()) if name not in self.members else []
            listed |= set(kept)
            if kept:
                stages.append({"name": name, "points": len(kept), "ids": kept, "waits_for": None})
        patiently(
            write_sweep_file,
            self._storage,
            self._sweep,
            MANIFEST,
            {
                "format": 1,
                "storage": self._storage_id,
                "space": self._plan.space.name,
                "title": self._plan.space.title,
                "grid_points": self._plan.grid_points,
                "unique_points": len(self._plan.grid),
                "arithmetic": self._plan.arithmetic,
                "stages": stages,
                "trials": self._told(listed),
            },
        )

    @cached_property
    def _storage_id(self) -> str:
        return patiently(self._storage.storage_id)

    def _amend(self) -> None:
        """Add the recorded trials that the sweep's `plan.json` does not list, in stages of their names."""
        manifest = read_sweep_file(self._storage, self._sweep, MANIFEST)
        listed = {trial for trials in self._listed.values() for trial in trials}
        index = self._known.index
        new = {name: [i for i in ids if i not in listed and i in index] for name, ids in self.members.items()}
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
        manifest["trials"] = {**manifest.get("trials", {}), **self._told(trials)}
        patiently(write_sweep_file, self._storage, self._sweep, MANIFEST, manifest)

    def _told(self, listed: Collection[str]) -> dict[str, Any]:
        """Return for each listed trial its training and what it asks other than by default: what it is, in short."""
        found = {trial: told for trial, told in self._planned.items() if trial in listed}
        for trial in listed:
            point = self._known.points.get(trial)
            if point is not None:
                found[trial] = {"training": point.training, "asks": asks_of(point.identity)}
        return dict(sorted(found.items()))

    def _earlier(self, stage: str, ids: Collection[str]) -> list[str]:
        """Return the trials of a stage that earlier runs recorded and this one does not ask for."""
        asked, index = frozenset(ids), self._known.index
        return [trial for trial in self._listed.get(stage, ()) if trial in index and trial not in asked]
