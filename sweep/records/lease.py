"""A lease on a folder of an object store, kept with conditional puts.

The file `.lease.json` says who holds the folder, with a number, the fence, that grows with every new holder. It is
written under the condition that it is still the version that its writer has read: of two that take an abandoned lease
one succeeds, and a holder that comes back late can neither renew nor give back what another holds by now. The file
stays when the lease is given back, so that nobody deletes another's.

Every write of the holder is conditional too (`Lease.write`): it replaces the version that the holder itself wrote, or
one that it has read *before* making sure that the lease is still its own. So however long a holder was paused, and
wherever, it overwrites nothing that a later holder has written. A store cannot check a fence by itself; that is why
the version of each file stands for it. Where versions are checksums (S3's are), a file with the same bytes is the same.

Whether a lease was renewed in time is measured with the store's clock alone: the time at which it received the
lease's last renewal, against the time at which it receives a file that is written for this question. Clocks of
machines play no part.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

from trainables.node.storage import ChangedMeanwhile, Storage, StorageError

LEASE_S = 60.0
_TRIES = 5


class LockLost(StorageError):
    """Another run has taken over what this one was allowed to write."""

    exit_status = 1


@dataclass(frozen=True)
class Found:
    """A lease as it lies in the store.

    Attributes:
        holder: pid, host, since, token and process of who holds or held it.
        fence: its number.
        released: whether it was given back.
        version: of the file.
    """

    holder: dict[str, Any]
    fence: int
    released: bool
    version: str


def read(storage: Storage, folder: str) -> Found | None:
    """Return the lease of a folder; None where there has been none, and where the file is not one."""
    try:
        text, version = storage.read_version(_path(folder))
    except FileNotFoundError:
        return None
    try:
        found = json.loads(text)
        return Found(dict(found["holder"]), int(found["fence"]), bool(found["released"]), version)
    except (ValueError, KeyError, TypeError):
        return Found({}, 0, True, version)


def age_s(storage: Storage, folder: str) -> float:
    """Return how long ago the store received the last renewal, by its own clock."""
    probe = f"{folder}/.clock-{uuid.uuid4().hex[:8]}"
    try:
        Storage.write(storage, probe, b"")
        return storage.written_at(probe) - storage.written_at(_path(folder))
    except FileNotFoundError:
        return float("inf")
    finally:
        Storage.delete(storage, probe)


def take(storage: Storage, folder: str, holder: dict[str, Any], found: Found | None) -> Lease | None:
    """Take a lease that is free, and keep it renewed; None if another was faster.

    Args:
        storage: where it lies.
        folder: what it is for.
        holder: who takes it.
        found: the lease that was read and is over; None where there was none.
    """
    fence = found.fence + 1 if found else 1
    text = _text(holder, fence, 0)
    try:
        if found is None:
            storage.put_if_absent(_path(folder), text)
        else:
            storage.put_if_match(_path(folder), text, found.version)
    except ChangedMeanwhile:  # by another, or by our own put whose answer was lost
        now = read(storage, folder)
        if now is None or now.holder.get("token") != holder["token"]:
            return None
    return Lease(storage, folder, holder, fence)


class Lease:
    """A lease that this process has taken; a thread renews it."""

    def __init__(self, storage: Storage, folder: str, holder: dict[str, Any], fence: int) -> None:
        """Start to renew."""
        self.token, self.fence = str(holder["token"]), fence
        self._storage, self._folder, self._holder = storage, folder, holder
        self._beats = 0
        self._sure_until = now_s() + LEASE_S / 2
        self._versions: dict[str, str] = {}
        self._lost = ""
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="storage-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Do nothing while the lease is ours; asks the store if it has not been renewed lately.

        Raises:
            LockLost: another holds it.
        """
        if self._lost:
            raise LockLost(self._lost)
        if now_s() > self._sure_until:
            self.renew()

    def renew(self) -> None:
        """Read the lease and write it anew if it is still ours.

        Raises:
            LockLost: another holds it.
            StorageError: the store is away.
        """
        with self._turn:
            asked = now_s()
            if self._lost:
                raise LockLost(self._lost)
            self._beats += 1
            text = _text(self._holder, self.fence, self._beats)
            for _ in range(_TRIES):
                found = read(self._storage, self._folder)
                if found is None or found.holder.get("token") != self.token or found.released:
                    raise LockLost(self._lose(found))
                try:
                    self._storage.put_if_match(_path(self._folder), text, found.version)
                except ChangedMeanwhile:
                    continue  # another, or our own put whose answer was lost: reading tells
                self._sure_until = asked + LEASE_S / 2
                return
            raise StorageError(f"{self._storage.full(_path(self._folder))}: cannot be renewed; others write it")

    def write(self, path: str, data: bytes) -> None:
        """Write a file of the folder so that nothing of a later holder is overwritten.

        Raises:
            LockLost: another holds the lease.
            StorageError: the store cannot be written.
        """
        self.check()
        version = self._versions.get(path, "")
        for _ in range(_TRIES):
            try:
                if version:
                    version = self._storage.put_if_match(path, data, version)
                else:
                    version = self._storage.put_if_absent(path, data)
            except ChangedMeanwhile:
                version = self._version_under_lease(path)
                continue
            if path.count("/") == 1:  # what is written again and again; a record is not
                self._versions[path] = version
            return
        raise StorageError(f"{self._storage.full(path)}: cannot be written; others write it all the time")

    def release(self) -> None:
        """Stop renewing, and give the lease back if it is ours."""
        self._stop.set()
        self._thread.join()
        if self._lost:
            return
        try:
            with self._turn:
                found = read(self._storage, self._folder)
                if found is not None and found.holder.get("token") == self.token:
                    text = _text(self._holder, self.fence, self._beats, released=True)
                    self._storage.put_if_match(_path(self._folder), text, found.version)
        except StorageError:
            return  # it is over `LEASE_S` after its last renewal, and sooner where our process can be seen to be gone

    def _version_under_lease(self, path: str) -> str:
        """Return the version of a file that was there while the lease was ours; empty if there was none."""
        try:
            version = self._storage.read_version(path)[1]
        except FileNotFoundError:
            version = ""
        self.renew()  # after the read: whoever has taken over since then writes another version
        return version

    def _lose(self, found: Found | None) -> str:
        other = found.holder if found else {}
        gone = "its lease was removed" if found is None else f"another run has taken it over ({holder_name(other)})"
        self._lost = f"{self._storage.full(self._folder)}: {gone}; this run ends and writes nothing more"
        return self._lost

    def _keep(self) -> None:
        while not self._stop.wait(LEASE_S / 4):
            try:
                self.renew()
            except LockLost:
                return
            except StorageError:
                continue  # the store is away for a moment; the next beat tries again


def holder_name(holder: dict[str, Any]) -> str:
    """Return a holder for people; what is not known of it as `?`."""
    return f"pid {holder.get('pid', '?')} on {holder.get('host', '?')}, since {holder.get('since', '?')}"


def now_s() -> float:
    """Return a clock that also runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _path(folder: str) -> str:
    return f"{folder}/.lease.json"


def _text(holder: dict[str, Any], fence: int, beats: int, released: bool = False) -> bytes:
    return json.dumps({"holder": holder, "fence": fence, "beats": beats, "released": released}).encode()
