"""Name data by what it contains, so that a copy elsewhere counts as the same data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from trainables.errors import DataError

WHOLE_BYTES = 64 * 2**20
SAMPLE_BYTES = 64 * 2**10
SAMPLES = 64


def fingerprint_files(paths: Iterable[Path]) -> str:
    """Hash the names, sizes and contents of files; folders and order do not matter.

    Files of up to 64 MB are read whole. Of larger ones the head, the tail and 64 evenly spaced samples of
    64 KB are read: enough to tell releases apart, in bounded time.

    Returns:
        A SHA-256 in hex.

    Raises:
        DataError: a file cannot be read.
    """
    lines = []
    for path in paths:
        try:
            stat = path.stat()
            digest = _content_digest(path, stat.st_size, stat.st_mtime_ns)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
        lines.append(f"{path.name}\t{stat.st_size}\t{digest}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


@lru_cache(maxsize=1024)
def _content_digest(path: Path, size: int, mtime_ns: int) -> str:
    """Hash one file's content; the modification time only keys the cache."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        if size <= WHOLE_BYTES:
            while block := file.read(2**20):
                digest.update(block)
        else:
            last = size - SAMPLE_BYTES
            for index in range(SAMPLES + 2):
                file.seek(last * index // (SAMPLES + 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
