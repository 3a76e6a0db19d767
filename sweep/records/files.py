"""Where a storage keeps its bytes: a local folder, or an object store behind the same few verbs.

Paths are relative to the storage's root and use `/`. A write is all or nothing on either.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from trainables.errors import ConfigError
from trainables.node import storage


class Files(Protocol):
    """The verbs that a storage needs."""

    uri: str
    is_local: bool

    def read(self, path: str) -> bytes:
        """Return a file's bytes; FileNotFoundError where there is none."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write a file whole or not at all, making its folders."""
        ...

    def move(self, path: str, target: str) -> None:
        """Rename a file, replacing the target."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file; a missing one is no error."""
        ...

    def exists(self, path: str) -> bool:
        """Say whether there is such a file or folder."""
        ...

    def folders(self, path: str) -> list[str]:
        """Return the names of the folders in a folder, sorted; none where it is missing."""
        ...

    def find(self, folder: str, name: str) -> list[str]:
        """Return the paths of all files called `name` below a folder, sorted."""
        ...

    def full(self, path: str) -> str:
        """Return the path as a person would type it, root included."""
        ...


class LocalFiles:
    """A folder of this machine or of a file system that all nodes mount."""

    is_local = True

    def __init__(self, root: str | Path) -> None:
        """Take the root as it is; nothing is made until the first write."""
        self.root = Path(root).expanduser().absolute()
        self.uri = str(self.root)

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        with open(os.path.join(self.uri, path), "rb") as file:
            return file.read()

    def write(self, path: str, data: bytes) -> None:
        """Write beside the target, flush to the disk, then rename over it."""
        with _told("written", self.full(path)):
            storage.write_bytes(self.full(path), data)

    def move(self, path: str, target: str) -> None:
        """Rename a file."""
        with _told("written", self.full(target)):
            os.replace(self.root / path, self.root / target)

    def delete(self, path: str) -> None:
        """Remove a file."""
        with _told("written", self.full(path)):
            (self.root / path).unlink(missing_ok=True)

    def exists(self, path: str) -> bool:
        """Say whether there is such a file or folder."""
        return (self.root / path).exists()

    def folders(self, path: str) -> list[str]:
        """Return the names of the folders in a folder."""
        return sorted(entry.name for entry in self._entries(path) if entry.is_dir())

    def find(self, folder: str, name: str) -> list[str]:
        """Return all files of a name below a folder."""
        found, pending = [], [folder]
        while pending:
            here = pending.pop()
            for entry in self._entries(here):
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{here}/{entry.name}")
                elif entry.name == name:
                    found.append(f"{here}/{entry.name}")
        return sorted(found)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        with _told("listed", self.full(folder)):
            try:
                with os.scandir(os.path.join(self.uri, folder)) as entries:
                    return list(entries)
            except (FileNotFoundError, NotADirectoryError):
                return []

    def full(self, path: str) -> str:
        """Return the absolute path."""
        return os.path.join(self.uri, path)


class ObjectFiles:
    """Anything `pyarrow.fs.FileSystem` reaches: S3, Google Cloud Storage, HDFS and others."""

    is_local = False

    def __init__(self, uri: str) -> None:
        """Connect.

        Raises:
            ConfigError: no such kind of store, or the store cannot be reached.
        """
        from pyarrow.fs import FileSystem

        self.uri = uri.rstrip("/")
        try:
            self._fs, self._root = FileSystem.from_uri(self.uri)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"storage={uri!r}: cannot be reached ({_reason(error)}); give a folder or an s3:// address"
            ) from None
        self._root = self._root.rstrip("/")

    def read(self, path: str) -> bytes:
        """Return an object's bytes."""
        with self._fs.open_input_stream(self._path(path)) as stream:
            return bytes(stream.read())

    def write(self, path: str, data: bytes) -> None:
        """Put one object; it appears whole when the stream closes."""
        target = self._path(path)
        with _told("written", self.full(path)):
            try:
                stream = self._fs.open_output_stream(target)
            except FileNotFoundError:  # a store with real folders
                self._fs.create_dir(target.rpartition("/")[0], recursive=True)
                stream = self._fs.open_output_stream(target)
            with stream:
                stream.write(data)

    def move(self, path: str, target: str) -> None:
        """Rename an object."""
        with _told("written", self.full(target)):
            self._fs.move(self._path(path), self._path(target))

    def delete(self, path: str) -> None:
        """Remove an object."""
        with _told("written", self.full(path)):
            try:
                self._fs.delete_file(self._path(path))
            except FileNotFoundError:
                return

    def exists(self, path: str) -> bool:
        """Say whether there is such an object or prefix."""
        from pyarrow.fs import FileType

        return bool(self._fs.get_file_info(self._path(path)).type != FileType.NotFound)

    def folders(self, path: str) -> list[str]:
        """Return the names of the prefixes directly below one."""
        from pyarrow.fs import FileType

        return sorted(i.base_name for i in self._list(path, recursive=False) if i.type == FileType.Directory)

    def find(self, folder: str, name: str) -> list[str]:
        """Return all objects of a name below a prefix."""
        skip = len(self._root) + 1
        return sorted(i.path[skip:] for i in self._list(folder, recursive=True) if i.base_name == name)

    def full(self, path: str) -> str:
        """Return the object's address."""
        base, mark, query = self.uri.partition("?")
        return f"{base.rstrip('/')}/{path}{mark}{query}"

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")

    def _list(self, path: str, recursive: bool) -> list[Any]:
        from pyarrow.fs import FileSelector

        where = FileSelector(self._path(path), recursive=recursive, allow_not_found=True)
        with _told("listed", self.full(path)):
            return list(self._fs.get_file_info(where))


def open_files(uri: str) -> Files:
    """Return what reads and writes a storage address: a folder, `file://…`, or an object store's URI.

    Raises:
        ConfigError: an address that means nothing or cannot be reached.
    """
    if uri.startswith("file://"):
        return LocalFiles(uri[len("file://") :])
    return ObjectFiles(uri) if "://" in uri else LocalFiles(uri)


@contextmanager
def _told(what: str, path: str) -> Iterator[None]:
    """Turn an error of the file system into the user's, telling what cannot be done there."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be {what} ({_reason(error)}); make it so or choose another --storage"
        ) from None


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0][:160]
