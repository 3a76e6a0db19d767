"""A temporary folder of this process; those of processes that were killed are removed by the next one that asks."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "memory-sweep-tune-"


@contextmanager
def scratch_folder() -> Iterator[str]:
    """Give an empty folder for the time of a `with` block."""
    clear_abandoned()
    with tempfile.TemporaryDirectory(prefix=f"{_mine()}{os.getpid()}-", ignore_cleanup_errors=True) as folder:
        yield folder


def clear_abandoned() -> None:
    """Remove the folders of this user's processes on this machine that are gone."""
    for path in Path(tempfile.gettempdir()).glob(f"{_mine()}*"):
        pid = path.name.removeprefix(_mine()).partition("-")[0]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _mine() -> str:
    """Begin a folder's name: with the machine and its numbering of processes, for containers may share a folder."""
    try:
        numbering = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        numbering = 0
    return f"{PREFIX}{socket.gethostname()}-{numbering}-"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
