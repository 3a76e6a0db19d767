"""The packs of a run that are handed out: who is in them, how many places they have, what they are told."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sweep.planning.packs import Pack
from sweep.planning.points import Point
from sweep.records.sweep_storage import SweepStorage
from sweep.running.orders import PackOrders
from trainables.adapters.registry import ADAPTERS


class PacksUnderWay:
    """Packs by id, and the trainings in them that have no result yet.

    Args:
        storage: where the files of orders lie.
        sweep: its name.

    Attributes:
        members: the trainings of each pack.
        orders: what each pack is told.
    """

    def __init__(self, storage: SweepStorage, sweep: str) -> None:
        """Begin without packs."""
        self.members: dict[str, set[str]] = {}
        self.orders = PackOrders(storage, sweep)
        self._places: dict[str, int] = {}

    def __contains__(self, training: str) -> bool:
        """Whether a training is under way."""
        return any(training in members for members in self.members.values())

    @property
    def trainings(self) -> tuple[str, ...]:
        """All trainings under way, sorted."""
        return tuple(sorted(set().union(*self.members.values())))

    def begin(self, pack: Pack) -> None:
        """Take note of a pack that is handed out; it has as many places as members."""
        self.members[pack.id] = {point.training for point in pack.points}
        self._places[pack.id] = len(pack.points)

    def orders_file(self, pack: Pack, may_leave: bool) -> str:
        """Return the place of the file that tells a pack who leaves and joins; empty where nobody does.

        Args:
            pack: it has begun.
            may_leave: whether a member may leave before its end.
        """
        may_join = ADAPTERS[pack.points[0].spec.method].own_texts and len(pack.points) > 1
        return self.orders.begin(pack.id) if not pack.asks and (may_join or may_leave) else ""

    def free_places(self, pack: str) -> int:
        """Return how many members have left a pack for which nobody has come."""
        return self._places[pack] - len(self.members[pack])

    def join(self, pack: str, points: Sequence[Point]) -> None:
        """Take note of the leads of jobs that join a pack."""
        self.members[pack] |= {point.training for point in points}

    def of(self, pack: str) -> Collection[str]:
        """Return the trainings of a pack; none where it is not under way."""
        return self.members.get(pack, ())

    def end(self, pack: str) -> None:
        """Keep nothing of a pack that has ended."""
        self.members.pop(pack, None)
        self._places.pop(pack, None)
        self.orders.end(pack)
