"""Download a file whole, once, and prove it: resumable by range, checked by size and SHA-256."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import requests

from trainables.data.fingerprint import file_sha256
from trainables.data.online import BUSY_STATUSES, Busy, busy_answer, reason_of, require_online, say, try_online
from trainables.errors import ConfigError, DataError

CONNECT_S, READ_S = 10.0, 30.0
ARRIVAL_BYTES = 2**14
"""Written at a time; less than this is lost when a connection breaks."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server, and what is known of its content.

    Attributes:
        name: of the file.
        url: where it is.
        size: bytes; None where no one has told.
        sha256: of its content, in hex; None where no one has told.
    """

    name: str
    url: str
    size: int | None = None
    sha256: str | None = None


def fetch(file: RemoteFile, folder: Path) -> Path:
    """Download a file into a folder, going on where an earlier attempt stopped.

    What has arrived waits in `NAME.part`, with the server's mark of its version beside it; the file gets its name only
    when size and checksum are right. The caller sees to it that no other process does the same.

    Raises:
        ConfigError: the server cannot be reached, refuses, or stays busy; or the disk is too small.
        DataError: size or checksum differ from what is pinned.
    """
    target, part = folder / file.name, folder / f"{file.name}.part"
    if target.is_file() and _mismatch(file, target) is None:
        return target
    target.unlink(missing_ok=True)
    remedy = "connect this machine, or name a folder made elsewhere by `python -m sweep.data prepare`"
    require_online(file.url, file.name, f"{remedy} (--data FOLDER)")
    resumed = _size(part)
    _check_disk(file, folder, resumed)
    told = f", of which {_megabytes(resumed)} MB are here" if resumed else ""
    size = f" ({_megabytes(file.size)} MB{told})" if file.size else ""
    say(f"{file.name}: downloading {file.url}{size}")
    for _ in range(2):
        with _bar(file, _size(part)) as advance:
            try_online(file.name, lambda: _go_on(file, part, advance))  # noqa: B023
        problem = _mismatch(file, part)
        if problem is None:
            break
        _forget(part)
        if not resumed:
            raise DataError(
                f"{file.url}: {problem}; it was damaged on its way or has been changed; try again, and compare with "
                "`python -m sweep.data check`"
            )
        say(f"{file.name}: {problem}; it was put together from two downloads, so it starts over")
        resumed = 0
    os.replace(part, target)
    _forget(part)
    return target


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    return file_sha256(path)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's whole content, in hex; read once per process and version of the file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        stat = path.stat()
        return _digest(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _mismatch(file: RemoteFile, path: Path) -> str | None:
    """Say how a file differs from what is pinned, if it does."""
    size = _size(path)
    if file.size is not None and size != file.size:
        return f"{size:,} bytes arrived where {file.size:,} are pinned"
    if file.sha256 is not None and (found := sha256_of(path)) != file.sha256:
        return f"its SHA-256 is {found[:16]}… where {file.sha256[:16]}… is pinned"
    return None


def _go_on(file: RemoteFile, part: Path, advance: Callable[[int], None]) -> None:
    """Make one request for what is missing.

    Raises:
        Busy: the server is busy or the connection broke; what has arrived is kept.
    """
    have = _size(part)
    if file.size is not None and have == file.size:
        return
    headers = {"Accept-Encoding": "identity"}
    mark = _mark(part)
    if have and (mark or file.sha256):
        headers["Range"] = f"bytes={have}-"
        if mark:
            headers["If-Range"] = mark
    arrived = 0
    try:
        with requests.get(file.url, headers=headers, stream=True, timeout=(CONNECT_S, READ_S)) as response:
            start = _start_of(file, response, have, part)
            advance(start - have)
            with open(part, "ab" if start else "wb") as out:
                _keep_mark(part, response)
                for block in response.iter_content(ARRIVAL_BYTES):
                    out.write(block)
                    arrived += len(block)
                    advance(len(block))
    except _BROKEN as error:
        raise Busy(f"the connection broke ({reason_of(error)})", progressed=arrived > 0) from None
    except requests.RequestException as error:
        raise ConfigError(f"{file.name}: {file.url} cannot be downloaded ({reason_of(error)})") from None
    except OSError as error:
        raise ConfigError(
            f"{part}: cannot be written ({error.strerror or error}); choose another folder with --data-cache"
        ) from None
    if file.size is not None and _size(part) < file.size:
        raise Busy("the connection ended early", progressed=arrived > 0)


def _start_of(file: RemoteFile, response: requests.Response, have: int, part: Path) -> int:
    """Check the answer's head and return the offset at which its body belongs."""
    if response.status_code in BUSY_STATUSES:
        raise busy_answer(response.status_code, response.headers.get("Retry-After"))
    if response.status_code == 416:
        _forget(part)
        raise Busy("the server has no such range any more; starting over", progressed=have > 0)
    if not response.ok:
        raise ConfigError(
            f"{file.name}: {urlsplit(file.url).netloc} answers {response.status_code} {response.reason} for "
            f"{file.url}; the file may have moved: see docs/data.md for mirrors and addresses of your own"
        )
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    start = 0
    if response.status_code == 206:
        found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != have:
            _forget(part)
            raise Busy("the server sent another part than asked for; starting over", progressed=True)
        start, total = have, int(found[2]) if found[2].isdigit() else None
    if file.size is not None and total is not None and total != file.size:
        raise DataError(
            f"{file.url}: the server has {total:,} bytes where {file.size:,} are pinned; the file has been changed or "
            "cut: compare with `python -m sweep.data check`"
        )
    return start


@contextmanager
def _bar(file: RemoteFile, start: int) -> Iterator[Callable[[int], None]]:
    """Show how far a download is, on a terminal; yield what moves the bar, also back."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    hidden = not console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(file.name, total=file.size, completed=start)
        yield lambda count: progress.advance(task, count)


def _check_disk(file: RemoteFile, folder: Path, have: int) -> None:
    free = shutil.disk_usage(folder).free
    if file.size is not None and file.size - have > free:
        raise ConfigError(
            f"{folder}: {file.name} needs {_megabytes(file.size - have)} MB, of which {_megabytes(free)} MB are free; "
            "make room, or choose another folder with --data-cache"
        )


def _mark(part: Path) -> str:
    try:
        return part.with_suffix(".mark").read_text(encoding="utf-8")
    except OSError:
        return ""


def _keep_mark(part: Path, response: requests.Response) -> None:
    """Keep what names this version of the file on the server: a strong ETag, else its date."""
    tag = response.headers.get("ETag", "")
    mark = response.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag
    part.with_suffix(".mark").write_text(mark, encoding="utf-8")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_suffix(".mark").unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _megabytes(count: int | None) -> str:
    return f"{(count or 0) / 1e6:,.1f}"
