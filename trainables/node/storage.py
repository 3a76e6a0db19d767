"""Whole files in one place: a folder that all nodes mount, or an object store, behind the same few verbs.

The driver and the workers both use this module and nothing else. Paths are relative to a storage's address and use
`/`. A write is all or nothing: a reader sees the old file or the new one, never half of one.

Addresses: a folder, `file://FOLDER`, `s3://BUCKET/PREFIX`, `gs://…`, `az://…` (what `obstore.store.from_url` takes),
and `memory://NAME/PREFIX`, which lives as long as its process. Options follow a `?`: for S3
`endpoint_override=HOST:PORT`, `scheme=http`, `region=…`; any other is obstore's own. What no option says comes from
the environment (`AWS_…`) and `~/.aws`. Keys may stand in an address: `s3://KEY:SECRET@BUCKET`, `access_key_id=…`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

from obstore.exceptions import BaseError

from trainables.errors import ConfigError
from trainables.node.addresses import keep_keys, keys_of, shown, without_secrets
from trainables.node.cache_dir import user_path
from trainables.node.connection import connect
from trainables.node.places import FolderPlace, ObjectPlace


class StorageError(ConfigError, OSError):
    """A place that cannot be read, written or listed; the message says which and why. Workers tell it as `io`."""

    kind = "io"


class ChangedMeanwhile(StorageError):
    """A conditional put found another file, or another version of it, than its caller knew of."""


class NoConditionalPut(StorageError):
    """This storage cannot make a put depend on what is there."""


class Storage:
    """One address, local or remote. Making one touches nothing; the first write makes the folders.

    Every error is a `StorageError` with a message for the user, except that `read`, `read_version` and `size` raise
    FileNotFoundError where there is no such file.

    Attributes:
        uri: the address; a local one is an absolute path. Keys that were in it are not: they are kept in this process's
            environment (`trainables.node.addresses`), so that no message, record or task can show them.
        is_local: whether other programs reach it as a folder.
    """

    def __init__(self, uri: str | Path) -> None:
        """Take an address; the connection to an object store is made once for each process and bucket.

        Raises:
            ConfigError: no such kind of address, or options that it does not have.
        """
        self.is_local = not _is_remote(str(uri))
        self.uri = str(_local(str(uri))) if self.is_local else _public(str(uri))
        self._place = FolderPlace(self.uri) if self.is_local else _objects(self.uri)

    def full(self, path: str = "") -> str:
        """Return a path as a person would type it, the address included; its options stay at the end."""
        return join(self.uri, path) if path else self.uri

    def above(self) -> tuple[str, str]:
        """Return the address of the folder that this one lies in, and its name there."""
        return _split(self.uri)

    def read(self, path: str) -> bytes:
        """Return a file's bytes; FileNotFoundError where there is none."""
        return self.read_version(path)[0]

    def read_version(self, path: str) -> tuple[bytes, str]:
        """Return a file's bytes and the version they are of; FileNotFoundError where there is none."""
        with self._told("read", path, missing=True):
            return self._place.read(path)

    def written_at(self, path: str) -> float:
        """Return when a file was last written, by the storage's own clock; FileNotFoundError where there is none."""
        with self._told("read", path, missing=True):
            return self._place.written_at(path)

    def write(self, path: str, data: bytes) -> None:
        """Write a file, making its folders, whatever was there."""
        with self._told("written", path):
            self._place.write(path, data)

    def put_if_absent(self, path: str, data: bytes, lasts: bool = True) -> str:
        """Write a file that must not be there yet, and return its version.

        Args:
            path: of the file.
            data: what is written.
            lasts: whether it is there, and whole, even if the machine loses power the moment after.

        Raises:
            Changed: there is one; of several that try at once, one succeeds.
            NoConditionalPut: the storage cannot tell.
        """
        with self._told("written", path):
            return self._place.create(path, data, lasts)

    def put_if_match(self, path: str, data: bytes, version: str) -> str:
        """Write a file that must still be of a version, and return the new one.

        A put whose answer was lost may be tried again and then find its own version: whoever gets `ChangedMeanwhile`
        reads the file before giving up.

        Raises:
            Changed: another has written or deleted it.
            NoConditionalPut: the storage cannot tell; local folders cannot, they have locks.
        """
        with self._told("written", path):
            return self._place.update(path, data, version)

    def check_conditional_puts(self, folder: str) -> None:
        """Try in a folder whether a put is refused when its condition does not hold: some S3 servers ignore it.

        Raises:
            NoConditionalPut: it is not, or there are no such puts here.
        """
        path = f"{folder}/.probe-{uuid.uuid4().hex[:8]}"
        try:
            first = self.put_if_absent(path, b"1")
            self.put_if_match(path, b"22", first)
            for wrong in (partial(self.put_if_absent, path, b"3"), partial(self.put_if_match, path, b"3", first)):
                try:
                    wrong()
                except ChangedMeanwhile:
                    continue
                raise NoConditionalPut(f"{shown(self.full(folder))}: the store lets through puts that it should refuse")
        finally:
            self.delete(path)

    def move(self, path: str, target: str) -> None:
        """Rename a file, replacing the target."""
        with self._told("written", target):
            self._place.move(path, target)

    def delete(self, path: str) -> None:
        """Remove a file; a missing one is no error."""
        with self._told("written", path), suppress(FileNotFoundError, NotADirectoryError):
            self._place.delete(path)

    def exists(self, path: str) -> bool:
        """Say whether there is such a file."""
        with self._told("read", path):
            return self._place.exists(path)

    def size(self, path: str) -> int:
        """Return a file's size in bytes; FileNotFoundError where there is none."""
        with self._told("read", path, missing=True):
            return self._place.size(path)

    def folders(self, path: str = "") -> list[str]:
        """Return the names of the folders in a folder, sorted; none where it is missing."""
        with self._told("listed", path), suppress(FileNotFoundError, NotADirectoryError):
            return sorted(self._place.folders(path))
        return []

    def files(self, path: str = "") -> list[str]:
        """Return the names of the files in a folder, sorted; none where it is missing."""
        with self._told("listed", path), suppress(FileNotFoundError, NotADirectoryError):
            return sorted(self._place.files(path))
        return []

    def find(self, folder: str, name: str) -> list[str]:
        """Return the paths of all files called `name` below a folder, sorted."""
        with self._told("listed", folder):
            return sorted(self._place.find(folder, name))

    @contextmanager
    def _told(self, what: str, path: str, missing: bool = False) -> Iterator[None]:
        """Turn any error of the place into one line that tells what cannot be done where."""
        where = shown(self.full(path))
        try:
            yield
        except NotImplementedError:
            raise NoConditionalPut(f"{where}: the storage has no conditional puts") from None
        except self._place.changed:
            raise ChangedMeanwhile(f"{where}: another has written it meanwhile") from None
        except self._place.errors as error:
            if missing and isinstance(error, (FileNotFoundError, NotADirectoryError)):
                raise FileNotFoundError(f"{where}: no such file") from None
            raise StorageError(
                f"{where}: cannot be {what} ({_reason(error)}); make it so or choose another --storage"
            ) from None


