"""A general text that the user names: what a model should still predict as well after memorising other texts."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from trainables.data.data_files import decoded, opened
from trainables.data.fingerprint import fingerprint_files
from trainables.errors import DataError
from trainables.node.cache_dir import user_path


def read_general_text(path: str) -> str:
    """Return the text of a file in UTF-8, compressed or not.

    Raises:
        DataError: it is missing, cannot be read, or is empty.
    """
    file = _file(path)
    with opened(file) as content:
        text = decoded(str(file), content.read())
    if not text.strip():
        raise DataError(f"{file}: empty; general_text needs a file with text")
    return text


def general_text_key(path: str) -> str:
    """Return what names the text by its content: part of a trial's identity.

    Raises:
        DataError: it is missing or cannot be read.
    """
    file = _file(path)
    stat = file.stat()
    return _key(file, stat.st_size, stat.st_mtime_ns)


def _file(path: str) -> Path:
    file = user_path(path)
    if not file.is_file():
        raise DataError(f"{file}: no such file (general_text={path!r}); name a text file")
    return file


@lru_cache(maxsize=64)
def _key(file: Path, size: int, changed_ns: int) -> str:
    return f"text@{fingerprint_files([file])[:16]}"
