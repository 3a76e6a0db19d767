"""Trials of a running sweep that wait for the weights from which they start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from sweep.planning.due import Records
from sweep.planning.points import Point


class WaitingStarts:
    """Holds trials back until the weights that they start from are in the storage.

    Args:
        records: says what there is of them.
        say: prints a line for the user.
    """

    def __init__(self, records: Records, say: Callable[[str], None]) -> None:
        """Start without any."""
        self._records, self._say = records, say
        self._waiting: dict[str, Point] = {}
        self._told: set[str] = set()

    def waits(self, point: Point) -> bool:
        """Say whether a trial has to wait, or cannot start at all, and hold it back then."""
        if not point.spec.start_from:
            return False
        start = self._records.start(point)
        if start.files and point.spec.start_from not in self._records.wanted:
            return False
        self._waiting[point.id] = point
        return True

    def take_ready(self) -> list[Point]:
        """Return the trials that can start by now; of those that never will it is said why, once."""
        waiting, self._waiting = list(self._waiting.values()), {}
        ready = [point for point in waiting if not self.waits(point)]
        for point in self._waiting.values():
            problem = self._records.start(point).problem
            line = f"stage {point.spec.stage} cannot go on: {problem}"
            if problem and line not in self._told:
                self._told.add(line)
                self._say(line)
        return ready

    def lines(self) -> list[str]:
        """Return a line for each stage with trials that could not start, for the end of a run."""
        counts = Counter(
            (point.spec.stage, self._records.start(point).problem or "those have no result yet")
            for point in self._waiting.values()
        )
        return [
            f"{count} of stage {stage} without the weights that they start from ({why})"
            for (stage, why), count in counts.items()
        ]
