"""Small whole files by local path or URI (`s3://…`), written so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any


def is_remote(location: str) -> bool:
    """Whether a location is a URI of an object store rather than a local path."""
    return "://" in location and not location.startswith("file://")


def local_path(location: str) -> Path:
    """Return the path of a local location (`file://` is taken off)."""
    return Path(location.removeprefix("file://"))


def join(location: str, *parts: str) -> str:
    """Append parts to a path or URI; a URI's options (`?endpoint_override=…`) stay at its end."""
    base, mark, options = location.partition("?") if is_remote(location) else (location, "", "")
    return "/".join([base.rstrip("/"), *parts]) + mark + options


def filesystem(location: str) -> tuple[Any, str]:
    """Return the Arrow file system of a URI and the path within it."""
    from pyarrow.fs import FileSystem

    found: tuple[Any, str] = FileSystem.from_uri(location)
    return found


def write_bytes(location: str, content: bytes) -> None:
    """Write a whole file atomically: a local one under a temporary name, then renamed; an object in one put.

    Raises:
        OSError: the place cannot be written.
    """
    if is_remote(location):
        system, path = filesystem(location)
        with system.open_output_stream(path) as stream:
            stream.write(content)
        return
    target = local_path(location)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_bytes(location: str) -> bytes:
    """Read a whole file.

    Raises:
        FileNotFoundError: there is none.
    """
    if is_remote(location):
        system, path = filesystem(location)
        with system.open_input_stream(path) as stream:
            content: bytes = stream.read()
        return content
    return local_path(location).read_bytes()


def exists(location: str) -> bool:
    """Whether there is such a file."""
    if is_remote(location):
        from pyarrow.fs import FileType

        system, path = filesystem(location)
        return bool(system.get_file_info(path).type == FileType.File)
    return local_path(location).is_file()


def delete(location: str) -> None:
    """Delete a file if it is there."""
    if is_remote(location):
        system, path = filesystem(location)
        try:
            system.delete_file(path)
        except FileNotFoundError:
            return
    else:
        local_path(location).unlink(missing_ok=True)
