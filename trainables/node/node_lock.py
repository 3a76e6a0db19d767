"""A lock that one process of a machine can have, for work whose result the others then find: it guards nothing."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

LOCK_S = 3600.0
"""Longest wait for another process that computes: as long as a trunk of 70 billion parameters may take for a large
grid's texts. A process that died holds no lock; one that hangs must not stop the node for ever."""
SAY_S = 60.0
"""Seconds between two lines that say for whom a process waits."""


@contextmanager
def node_lock(path: Path, give_up: Callable[[Exception], None]) -> Iterator[None]:
    """Hold the lock of a file, freed when the process ends.

    Where the file cannot be made, or another process has held its lock for `LOCK_S`, the block runs without. While it
    waits, the log says for whom.

    Args:
        path: the file, in a folder that is made if need be.
        give_up: hears why the file cannot be made.
    """
    held = FileLock(str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _acquire(held, path):
            _holder_file(path).write_text(f"process {os.getpid()} of {platform.node()}, since {time.ctime()}")
    except (OSError, NotImplementedError) as error:
        give_up(error)
    try:
        yield
    finally:
        held.release()


def _acquire(lock: FileLock, path: Path) -> bool:
    """Take a lock; give up after `LOCK_S`."""
    start = time.monotonic()
    while time.monotonic() - start < LOCK_S:
        try:
            lock.acquire(timeout=min(SAY_S, LOCK_S))
        except Timeout:
            logger.warning("%s: waiting for %s", path, _holder(path))
        else:
            return True
    logger.warning("%s: held for %.0f s by %s; going on without it", path, LOCK_S, _holder(path))
    return False


def _holder_file(path: Path) -> Path:
    return path.with_name(f"{path.name}-holder")


def _holder(path: Path) -> str:
    with suppress(OSError):
        return _holder_file(path).read_text()
    return "another process"