def read_bytes(location: str) -> bytes:
    """Return the bytes of a file named by its whole address; FileNotFoundError where there is none."""
    folder, name = _split(location)
    return Storage(folder).read(name)


def write_bytes(location: str, content: bytes) -> None:
    """Write a file named by its whole address, making its folders."""
    folder, name = _split(location)
    Storage(folder).write(name, content)


def exists(location: str) -> bool:
    """Say whether there is such a file."""
    folder, name = _split(location)
    return Storage(folder).exists(name)


def delete(location: str) -> None:
    """Delete a file if it is there."""
    folder, name = _split(location)
    Storage(folder).delete(name)


def join(location: str, *parts: str) -> str:
    """Append parts to a path or address; an address's options (`?endpoint_override=…`) stay at its end."""
    base, mark, options = location.partition("?") if _is_remote(location) else (location, "", "")
    return "/".join([base.rstrip("/"), *parts]) + mark + options


def _split(location: str) -> tuple[str, str]:
    base, mark, options = location.partition("?") if _is_remote(location) else (location, "", "")
    folder, slash, name = base.rpartition("/")
    return (folder or slash or ".") + mark + options, name


def _is_remote(location: str) -> bool:
    return "://" in location and not location.startswith("file://")


def _local(location: str) -> Path:
    return user_path(location.removeprefix("file://")).absolute()


def _public(uri: str) -> str:
    """Return an object store's address without the secrets in it, which are kept for `_objects`."""
    clean, secrets = without_secrets(uri)
    keep_keys(_bucket(clean), secrets)
    return join(clean)


def _bucket(uri: str) -> str:
    """Return what an object store's keys open: its bucket, with the options that say where that is."""
    base, mark, options = uri.partition("?")
    scheme, _, rest = base.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}{mark}{options}"


def _objects(uri: str) -> ObjectPlace:
    scheme, _, rest = uri.partition("://")
    base, _, options = rest.partition("?")
    bucket, _, prefix = base.partition("/")
    keys = urlencode(keys_of(_bucket(uri)))
    try:
        if not bucket:
            raise ValueError("it names no bucket")
        return ObjectPlace(connect(scheme, bucket, "&".join(filter(None, (options, keys)))), prefix)
    except (BaseError, ValueError) as error:
        raise ConfigError(
            f"storage={shown(uri)!r}: cannot be reached ({_reason(error)}); give a folder or an s3:// address"
        ) from None


def _reason(error: Exception) -> str:
    """Return why, in some words: of an S3 server's answer its message."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    told = re.search(r"<Message>(.*?)</Message>", str(text), re.DOTALL)
    return shown(told.group(1) if told else re.sub(r"^Generic \w+ error: ", "", str(text)).splitlines()[0])[:200]
