"""The texts of FEVER's Wikipedia pages.

The full set is 109 files of 7 GB for 5.4 million pages, of which a study wants about a thousand. So the files
are streamed, a line is parsed only when its page is wanted, and what was found in a large set is kept in the
node's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Set
from pathlib import Path
from uuid import uuid4

from trainables.data.fever import normal_title
from trainables.data.hub import hub_rows
from trainables.data.jsonl import numbered_lines, parse_object, text_field
from trainables.data.sources import HUB_KEY, SourceFiles
from trainables.errors import DataError
from trainables.node.cache_dir import cache_dir

LARGE_BYTES = 256 * 2**20
ID_START = b'{"id": "'
ID_END = b'", "'


def load_pages(sources: Iterable[SourceFiles], wanted: Set[str]) -> dict[str, str]:
    """Return the texts of wanted pages; a page that is nowhere is left out.

    Page files of folders are used where there are any, the hub's pages (a download of 1.7 GB) otherwise.

    Raises:
        ConfigError: the hub's pages are needed and cannot be reached.
        DataError: no source has pages, or a broken line.
    """
    sources = tuple(sources)
    files = [path for source in sources for path in source.wiki_pages]
    if files:
        if sum(path.stat().st_size for path in files) < LARGE_BYTES:
            return read_pages(files, wanted)
        stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return _cached(json.dumps(stats), wanted, lambda: read_pages(files, wanted))
    if any(source.is_hub for source in sources):
        return _cached(HUB_KEY, wanted, lambda: _hub_pages(wanted))
    names = ", ".join(source.name for source in sources)
    raise DataError(f"{names}: claims without pages; looked for wiki-pages/*.jsonl there and one level below")


def read_pages(files: Iterable[Path], wanted: Set[str]) -> dict[str, str]:
    """Stream page files until every wanted page is found.

    Raises:
        DataError: a line that is not JSON, or a wanted page without a text.
    """
    found: dict[str, str] = {}
    for path in files:
        for where, line in numbered_lines(path):
            title = _quick_title(line)
            if title is not None and title not in wanted:
                continue
            record = parse_object(where, line)
            title = normal_title(text_field(record, "id", where))
            if title in wanted and title not in found:
                found[title] = text_field(record, "text", where)
                if len(found) == len(wanted):
                    return found
    return found


def _quick_title(line: bytes) -> str | None:
    """Return the page's name without parsing the line, or None where the line must be parsed to know it."""
    end = line.find(ID_END, len(ID_START))
    if not line.startswith(ID_START) or end < 0:
        return None
    try:
        return normal_title(json.loads(line[len(ID_START) - 1 : end + 1]))
    except ValueError:
        return None


def _hub_pages(wanted: Set[str]) -> dict[str, str]:
    rows = hub_rows("wiki_pages", "wikipedia_pages", ["id", "text"])
    return {title: row["text"] for row in rows if (title := normal_title(row["id"])) in wanted}


def _cached(content_key: str, wanted: Set[str], read: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Return `read()`, kept in the node's cache under what it was read from and the pages wanted."""
    digest = hashlib.sha256("\n".join([content_key, *sorted(wanted)]).encode()).hexdigest()
    path = cache_dir() / "pages" / f"{digest[:32]}.json"
    try:
        kept: dict[str, str] = json.loads(path.read_bytes())
        return kept
    except (OSError, ValueError):
        pages = read()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{uuid4().hex}.tmp")
    temporary.write_text(json.dumps(pages), encoding="utf-8")
    os.replace(temporary, path)
    return pages
