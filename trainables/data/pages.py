"""The texts of Wikipedia pages: FEVER's, or those of any dump with their names in any spelling.

The full set is 109 files of 7 GB for 5.4 million pages, of which a study wants about a thousand. So the files
are streamed, a line is parsed only when its page is wanted, and what was found in a large set is kept in the
node's cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Set
from itertools import islice
from pathlib import Path

from trainables.data.archive import PAGE_COLUMNS, found_lines, page_title
from trainables.data.data_files import plain_suffix
from trainables.data.jsonl import numbered_lines, text_field
from trainables.data.source_files import SourceFiles
from trainables.data.tables import read_table, table_files
from trainables.errors import DataError
from trainables.node.cache_dir import cache_dir
from trainables.node.storage import write_bytes

LARGE_BYTES = 256 * 2**20
SHOWN_TITLES = 3
TITLES_VERSION = 2
"""Raised when names match otherwise than before, so that what was kept is found again."""


def load_pages(sources: Iterable[SourceFiles], wanted: Set[str], may_lack_all: bool = False) -> dict[str, str]:
    """Return the texts of wanted pages; a page that is nowhere is left out. The first source that has one counts.

    Args:
        sources: where to look.
        wanted: names of pages.
        may_lack_all: whether it is no mistake that none of them is there.

    Raises:
        DataError: no source has pages, none of them is wanted, two of one source have the same name, or a broken line.
    """
    sources = tuple(sources)
    files = page_files(sources)
    if not files:
        names = ", ".join(source.name for source in sources)
        raise DataError(f"{names}: claims without pages; looked for wiki-pages/*.jsonl there and one level below")
    content = [file for path in files for file in table_files(path)]
    if sum(path.stat().st_size for path in content) < LARGE_BYTES:
        found = _read_sources(sources, wanted)
    else:
        stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in content]
        found = _cached(json.dumps([TITLES_VERSION, stats]), wanted, lambda: _read_sources(sources, wanted))
    if wanted and not may_lack_all and not any(text.strip() for text in found.values()):
        raise DataError(f"{_names(files)}: {coverage(sources, wanted, 0)}; are these the pages of these claims?")
    return found


def page_files(sources: Iterable[SourceFiles]) -> list[Path]:
    """Return the tables of pages of all sources."""
    return [path for source in sources for path in source.wiki_pages]


def coverage(sources: Iterable[SourceFiles], wanted: Set[str], with_text: int, missing: Set[str] | None = None) -> str:
    """Say how many evidence pages have a text, and how names look on both sides.

    Args:
        sources: of the pages.
        wanted: names of all evidence pages.
        with_text: how many of them have a text.
        missing: those that have none; all where None.
    """
    asked = ", ".join(map(repr, sorted(missing if missing is not None else wanted)[:SHOWN_TITLES]))
    there = ", ".join(map(repr, first_titles(page_files(sources)))) or "none"
    count = f"{with_text:,} of {len(wanted):,} evidence pages have a text in {_names(page_files(sources))}"
    return f"{count}; titles there look like {there}, missing are {asked}"


def first_titles(paths: Iterable[Path]) -> list[str]:
    """Return the first few names of pages, as they are spelled there.

    Raises:
        DataError: a broken line.
    """
    records = (record for path in paths for _, record in read_table(path, PAGE_COLUMNS))
    titles = (str(record["title"] if record.get("title") is not None else record.get("id")) for record in records)
    return list(islice((title for title in titles if title), SHOWN_TITLES))


def read_pages(paths: Iterable[Path], wanted: Set[str]) -> dict[str, str]:
    """Read the wanted pages of one source.

    Raises:
        DataError: a line that is not JSON, a wanted page without a text, or two with one name and different texts.
    """
    found: dict[str, tuple[str, str]] = {}
    for path in paths:
        for where, title, text in _pages_of(path, wanted):
            add_page(found, title, text, where)
    return {title: text for title, (text, _) in found.items()}


def add_page(found: dict[str, tuple[str, str]], title: str, text: str, where: str) -> None:
    """Add a page's text and place under its name.

    Raises:
        DataError: there is one of the name with another text.
    """
    known, place = found.setdefault(title, (text, where))
    if known != text:
        raise DataError(f"{where}: page {title!r} has another text at {place}; keep one of them")


def _pages_of(path: Path, wanted: Set[str]) -> Iterator[tuple[str, str, str]]:
    """Yield place, title and text; of JSON lines only those are parsed that are wanted, as far as that can be seen."""
    if not path.is_dir() and plain_suffix(path) == ".jsonl":
        for where, title, line in found_lines(numbered_lines(path), wanted):
            yield where, title, json.loads(line)["text"]
        return
    for where, record in read_table(path, PAGE_COLUMNS):
        title = page_title(record, where)
        if title in wanted:
            yield where, title, text_field(record, "text", where)


def _read_sources(sources: Iterable[SourceFiles], wanted: Set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in sources:
        found = {**read_pages(source.wiki_pages, wanted), **found}
    return found


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(dict.fromkeys(str(path if path.is_dir() else path.parent) for path in paths))


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
