"""Which trials of a storage are under way, so that sweeps of different names do not run one twice.

A claim is a small file, `.claims/ID.json`, that names a sweep and the token of its hold. It is as good as that hold:
it needs no renewal, and the claims of a run that has died are over with its lock or lease.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock

from sweep.records.locks import is_held
from trainables.node.storage import ChangedMeanwhile, Storage, StorageError

_TRIES = 5


class Claims:
    """The claims of one run.

    Args:
        storage: whose trials they are on.
        sweep: the run's sweep, which it has locked.
        token: of that lock.
    """

    def __init__(self, storage: Storage, sweep: str, token: str) -> None:
        """Claim nothing yet."""
        self._storage, self._sweep = storage, sweep
        self._mine = {"sweep": sweep, "token": token}

    def take(self, trial: str) -> str:
        """Claim a trial; return an empty string if it is ours, else the sweep that is running it."""
        if self._put(trial):  # nearly always: no claim is there
            return ""
        with self._alone():
            for _ in range(_TRIES):
                if self._put(trial):
                    return ""
                try:
                    text, version = self._storage.read_version(_path(trial))
                except FileNotFoundError:
                    continue
                other = _parsed(text)
                if other == self._mine:
                    return ""
                if other and is_held(self._storage, other["sweep"], other["token"]):
                    return other["sweep"]
                try:
                    self._replace(trial, version)
                    return ""
                except ChangedMeanwhile:
                    continue
        raise StorageError(f"{self._storage.full(_path(trial))}: cannot be claimed; others write it all the time")

    def release(self, trial: str) -> None:
        """Give a claim of ours back."""
        Storage.delete(self._storage, _path(trial))

    def _put(self, trial: str) -> bool:
        """Claim a trial that nobody has claimed; False where there is a claim.

        A claim need not outlast its run, and one that lost power has left an empty file at worst, which is no claim.
        """
        try:
            self._storage.put_if_absent(_path(trial), json.dumps(self._mine).encode(), lasts=False)
        except ChangedMeanwhile:
            return False
        return True

    def _replace(self, trial: str, version: str) -> None:
        """Take over a claim whose owner is gone."""
        text = json.dumps(self._mine).encode()
        if self._storage.is_local:
            Storage.write(self._storage, _path(trial), text)
        else:
            self._storage.put_if_match(_path(trial), text, version)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process at a time look at claims that are there: a folder has no conditional puts on a version.

        A claim that is not there needs no lock: of several processes that make it at once, one succeeds, and whoever
        is being replaced is dead and takes nothing away meanwhile.
        """
        if not self._storage.is_local:
            yield
            return
        with FileLock(self._storage.full(".claims/.lock"), thread_local=False, is_singleton=False):
            yield


def _path(trial: str) -> str:
    return f".claims/{trial}.json"


def _parsed(text: bytes) -> dict[str, str]:
    """Return a claim; nothing where the file is not one."""
    try:
        found = json.loads(text)
        return {"sweep": str(found["sweep"]), "token": str(found["token"])}
    except (ValueError, KeyError, TypeError):
        return {}
