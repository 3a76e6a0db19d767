"""The file `stop` of a sweep: it tells the workers to keep a checkpoint after their epoch and end."""

from __future__ import annotations

from collections.abc import Callable, Collection

from sweep.records.sweep_storage import SweepStorage


class StopFile:
    """Why a run ends, which packs end before, and the file that tells the workers so.

    Args:
        storage: where it lies.
        sweep: name of the sweep.
        say: prints a line for the user.

    Attributes:
        reason: why the run ends; empty while it goes on.
        ending: ids of the packs that end after their epoch.
    """

    def __init__(self, storage: SweepStorage, sweep: str, say: Callable[[str], None]) -> None:
        """Begin with nothing to stop."""
        self.reason = ""
        self.ending: frozenset[str] = frozenset()
        self._storage, self._place, self._say = storage, f"{sweep}/stop", say
        self._is_written = False

    @property
    def path(self) -> str:
        """The file's place for the workers."""
        return self._storage.full(self._place)

    def note(self, reason: str) -> None:
        """Take note that the run ends; touches nothing but memory."""
        self.reason = self.reason or reason

    def announce(self) -> None:
        """Write the file once the run is to end.

        Where the storage cannot be written, the workers hear it from the executor all the same, which asks `reason`.
        """
        if not self.reason or self._is_written:
            return
        self._is_written = True
        try:
            self._storage.write(self._place, self.reason.encode())
        except OSError as error:
            self._say(f"note: {error}")

    def end_packs(self, packs: Collection[str], stopped: Collection[str]) -> None:
        """Have these packs end after their epoch, and no others: the file says which, and is removed where none do.

        Args:
            packs: their ids.
            stopped: trainings that somebody has stopped.
        """
        self.ending = frozenset(packs)
        if self.reason:
            return
        try:
            if packs:
                self._storage.write_json(self._place, {"packs": sorted(packs), "stopped": sorted(stopped)})
            else:
                self._storage.delete(self._place)
        except OSError as error:
            self._say(f"note: {error}")
        if self.reason:  # noted meanwhile, by the thread that hears signals: its word is the last
            self._is_written = False
            self.announce()

    def clear(self) -> None:
        """Remove the file."""
        self._storage.delete(self._place)
