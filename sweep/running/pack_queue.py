"""The queue of a run: packs that wait, and what sampled stages draw where none do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.planning.packs import LARGEST, STATES_BYTES, Pack, PackSize, has_room
from sweep.planning.points import Point
from sweep.records.steering import Wish
from sweep.running.jobs import Jobs
from sweep.running.sampled import SampledTrials
from sweep.running.stage_trials import StageTrials
from trainables.adapters.registry import ADAPTERS


@dataclass(frozen=True)
class Packing:
    """How trials are put together.

    Attributes:
        size: members of a pack at most; a function of a point where that depends on the model.
        slots: packs that run at once.
        states_bytes: of hidden states that a pack may need at a time.
    """

    size: Callable[[Point], int]
    slots: int
    states_bytes: float = STATES_BYTES


class PackQueue:
    """Packs that wait to be handed out.

    Args:
        jobs: of the run; those of the trials that are added are made.
        packing: how trials are put together.
        sampled: the trials of the sampled stages.
        stages: the trials of each stage; those that are drawn are added.
        settled: choices that hold, by key; looked up at each draw.

    Attributes:
        packs: those that wait, the next first.
    """

    def __init__(
        self,
        jobs: Jobs,
        packing: Packing,
        sampled: SampledTrials,
        stages: StageTrials,
        settled: Mapping[str, Any],
    ) -> None:
        """Begin empty."""
        self.packs: list[Pack] = []
        self._jobs, self._packing = jobs, packing
        self._sampled, self._stages, self._settled = sampled, stages, settled

    def add(self, points: Iterable[Point], size: PackSize | None = None) -> None:
        """Queue what some trials lack.

        Args:
            points: the trials.
            size: members of a pack at most; as trials are put together otherwise, where it is not given.
        """
        self.packs += self._jobs.packs(self._jobs.make(points), size or self._packing.size, self._packing.slots)

    def put(self, leads: Iterable[Point], size: int) -> None:
        """Queue jobs.

        Args:
            leads: the first trial of each.
            size: members of a pack at most.
        """
        self.packs += self._jobs.packs(leads, size, 1)

    def put_first(self, leads: Iterable[Point]) -> None:
        """Queue jobs before all others, in packs as large as they come."""
        self.packs[:0] = self._jobs.packs(leads, LARGEST, 1)

    def drop(self, stopped: Collection[str]) -> Iterator[str]:
        """Take trainings that were stopped out of the queue, those that are only asked apart.

        Args:
            stopped: the trainings.

        Yields:
            Each that has been taken out; what is queued meanwhile comes before the packs that follow.
        """
        if not any(point.training in stopped for pack in self.packs for point in pack.points):
            return
        packs, self.packs = self.packs, []
        for pack in packs:
            left = [point for point in pack.points if pack.asks or point.training not in stopped]
            if len(left) == len(pack.points):
                self.packs.append(pack)
                continue
            self.put(left, LARGEST)
            for point in pack.points:
                if point not in left:
                    yield point.training

    def has_any(self, finishing: Wish | None) -> bool:
        """Whether a pack is queued that may be handed out."""
        return any(_may_run(pack, finishing) for pack in self.packs)

    def next(self, finishing: Wish | None) -> Pack | None:
        """Take the next pack that may run out of the queue; where none is queued, one is drawn.

        Args:
            finishing: the wish to finish early, if there is one: only what was under way then may run.
        """
        for number, pack in enumerate(self.packs):
            if _may_run(pack, finishing):
                return self.packs.pop(number)
        return None if self.packs or finishing else self._drawn_pack()

    def next_like(self, members: Sequence[Point], has_failed: Callable[[str], bool]) -> Point | None:
        """Take a trial that can join some others out of the queue, or draw one.

        Args:
            members: the others.
            has_failed: whether a training has failed before: it joins nobody.
        """
        return self._queued_like(members, has_failed) or self._drawn_like(members)

    def _queued_like(self, members: Sequence[Point], has_failed: Callable[[str], bool]) -> Point | None:
        """Take a trial that can join some others out of a pack in the queue."""
        for number, pack in enumerate(self.packs):
            if pack.asks or pack.points[0].pack_key != members[0].pack_key:
                continue
            for point in pack.points:
                if self._has_room(members, point) and not has_failed(point.training):
                    rest = [other for other in pack.points if other is not point]
                    self.packs[number : number + 1] = self._jobs.packs(rest, len(rest), 1) if rest else []
                    return point
        return None

    def _drawn_like(self, members: Sequence[Point]) -> Point | None:
        """Draw a trial that can join some others; one that cannot is queued, and nothing drawn until it has begun."""
        for name in self._sampled.stages:
            if any(point.spec.stage == name for pack in self.packs for point in pack.points):
                continue
            point = self._draw(name, members[0].pack_key)
            if point is None:
                continue
            if point.pack_key == members[0].pack_key and self._has_room(members, point):
                return point
            self.put([point], 1)
        return None

    def _has_room(self, members: Sequence[Point], point: Point) -> bool:
        return has_room(members, point, self._packing.size, self._packing.states_bytes)

    def _drawn_pack(self) -> Pack | None:
        """Draw a pack of a sampled stage, each member of which may be stopped alone."""
        for name in self._sampled.stages:
            points: list[Point] = []
            most = self._sampled.most_at_once(name, self._packing.slots)
            while (point := self._draw(name, points[0].pack_key if points else None)) is not None:
                points.append(point)
                if point.pack_key != points[0].pack_key or not ADAPTERS[point.spec.method].packs:
                    break  # what is sampled decides with whom a trial can run, or it runs alone
                if len(points) >= min(most, *(self._packing.size(each) for each in points)):
                    break
            if points:
                first, *others = self._jobs.packs(points, self._packing.size, 1)
                self.packs += others
                return first
        return None

    def _draw(self, stage: str, pack_key: tuple[Any, ...] | None) -> Point | None:
        """Draw a trial of a sampled stage that is to be run; None when nothing is left, or a choice is open.

        Args:
            stage: its name.
            pack_key: draw for a pack of trials of this kind only; None for any.
        """
        while (point := self._sampled.draw(stage, self._settled, pack_key)) is not None:
            if point.training in self._jobs:
                continue  # it is trained, and waits for an answer that it lacks
            self._sampled.begin(point.id)
            self._stages.add_drawn(point)
            leads = self._jobs.make([point])
            if leads:
                return leads[0]
            self._sampled.tell(point)  # another trial has had the same training, and it came to nothing to be asked
        return None


def _may_run(pack: Pack, finishing: Wish | None) -> bool:
    """Whether a pack may be handed out: once the sweep is to finish early, only what was under way then."""
    return finishing is None or all(point.training in finishing.under_way for point in pack.points)
