"""Name data by what it contains, every byte of it, so that a copy elsewhere counts as the same data."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xxhash
from filelock import FileLock

from trainables.errors import DataError
from trainables.node.cache_dir import cache_dir
from trainables.node.storage import write_bytes

LARGE_BYTES = 64 * 2**20
"""Above, a file is hashed by XXH3 rather than SHA-256, and its digest is remembered. (2.2 GB/s against 0.6 on one
core where BLAKE2b gave 0.4: 128 bits tell apart all that is not made to collide.)"""
TOLD_BYTES = 2 * 10**9
"""From this size on, hashing is said and its progress shown."""
_BLOCK_BYTES = 2**22
_SETTLED_S = 2.0
"""A file changed so recently may change again within the same tick of its clock: its digest is not remembered."""


def fingerprint_files(paths: Iterable[Path]) -> str:
    """Hash the names, sizes and contents of files; folders and order do not matter.

    Returns:
        A SHA-256 in hex.

    Raises:
        DataError: a file cannot be read.
    """
    lines = []
    for path in paths:
        try:
            stat = path.stat()
            digest = _large_digest(path) if stat.st_size > LARGE_BYTES else file_sha256(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
        lines.append(f"{path.name}\t{stat.st_size}\t{digest}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex; it is read each time."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _large_digest(path: Path) -> str:
    """Return a large file's digest: from the node's cache where the file is as it was, else by reading it.

    One process reads a file, those that want it at the same time wait. A cache that cannot be written costs time,
    nothing else.
    """
    real = path.resolve()
    known = _Remembered(real)
    if (digest := known.get()) is not None:
        return digest
    try:
        known.file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(known.file) + ".lock")
        lock.acquire()
    except OSError:
        return _xxh3(real)
    try:
        if (digest := known.get()) is None:
            before, started = _stamp(real), time.time()
            digest = _xxh3(real)
            if _stamp(real) == before and started - before["changed_ns"] / 1e9 > _SETTLED_S:
                known.put(before, digest)
    finally:
        lock.release()
    return digest


class _Remembered:
    """The digest of one file in the node's cache, a small file of its own: processes do not meet in one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
        self.file = cache_dir() / "digests" / f"{name}.json"

    def get(self) -> str | None:
        try:
            held = json.loads(self.file.read_text(encoding="utf-8"))
            return str(held["digest"]) if held["stamp"] == _stamp(self._path) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # not there, or not what was written: the file is read again

    def put(self, stamp: dict[str, Any], digest: str) -> None:
        try:
            write_bytes(str(self.file), json.dumps({"stamp": stamp, "digest": digest}, indent=1).encode())
        except OSError as error:
            print(f"note: the digest of {self._path} is not remembered ({error})", file=sys.stderr, flush=True)


def _stamp(path: Path) -> dict[str, Any]:
    """Return what changes when a file does. The time of change (`ctime`) cannot be set back, as others can."""
    stat = path.stat()
    return {
        "path": str(path),
        "size": stat.st_size,
        "modified_ns": stat.st_mtime_ns,
        "changed_ns": stat.st_ctime_ns,
        "inode": stat.st_ino,
        "device": stat.st_dev,
    }


def _xxh3(path: Path) -> str:
    size = path.stat().st_size
    told = size >= TOLD_BYTES
    digest, done, last = xxhash.xxh3_128(), 0, time.monotonic()
    block = memoryview(bytearray(_BLOCK_BYTES))
    if told:
        _tell(f"reading {path} once, to know it by its content ({size / 1e9:.1f} GB)")
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
            done += count
            if told and time.monotonic() - last > 5:
                last = time.monotonic()
                _tell(f"  {done / max(size, 1):.0%} of {path.name}")
    return f"xxh3:{digest.hexdigest()}"


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
