"""One run at a time on one storage and name.

On a file system the kernel holds the lock, and lets go of it however the run ends. An object store has no
locks: there the run holds a lease that it renews; one not renewed for `LEASE_S` seconds counts as abandoned.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Any

from filelock import FileLock, Timeout

from trainables.errors import ConfigError
from trainables.node.storage import Storage, StorageError

LEASE_S = 60.0
_SETTLE_S = 1.0


@contextmanager
def hold(storage: Storage, folder: str) -> Iterator[None]:
    """Hold the lock of a folder of the storage while the block runs.

    Raises:
        ConfigError: another run holds it (says which), or the storage cannot be written.
    """
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "token": uuid.uuid4().hex,
    }
    if storage.is_local:
        with _kernel_lock(storage, folder, holder):
            yield
    else:
        with _lease(storage, folder, holder):
            yield


@contextmanager
def _kernel_lock(storage: Storage, folder: str, holder: dict[str, Any]) -> Iterator[None]:
    note = f"{folder}/.holder.json"
    storage.write(note + ".probe", b"")  # says clearly where the storage cannot be written
    storage.delete(note + ".probe")
    lock = FileLock(storage.full(f"{folder}/.lock"), thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _taken(storage, folder, _read(storage, note)) from None
    except NotImplementedError:  # a file system without locks
        with _lease(storage, folder, holder):
            yield
        return
    try:
        storage.write(note, json.dumps(holder).encode())
        yield
    finally:
        with suppress(StorageError):  # the storage may be what ended the run
            storage.delete(note)
        lock.release()


@contextmanager
def _lease(storage: Storage, folder: str, holder: dict[str, Any]) -> Iterator[None]:
    path = f"{folder}/.lease.json"
    other = _read(storage, path)
    if other and _alive(other):
        raise _taken(storage, folder, other)
    _renew(storage, path, holder)
    time.sleep(_SETTLE_S)  # of two that start together, the later writer stays
    other = _read(storage, path)
    if other and other.get("token") != holder["token"]:
        raise _taken(storage, folder, other)
    stop = threading.Event()
    beat = threading.Thread(target=_keep, args=(storage, path, holder, stop), name="storage-lease", daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        storage.delete(path)


def _keep(storage: Storage, path: str, holder: dict[str, Any], stop: threading.Event) -> None:
    while not stop.wait(LEASE_S / 4):
        try:
            _renew(storage, path, holder)
        except StorageError:
            continue  # the store is away for a moment; the next beat tries again


def _renew(storage: Storage, path: str, holder: dict[str, Any]) -> None:
    storage.write(path, json.dumps({**holder, "renewed": time.time()}).encode())


def _alive(other: dict[str, Any]) -> bool:
    if time.time() - float(other.get("renewed", 0)) > LEASE_S:
        return False
    if other.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(other.get("pid", 0)), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        return True
    return True


def _read(storage: Storage, path: str) -> dict[str, Any]:
    try:
        found = json.loads(storage.read(path))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _taken(storage: Storage, folder: str, other: dict[str, Any]) -> ConfigError:
    who = f"pid {other.get('pid', '?')} on {other.get('host', '?')}, since {other.get('since', '?')}"
    return ConfigError(
        f"{storage.full(folder)}: another run holds it ({who}); wait for it, stop it, or choose another --name"
    )
