"""Make the official data sets ready in the node's data cache: download, verify, keep what is wanted."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from trainables.data.archive import archive_pages, page_lines
from trainables.data.fetch import RemoteFile, fetch, sha256_of
from trainables.data.official import WIKI_PAGES, DataSet, content_key, data_cache, data_set
from trainables.data.online import say
from trainables.data.ready import PAGES, Manifest, new_folder, one_at_a_time, read_manifest, write_manifest


def is_ready(name: str) -> bool:
    """Say whether a data set is in the cache."""
    return read_manifest(data_cache() / data_set(name).folder_name) is not None


def ready_data(name: str) -> Path:
    """Return the folder of an official data set, downloading it at first use.

    Several processes may ask at once: one downloads, the others wait. A cache that holds the data may be read-only.

    Raises:
        ConfigError: a server cannot be reached or refuses, or the cache cannot be written.
        DataError: a file is not what is pinned, or the cache was damaged.
    """
    found = data_set(name)
    folder = data_cache() / found.folder_name
    if read_manifest(folder) is None:
        with one_at_a_time(folder):
            if read_manifest(folder) is None:
                _make(found, folder)
    return folder


def key_of(name: str) -> str:
    """Return the key of an official data set; without a download where its checksums are pinned.

    Raises:
        ConfigError: as `ready_data`, where a checksum is not known beforehand.
        DataError: likewise.
    """
    key = data_set(name).key
    if key is None:
        manifest = read_manifest(ready_data(name))
        assert manifest is not None
        key = manifest.keys[name]
    return key


def official_pages(wanted: set[str]) -> dict[str, str]:
    """Return the lines of wanted pages from the official archive, by title; a page that it lacks is left out.

    The pages of FEVER's validation claims are in the cache once FEVER is; for others the archive is downloaded again.

    Raises:
        ConfigError: as `ready_data`.
        DataError: as `ready_data`.
    """
    folder = ready_data("fever")
    found = page_lines(folder / PAGES, wanted)
    if wanted <= set(found) or wanted <= evidence_titles(folder / "paper_dev.jsonl"):
        return found
    fever = data_set("fever")
    downloads = data_cache() / "downloads" / fever.folder_name
    with one_at_a_time(downloads):
        downloads.mkdir(exist_ok=True)
        archive = next(file for file in fever.files if file.name == WIKI_PAGES)
        found = archive_pages(fetch(archive, downloads), wanted)
        shutil.rmtree(downloads, ignore_errors=True)
    return found


def _make(found: DataSet, folder: Path) -> None:
    for abandoned in folder.parent.glob(f"{folder.name}.*.part"):
        shutil.rmtree(abandoned, ignore_errors=True)
    downloads = data_cache() / "downloads" / found.folder_name
    with new_folder(folder) as half:
        downloads.mkdir(parents=True, exist_ok=True)
        say(f"{found.name}: {found.bytes / 1e6:,.1f} MB to download, once, into {folder}")
        files = {file.name: fetch(file, downloads) for file in found.files}
        pages: Mapping[str, int] = {}
        for name, path in files.items():
            if name != WIKI_PAGES:
                shutil.copyfile(path, half / name)
        if WIKI_PAGES in files:
            wanted = evidence_titles(half / "paper_dev.jsonl")
            lines = archive_pages(files[WIKI_PAGES], wanted)
            write_pages(half / PAGES, lines)
            pages = {"wanted": len(wanted), "found": len(lines)}
            say(f"{found.name}: {len(lines):,} of {len(wanted):,} evidence pages are in {WIKI_PAGES}")
        known = [replace(file, sha256=sha256_of(files[file.name])) for file in found.files]
        key = content_key(found.name, {file.name: file.sha256 for file in known})
        origins = [_origin(file) for file in known]
        write_manifest(half, Manifest({found.name: key}, {found.name: origins}, pages=pages))
    shutil.rmtree(downloads, ignore_errors=True)


def write_pages(path: Path, lines: Mapping[str, str]) -> None:
    """Write page lines sorted by title, so that equal pages are equal bytes."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{lines[title]}\n" for title in sorted(lines)), encoding="utf-8", newline="\n")


def _origin(file: RemoteFile) -> dict[str, object]:
    """Describe a file; not where it was downloaded, so that a mirror's copy gives the same manifest."""
    return {name: value for name, value in asdict(file).items() if name != "url"}


def evidence_titles(claims: Path) -> set[str]:
    """Return the titles of the evidence pages of a table of claims."""
    from trainables.data.fever import group_by_page, read_rows

    return set(group_by_page(read_rows(claims)).pages)
