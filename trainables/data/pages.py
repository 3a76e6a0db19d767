"""The texts of FEVER's Wikipedia pages.

The full set is 109 files of 7 GB for 5.4 million pages, of which a study wants about a thousand. So the files
are streamed, a line is parsed only when its page is wanted, and what was found in a large set is kept in the
node's cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Set
from pathlib import Path

from trainables.data.archive import wanted_lines
from trainables.data.jsonl import numbered_lines
from trainables.data.source_files import SourceFiles
from trainables.errors import DataError
from trainables.node.cache_dir import cache_dir
from trainables.node.storage import write_bytes

LARGE_BYTES = 256 * 2**20


def load_pages(sources: Iterable[SourceFiles], wanted: Set[str]) -> dict[str, str]:
    """Return the texts of wanted pages; a page that is nowhere is left out.

    Raises:
        DataError: no source has pages, or a broken line.
    """
    sources = tuple(sources)
    files = [path for source in sources for path in source.wiki_pages]
    if not files:
        names = ", ".join(source.name for source in sources)
        raise DataError(f"{names}: claims without pages; looked for wiki-pages/*.jsonl there and one level below")
    if sum(path.stat().st_size for path in files) < LARGE_BYTES:
        return read_pages(files, wanted)
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return _cached(json.dumps(stats), wanted, lambda: read_pages(files, wanted))


def read_pages(files: Iterable[Path], wanted: Set[str]) -> dict[str, str]:
    """Stream page files until every wanted page is found.

    Raises:
        DataError: a line that is not JSON, or a wanted page without a text.
    """
    found: dict[str, str] = {}
    for path in files:
        for title, line in wanted_lines(numbered_lines(path), wanted):
            if title not in found:
                found[title] = json.loads(line)["text"]
                if len(found) == len(wanted):
                    return found
    return found


def _cached(content_key: str, wanted: Set[str], read: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Return `read()`, kept in the node's cache under what it was read from and the pages wanted."""
    digest = hashlib.sha256("\n".join([content_key, *sorted(wanted)]).encode()).hexdigest()
    path = cache_dir() / "pages" / f"{digest[:32]}.json"
    try:
        kept: dict[str, str] = json.loads(path.read_bytes())
        return kept
    except (OSError, ValueError):
        pages = read()
    try:
        write_bytes(str(path), json.dumps(pages).encode())
    except OSError:
        return pages  # a cache that cannot be written: they are read again next time
    return pages
