"""Who leaves a pack under way and who joins it: a file that the driver writes after a report and the worker reads.

It lists all who have left and joined since the pack was handed out, in order, and is written whole: reading it twice,
or late, comes to the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from trainables.node.addresses import shown
from trainables.node.patience import patiently
from trainables.node.storage import StorageError, read_bytes
from trainables.trial.task import TrialTask


def orders_bytes(left: Sequence[str], joined: Sequence[TrialTask]) -> bytes:
    """Return the file's content.

    Args:
        left: ids of trials that were to leave.
        joined: trials that were to join.
    """
    return json.dumps({"left": list(left), "joined": [task.to_dict() for task in joined]}).encode()


class OrdersReader:
    """Reads what is new in the file.

    Args:
        location: of the file, path or URI; empty for none.
    """

    def __init__(self, location: str) -> None:
        """Nothing has been read."""
        self._location, self._num_joined = location, 0
        self._left: frozenset[str] = frozenset()

    def new(self) -> tuple[frozenset[str], list[TrialTask]]:
        """Return who is to leave and who is to join since the last time.

        Raises:
            OSError: the file is there and cannot be read.
            StorageError: it is not what the driver wrote.
        """
        if not self._location:
            return frozenset(), []
        try:
            told = json.loads(patiently(read_bytes, self._location))
            left = frozenset(told["left"]) - self._left
            joined = [TrialTask.from_dict(plain) for plain in told["joined"][self._num_joined :]]
        except FileNotFoundError:
            return frozenset(), []
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"{shown(self._location)}: not what the driver wrote ({error})") from None
        self._left |= left
        self._num_joined += len(joined)
        return left, [task for task in joined if task.id not in left]
