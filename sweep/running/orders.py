"""Tells packs under way who leaves them and who joins them, by a file for each (`trainables.pack.orders`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sweep.records.sweep_storage import SweepStorage
from trainables.node.patience import patiently
from trainables.pack.orders import orders_bytes
from trainables.trial.task import TrialTask

FOLDER = "orders"


@dataclass
class _Told:
    """What one pack has been told since it was handed out."""

    path: str
    left: list[str] = field(default_factory=list)
    joined: list[TrialTask] = field(default_factory=list)


class PackOrders:
    """The files of one run of a sweep. Each time a pack is handed out it has another one: none is read by the next.

    Args:
        storage: where they lie.
        sweep: its name.
    """

    def __init__(self, storage: SweepStorage, sweep: str) -> None:
        """Begin without packs."""
        self._storage, self._folder, self._number = storage, f"{sweep}/{FOLDER}", 0
        self._told: dict[str, _Told] = {}

    def begin(self, pack: str) -> str:
        """Return the place of the file of a pack that is handed out; it is not there yet."""
        self._number += 1
        told = self._told[pack] = _Told(f"{self._folder}/{pack}-{self._number}.json")
        return self._storage.full(told.path)

    def tell(self, pack: str, left: Sequence[str], joined: Sequence[TrialTask]) -> None:
        """Have some trials leave a pack and others join it.

        Raises:
            StorageError: it cannot be told.
        """
        told = self._told[pack]
        told.left += left
        told.joined += joined
        patiently(self._storage.write, told.path, orders_bytes(told.left, told.joined))

    def end(self, pack: str) -> None:
        """Remove the file of a pack that has ended."""
        told = self._told.pop(pack, None)
        if told is not None and (told.left or told.joined):
            patiently(self._storage.delete, told.path)

    def clear(self) -> None:
        """Remove the files that a driver which was killed has left."""
        for file in self._storage.files(self._folder):
            self._storage.delete(f"{self._folder}/{file}")
