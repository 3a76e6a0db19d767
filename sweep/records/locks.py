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
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock, Timeout

from sweep.records.files import Files, LocalFiles
from trainables.errors import ConfigError

LEASE_S = 60.0
_SETTLE_S = 1.0


@contextmanager
def hold(files: Files, folder: str) -> Iterator[None]:
    """Hold the lock of a folder of the storage while the block runs.

    Raises:
        ConfigError: another run holds it (says which), or the storage cannot be written.
    """
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "token": uuid.uuid4().hex,
    }
    if isinstance(files, LocalFiles):
        with _kernel_lock(files, folder, holder):
            yield
    else:
        with _lease(files, folder, holder):
            yield


@contextmanager
def _kernel_lock(files: LocalFiles, folder: str, holder: dict[str, Any]) -> Iterator[None]:
    note = f"{folder}/.holder.json"
    files.write(note + ".probe", b"")  # says clearly where the storage cannot be written
    files.delete(note + ".probe")
    lock = FileLock(files.root / folder / ".lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _taken(files, folder, _read(files, note)) from None
    except NotImplementedError:  # a file system without locks
        with _lease(files, folder, holder):
            yield
        return
    try:
        files.write(note, json.dumps(holder).encode())
        yield
        files.delete(note)
    finally:
        lock.release()


@contextmanager
def _lease(files: Files, folder: str, holder: dict[str, Any]) -> Iterator[None]:
    path = f"{folder}/.lease.json"
    other = _read(files, path)
    if other and _alive(other):
        raise _taken(files, folder, other)
    _renew(files, path, holder)
    time.sleep(_SETTLE_S)  # of two that start together, the later writer stays
    other = _read(files, path)
    if other and other.get("token") != holder["token"]:
        raise _taken(files, folder, other)
    stop = threading.Event()
    beat = threading.Thread(target=_keep, args=(files, path, holder, stop), name="storage-lease", daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        files.delete(path)


def _keep(files: Files, path: str, holder: dict[str, Any], stop: threading.Event) -> None:
    while not stop.wait(LEASE_S / 4):
        try:
            _renew(files, path, holder)
        except ConfigError:
            continue  # the store is away for a moment; the next beat tries again


def _renew(files: Files, path: str, holder: dict[str, Any]) -> None:
    files.write(path, json.dumps({**holder, "renewed": time.time()}).encode())


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


def _read(files: Files, path: str) -> dict[str, Any]:
    try:
        found = json.loads(files.read(path))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _taken(files: Files, folder: str, other: dict[str, Any]) -> ConfigError:
    who = f"pid {other.get('pid', '?')} on {other.get('host', '?')}, since {other.get('since', '?')}"
    return ConfigError(
        f"{files.full(folder)}: another run holds it ({who}); wait for it, stop it, or choose another --name"
    )
