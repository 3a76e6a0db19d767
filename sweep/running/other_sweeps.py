"""Other sweeps in the same storage that need the same trials: what one of them runs, the others wait for."""

from __future__ import annotations

import time
from collections.abc import Callable

from sweep.planning.points import Point
from sweep.records.sweep_storage import RESERVED, SweepStorage

ASK_AGAIN_S = 1.0
"""How often other sweeps are asked whether they still run a trial that this one needs too."""


class OtherSweeps:
    """Claims trainings for one run of a sweep, and holds back what others have claimed.

    Args:
        storage: that they share.
        sweep: the name of this one.
        say: prints a line for the user.
    """

    def __init__(self, storage: SweepStorage, sweep: str, say: Callable[[str], None]) -> None:
        """Begin without claims."""
        self._storage, self._sweep, self._say = storage, sweep, say
        self._claims = storage.claims(sweep)
        self._elsewhere: list[Point] = []
        self._told: set[str] = set()
        self._ask_again = 0.0

    @property
    def claims_anything(self) -> bool:
        """Whether trainings have to be claimed at all in this storage."""
        return self._claims is not None

    @property
    def are_waited_for(self) -> bool:
        """Whether jobs of this run wait for other sweeps."""
        return bool(self._elsewhere)

    def take_held_back(self) -> list[Point]:
        """Return the jobs that wait for other sweeps, to be held back no more, where it is time to ask again."""
        if not self._elsewhere or time.monotonic() < self._ask_again:
            return []
        found, self._elsewhere = self._elsewhere, []
        self._ask_again = time.monotonic() + ASK_AGAIN_S
        return found

    def names(self) -> list[str]:
        """Return the names of what may be other sweeps in this storage."""
        return [
            name
            for name in self._storage.folders()
            if not name.startswith(".") and name not in RESERVED and name != self._sweep
        ]

    def claim(self, point: Point) -> bool:
        """Claim a training, or hold it back where another sweep is running it; say which of both."""
        if self._claims is None:
            return True
        other = self._claims.take(point.training)
        if not other:
            return True
        self._elsewhere.append(point)
        if other not in self._told:
            self._told.add(other)
            self._say(f"note: sweep {other} is running trials that this one needs too; it waits for their records")
        return False

    def release(self, training: str) -> None:
        """Give a claim back."""
        if self._claims is not None:
            self._claims.release(training)
