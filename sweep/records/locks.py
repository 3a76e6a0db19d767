"""One writer at a time for one folder of a storage.

On a file system the kernel holds the lock, and lets go of it however the run ends. An object store has no locks: there
the run holds a lease (`lease`), which needs conditional puts.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import psutil
from filelock import FileLock, Timeout

from sweep.records import lease
from trainables.errors import ConfigError
from trainables.node.storage import NoConditionalPut, Storage, StorageError

_PATIENCE_S = 1.0
"""How long a kernel lock is tried: somebody may only be looking whether it is held (`is_held`)."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)


class Hold(Protocol):
    """That this process alone may write a folder.

    Attributes:
        token: of this hold; no other has had it.
    """

    token: str

    def check(self) -> None:
        """Do nothing while the folder is ours.

        Raises:
            LockLost: it is no longer.
        """
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write a file of the folder, unless another holds it by now.

        Raises:
            LockLost: another does; nothing has been overwritten.
        """
        ...


class _Kernel:
    """A lock that the kernel keeps for as long as the process lives: nothing to check."""

    def __init__(self, storage: Storage, token: str) -> None:
        self.token, self._storage = token, storage

    def check(self) -> None:
        """Do nothing."""

    def write(self, path: str, data: bytes) -> None:
        """Write."""
        Storage.write(self._storage, path, data)


@contextmanager
def hold(storage: Storage, folder: str) -> Iterator[Hold]:
    """Hold the lock of a folder of the storage while the block runs.

    Raises:
        ConfigError: another run holds it (says which), the storage cannot be written, or it has neither locks nor
            conditional puts.
    """
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "token": uuid.uuid4().hex,
        "process": _process(os.getpid()),
    }
    taken = _kernel_lock if storage.is_local else _lease
    with taken(storage, folder, holder) as held:
        yield held


def is_held(storage: Storage, folder: str, token: str) -> bool:
    """Say whether the hold with this token is still in force."""
    if not storage.is_local:
        found = lease.read(storage, folder)
        return found is not None and found.holder.get("token") == token and not _is_over(storage, folder, found)
    if _note(storage, folder).get("token") != token:
        return False
    lock = FileLock(storage.full(f"{folder}/.lock"), thread_local=False, is_singleton=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def who_holds(storage: Storage, folder: str) -> str:
    """Return who holds a folder now, for people; empty where nobody does."""
    if not storage.is_local:
        found = lease.read(storage, folder)
        return lease.holder_name(found.holder) if found is not None and not _is_over(storage, folder, found) else ""
    note = _note(storage, folder)
    try:
        held = bool(note) and is_held(storage, folder, str(note.get("token")))
    except OSError:  # the lock may not be touched from here: what its holder wrote is all there is
        held = True
    return lease.holder_name(note) if held else ""


@contextmanager
def _kernel_lock(storage: Storage, folder: str, holder: dict[str, Any]) -> Iterator[Hold]:
    note = f"{folder}/.holder.json"
    Storage.write(storage, note + ".probe", b"")  # says clearly where the storage cannot be written
    storage.delete(note + ".probe")
    # not soft: without locks of the kernel it would take a file that a killed run leaves behind
    lock = FileLock(storage.full(f"{folder}/.lock"), thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=_PATIENCE_S, poll_interval=0.1)
    except Timeout:
        raise _taken(storage, folder, _note(storage, folder)) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise _no_lock(storage, folder, f"the file system has no locks ({error.strerror})") from None
        raise StorageError(f"{storage.full(folder)}/.lock: cannot be locked ({error.strerror}); make it so") from None
    try:
        Storage.write(storage, note, json.dumps(holder).encode())
        yield _Kernel(storage, holder["token"])
    finally:
        with suppress(StorageError):  # the storage may be what ended the run
            storage.delete(note)
        lock.release()


@contextmanager
def _lease(storage: Storage, folder: str, holder: dict[str, Any]) -> Iterator[Hold]:
    try:
        storage.check_conditional_puts(folder)
    except NoConditionalPut:
        raise _no_lock(storage, folder, "the store has no conditional puts (If-None-Match, If-Match)") from None
    found = lease.read(storage, folder)
    if found is not None and not _is_over(storage, folder, found):
        raise _taken(storage, folder, found.holder)
    ours = lease.take(storage, folder, holder, found)
    if ours is None:  # another was faster
        found = lease.read(storage, folder)
        raise _taken(storage, folder, found.holder if found else {})
    try:
        yield ours
    finally:
        ours.release()


def _is_over(storage: Storage, folder: str, found: lease.Found) -> bool:
    """Say whether a lease has been given back, its process has died here, or it was not renewed in time."""
    there = found.holder.get("process")
    if found.released or (there and _same_machine(there) and not _lives(there)):
        return True
    return lease.age_s(storage, folder) > lease.LEASE_S


def _process(pid: int) -> dict[str, Any]:
    """Return what tells a process from any other, also from one with its number in another container or later."""
    return {"machine": _machine(), "pid": pid, "started": psutil.Process(pid).create_time()}


def _machine() -> str:
    """Return a name of the place in which process numbers mean the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{platform.node()} {uuid.getnode()}"


def _same_machine(process: dict[str, Any]) -> bool:
    return process.get("machine") == _machine()


def _lives(process: dict[str, Any]) -> bool:
    try:
        return bool(abs(psutil.Process(int(process["pid"])).create_time() - float(process["started"])) < 1)
    except psutil.NoSuchProcess:
        return False


def _note(storage: Storage, folder: str) -> dict[str, Any]:
    try:
        found = json.loads(storage.read(f"{folder}/.holder.json"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _taken(storage: Storage, folder: str, other: dict[str, Any]) -> ConfigError:
    return ConfigError(
        f"{storage.full(folder)}: another run holds it ({lease.holder_name(other)}); wait for it, stop it, choose "
        f"another --name, or give it the points it lacks: memory-sweep ctl {storage.full(folder)} add "
        "--set FIELD=V[,V...]"
    )


def _no_lock(storage: Storage, folder: str, why: str) -> ConfigError:
    return ConfigError(
        f"{storage.full(folder)}: {why}, so that a second run at the same time could not be kept away; "
        "use another --storage, or --no-lock if you see to it that there is only one"
    )
