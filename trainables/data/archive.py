"""Find pages in FEVER's archive and page files without unpacking 7 GB: lines are streamed, few are parsed.

The archive holds `wiki-pages/wiki-001.jsonl` to `wiki-109.jsonl`, one page a line, and beside them a Mac's resource
forks (`__MACOSX/…/._wiki-001.jsonl`), which are no pages.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.progress import track

from trainables.data.jsonl import numbered_lines, parse_object, require, text_field
from trainables.data.titles import normal_title
from trainables.errors import DataError

ID_START = b'{"id": "'
ID_END = b'", "'
TITLE = b'"title"'
"""In no text: there quotes are escaped."""
PAGE_COLUMNS = (("title", "id"), "text")
READ_BYTES = 2**20


def archive_pages(path: Path, wanted: Set[str]) -> dict[str, str]:
    """Return the lines of wanted pages of a zip archive, by title; a page that it lacks is left out.

    Raises:
        DataError: the archive cannot be read, or a line is broken.
    """
    found: dict[str, str] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in sorted(archive.namelist()) if _is_page_file(name)]
            if not members:
                raise DataError(f"{path}: has no wiki-*.jsonl; is it FEVER's wiki-pages.zip?")
            console = Console(stderr=True)
            told = f"{path.name}: finding {len(wanted):,} pages"
            for name in track(members, told, console=console, transient=True, disable=not console.is_terminal):
                with io.BufferedReader(cast(io.RawIOBase, archive.open(name)), READ_BYTES) as member:
                    lines = ((f"{path}/{name}:{n}", line) for n, line in enumerate(member, 1) if not line.isspace())
                    for title, line in wanted_lines(lines, wanted):
                        found.setdefault(title, line)
                if len(found) == len(wanted):
                    break
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DataError(f"{path}: cannot be read as a zip archive ({error}); delete it and try again") from None
    return found


def page_lines(path: Path, wanted: Set[str]) -> dict[str, str]:
    """Return the lines of wanted pages of one page file, by title.

    Raises:
        DataError: the file cannot be read, or a line is broken.
    """
    return dict(wanted_lines(numbered_lines(path), wanted))


def wanted_lines(lines: Iterable[tuple[str, bytes]], wanted: Set[str]) -> Iterator[tuple[str, str]]:
    """Yield title and line of the pages that are wanted.

    Raises:
        DataError: a line that is not JSON, or a wanted page without a text.
    """
    for _, title, line in found_lines(lines, wanted):
        yield title, line.decode().rstrip("\r\n")


def found_lines(lines: Iterable[tuple[str, bytes]], wanted: Set[str]) -> Iterator[tuple[str, str, bytes]]:
    """Yield place, title and line of the pages that are wanted, each line checked.

    Raises:
        DataError: a line that is not JSON, or a wanted page without a text.
    """
    for where, line in lines:
        title = _quick_title(line)
        if title is not None and title not in wanted:
            continue
        record = parse_object(where, line)
        require(record, PAGE_COLUMNS, where)
        title = page_title(record, where)
        if title in wanted:
            text_field(record, "text", where)
            yield where, title, line


def page_title(record: Mapping[str, Any], where: str) -> str:
    """Return the name of a page: its `title` where it has one, for then its `id` may be a number; else its `id`.

    Raises:
        DataError: it has neither, or it is no text.
    """
    name = "title" if record.get("title") is not None else "id"
    return normal_title(text_field(record, name, where))


def _is_page_file(name: str) -> bool:
    parts = name.split("/")
    return name.endswith(".jsonl") and "__MACOSX" not in parts and not parts[-1].startswith(".")


def _quick_title(line: bytes) -> str | None:
    """Return the page's name without parsing the line, or None where the line must be parsed to know it."""
    end = line.find(ID_END, len(ID_START))
    if not line.startswith(ID_START) or end < 0 or TITLE in line:
        return None
    raw = line[len(ID_START) : end]
    if raw.isascii() and b"\\" not in raw:
        return normal_title(raw.decode())
    try:
        return normal_title(json.loads(b'"%b"' % raw))
    except ValueError:
        return None
