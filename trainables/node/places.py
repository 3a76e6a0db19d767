"""Where a storage's files lie: a folder, or an object store. Both offer the same calls and raise errors of their own.

Paths are relative and use `/`. `trainables.node.storage` says what each call promises and tells the errors.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError


class FolderPlace:
    """A folder that may be shared by machines."""

    errors = (OSError,)
    changed = (FileExistsError,)

    def __init__(self, root: str) -> None:
        """Take the place; touches nothing."""
        self._root = root

    def read(self, path: str) -> tuple[bytes, str]:
        """Return a file's bytes and their version."""
        with open(self._at(path), "rb") as file:
            return file.read(), _file_version(os.fstat(file.fileno()))

    def written_at(self, path: str) -> float:
        """Return when a file was written, in seconds since 1970."""
        return os.stat(self._at(path)).st_mtime

    def write(self, path: str, data: bytes) -> None:
        """Write a file, whatever was there."""
        self._put(path, data, os.replace)

    def create(self, path: str, data: bytes, lasts: bool = True) -> str:
        """Write a file that must not be there, and return its version."""
        self._put(path, data, _link, lasts)
        return _file_version(os.stat(self._at(path)))

    def update(self, path: str, data: bytes, version: str) -> str:
        """Write a file that must be of a version, and return the new one."""
        raise NotImplementedError

    def move(self, path: str, target: str) -> None:
        """Rename a file."""
        os.replace(self._at(path), self._at(target))

    def delete(self, path: str) -> None:
        """Remove a file."""
        os.unlink(self._at(path))

    def exists(self, path: str) -> bool:
        """Say whether there is a file."""
        return os.path.isfile(self._at(path))

    def size(self, path: str) -> int:
        """Return a file's size in bytes."""
        return os.stat(self._at(path)).st_size

    def folders(self, path: str) -> list[str]:
        """Return the names of the folders in a folder."""
        with os.scandir(self._at(path)) as entries:
            return [entry.name for entry in entries if entry.is_dir()]

    def files(self, path: str) -> list[str]:
        """Return the names of the files in a folder."""
        with os.scandir(self._at(path)) as entries:
            return [entry.name for entry in entries if entry.is_file()]

    def find(self, folder: str, name: str) -> list[str]:
        """Return the paths of the files of a name below a folder."""
        found, pending = [], [folder]
        while pending:
            here = pending.pop()
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._at(here)) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(f"{here}/{entry.name}")
                    elif entry.name == name:
                        found.append(f"{here}/{entry.name}")
        return found

    def _put(self, path: str, data: bytes, settle: Callable[[str, str], None], lasts: bool = True) -> None:
        """Write beside the target and, if it is to last, to the disk; `settle` then makes it the target in one step."""
        target = self._at(path)
        folder, name = os.path.split(target)
        temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex[:8]}")
        try:
            with _opened(temporary, folder) as stream:
                stream.write(data)
                if lasts:
                    stream.flush()
                    os.fsync(stream.fileno())
            settle(temporary, target)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)

    def _at(self, path: str) -> str:
        return os.path.join(self._root, path)


class ObjectPlace:
    """A part of an object store, below a prefix."""

    errors = (OSError, BaseError)
    changed = (AlreadyExistsError, PreconditionError)

    def __init__(self, store: Any, prefix: str) -> None:
        """Take the place; touches nothing."""
        self._store, self._prefix = store, prefix.strip("/")

    def read(self, path: str) -> tuple[bytes, str]:
        """Return a file's bytes and their version."""
        found = obstore.get(self._store, self._key(path))
        return bytes(found.bytes()), str(found.meta["e_tag"] or "")

    def written_at(self, path: str) -> float:
        """Return when a file was written, in seconds since 1970."""
        return float(obstore.head(self._store, self._key(path))["last_modified"].timestamp())

    def write(self, path: str, data: bytes) -> None:
        """Write a file, whatever was there."""
        self._put(path, data, "overwrite")

    def create(self, path: str, data: bytes, lasts: bool = True) -> str:
        """Write a file that must not be there, and return its version; here all last."""
        return self._put(path, data, "create")

    def update(self, path: str, data: bytes, version: str) -> str:
        """Write a file that must be of a version, and return the new one."""
        if not version:
            raise NotImplementedError
        return self._put(path, data, {"e_tag": version})

    def move(self, path: str, target: str) -> None:
        """Rename a file."""
        obstore.rename(self._store, self._key(path), self._key(target))

    def delete(self, path: str) -> None:
        """Remove a file."""
        obstore.delete(self._store, self._key(path))

    def exists(self, path: str) -> bool:
        """Say whether there is a file."""
        try:
            obstore.head(self._store, self._key(path))
        except FileNotFoundError:
            return False
        return True

    def size(self, path: str) -> int:
        """Return a file's size in bytes."""
        return int(obstore.head(self._store, self._key(path))["size"])

    def folders(self, path: str) -> list[str]:
        """Return the names of the folders in a folder."""
        found = obstore.list_with_delimiter(self._store, self._key(path) or None)
        return [prefix.rpartition("/")[2] for prefix in found["common_prefixes"]]

    def files(self, path: str) -> list[str]:
        """Return the names of the files in a folder."""
        found = obstore.list_with_delimiter(self._store, self._key(path) or None)
        return [item["path"].rpartition("/")[2] for item in found["objects"]]

    def find(self, folder: str, name: str) -> list[str]:
        """Return the paths of the files of a name below a folder."""
        skip = len(self._key("")) + 1 if self._prefix else 0
        pages = obstore.list(self._store, self._key(folder) or None, chunk_size=1000)
        paths = (item["path"] for page in pages for item in page)
        return [path[skip:] for path in paths if path.rpartition("/")[2] == name]

    def _put(self, path: str, data: bytes, mode: Any) -> str:
        return str(obstore.put(self._store, self._key(path), data, mode=mode)["e_tag"] or "")

    def _key(self, path: str) -> str:
        return "/".join(filter(None, (self._prefix, path)))


def _opened(path: str, folder: str) -> BinaryIO:
    """Open a new file, with mode and group as umask and folder have it; a folder is made only where it is missing."""
    try:
        return open(path, "xb")
    except FileNotFoundError:
        pass
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError as error:  # a file where a folder is to be: nobody's conditional put
        raise NotADirectoryError(error.errno, "a file is in the way") from None
    return open(path, "xb")


def _file_version(found: os.stat_result) -> str:
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


def _link(temporary: str, target: str) -> None:
    try:
        os.link(temporary, target)
    except PermissionError:  # a file system without hard links
        raise NotImplementedError from None
